"""Point3R weights: a state dict under ``model``, and training's arguments beside it."""

from collections.abc import Mapping
from typing import Any

from ttt3r.checkpoints.constructor import UNBOUNDED, largest_side, parse_call, positive, rope_base
from ttt3r.checkpoints.reading import Checkpoint
from ttt3r.checkpoints.shapes import Shapes, count_blocks, side
from ttt3r.errors import WeightsError
from ttt3r.models.config import dpt_sizes, mlp_ratio
from ttt3r.models.family import Family, Tiny, points_output, pose_output
from ttt3r.models.point3r.config import TINY, Point3rConfig
from ttt3r.models.point3r.network import Point3r

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
    "patch_size": 16,
    "head_type": "dpt",
    "depth_mode": ("exp", *UNBOUNDED),
    "pose_mode": ("exp", *UNBOUNDED),
    "conf_mode": ("exp", 1, UNBOUNDED[1]),
}


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `Point3rConfig` that the tensors decide; heads leave no trace."""
    return {
        "encoder_dim": side(shapes, "decoder_embed.weight", 1, 2),
        "encoder_depth": count_blocks(shapes, "enc_blocks"),
        "decoder_dim": side(shapes, "decoder_embed.weight", 0, 2),
        "decoder_depth": count_blocks(shapes, "dec_blocks"),
        "value_depth": count_blocks(shapes, "value_encoder"),
        "memory_size": side(shapes, "pose_retriever.mem", 1, 3),
        "memory_depth": count_blocks(shapes, "pose_retriever.write_blocks"),
        "mlp_ratio": mlp_ratio(shapes, "enc_blocks.0.mlp"),
        "dpt": dpt_sizes(shapes, "downstream_head.dpt_self"),
    }


def _stated(published: Checkpoint, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a checkpoint's constructor call, completed by the tensors.

    Raises:
        WeightsError: if an argument that decides the arithmetic has a value that is not supported.
    """
    if published.model_string is None:
        return None
    arguments = parse_call(published.model_string)[2]
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
    return {**found, **stated}


FAMILY = Family(
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
    found=found_sizes,
    needed=("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth", "value_depth"),
    stated=_stated,
    tiny=(Tiny("tiny-point3r", "Random weights for tests of memories in space.", TINY),),
    outputs=(
        pose_output(r"downstream_head\.pose_head\.mlp\.fc2"),
        points_output(r"downstream_head\.dpt_(self|cross)\.head\.4"),
    ),
)
