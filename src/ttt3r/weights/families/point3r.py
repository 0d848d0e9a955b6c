"""Point3R weights: a state dict under ``model``, and training's arguments beside it."""

from collections.abc import Mapping
from typing import Any

from ttt3r.errors import WeightsError
from ttt3r.models.point3r import Point3r
from ttt3r.models.point3r_config import PATCH_SIZE, Point3rConfig
from ttt3r.types import ImagePolicy
from ttt3r.weights.constructor import UNBOUNDED, largest_side, parse_call, positive, rope_base
from ttt3r.weights.families.base import (
    Family,
    Published,
    check_sizes,
    points_output,
    pose_output,
    released_config,
)
from ttt3r.weights.shapes import Shapes, count_blocks, dpt_sizes, refuse_contradictions, side

NEEDED = ("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth", "value_depth")
# Names of sizes in the constructor call and ours.
SIZES = {
    "enc_embed_dim": "encoder_dim",
    "enc_depth": "encoder_depth",
    "enc_num_heads": "encoder_heads",
    "dec_embed_dim": "decoder_dim",
    "dec_depth": "decoder_depth",
    "dec_num_heads": "decoder_heads",
    "memory_dec_num_heads": "pointer_heads",
    "local_mem_size": "memory_size",
    "mlp_ratio": "mlp_ratio",
}
# What else changes the arithmetic, and the only value that is supported.
FIXED = {
    "patch_size": PATCH_SIZE,
    "head_type": "dpt",
    "depth_mode": ("exp", *UNBOUNDED),
    "pose_mode": ("exp", *UNBOUNDED),
    "conf_mode": ("exp", 1, UNBOUNDED[1]),
}


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `Point3rConfig` that the tensors decide; heads leave no trace."""
    hidden = side(shapes, "enc_blocks.0.mlp.fc1.weight", 0, 2)
    width = side(shapes, "enc_blocks.0.mlp.fc1.weight", 1, 2)
    found: dict[str, Any] = {
        "encoder_dim": side(shapes, "decoder_embed.weight", 1, 2),
        "encoder_depth": count_blocks(shapes, "enc_blocks"),
        "decoder_dim": side(shapes, "decoder_embed.weight", 0, 2),
        "decoder_depth": count_blocks(shapes, "dec_blocks"),
        "value_depth": count_blocks(shapes, "value_encoder"),
        "memory_size": side(shapes, "pose_retriever.mem", 1, 3),
        "memory_depth": count_blocks(shapes, "pose_retriever.write_blocks"),
        "mlp_ratio": hidden // width if hidden and width else None,
        "dpt": dpt_sizes(shapes, "downstream_head.dpt_self"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _configure(shapes: Shapes, published: Published) -> Point3rConfig:
    found = found_sizes(shapes)
    if published.model_string is None:
        return released_config("Point3R", Point3rConfig, found, NEEDED)
    stated = _stated(parse_call(published.model_string)[2])
    refuse_contradictions(stated, found, "constructor call")
    # Where the call says nothing, what tensors do not tell is as released.
    return Point3rConfig(**{**found, **stated})


def _stated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the arguments that decide the arithmetic to fields of `Point3rConfig`.

    Raises:
        WeightsError: if one has a value that is not supported.
    """
    for name, wanted in FIXED.items():
        if arguments.get(name, wanted) != wanted:
            raise WeightsError(
                f"the checkpoint's constructor says {name}={arguments[name]!r}, which is not "
                f"supported; it must be {wanted!r}"
            )
    stated: dict[str, Any] = {
        ours: positive(name, arguments[name]) for name, ours in SIZES.items() if name in arguments
    }
    if "img_size" in arguments:
        stated["image_size"] = largest_side(arguments["img_size"])
    if "pos_embed" in arguments:
        stated["rope_base"] = rope_base(arguments["pos_embed"])
    return stated


def _check(config: Point3rConfig, shapes: Shapes) -> None:
    check_sizes(config, shapes, found_sizes(shapes))


def _policy(config: Point3rConfig) -> ImagePolicy:
    return ImagePolicy(config.image_size, PATCH_SIZE)


POINT3R = Family(
    name="point3r",
    title="Point3R",
    config=Point3rConfig,
    network=Point3r,
    marks=(
        "pts_patch_embed.",
        "decoder_embed_memory.",
        "dec_blocks_memory.",
        "dec_norm_memory.",
        "value_encoder.",
        "value_norm.",
        "value_out.",
        "memory_attn_head.",
    ),
    configure=_configure,
    check=_check,
    policy=_policy,
    outputs=(
        pose_output(r"downstream_head\.pose_head\.mlp\.fc2"),
        points_output(r"downstream_head\.dpt_(self|cross)\.head\.4"),
    ),
)
