"""Fast3R weights: safetensors with a ``config.json``, or the state dict of a training."""

from dataclasses import replace
from typing import Any

from ttt3r.models.fast3r import Fast3r
from ttt3r.models.fast3r_config import Fast3rConfig, config_from_published
from ttt3r.types import ImagePolicy
from ttt3r.weights.families.base import (
    Family,
    Published,
    check_sizes,
    points_output,
    released_config,
)
from ttt3r.weights.shapes import Shapes, count_blocks, dpt_sizes, side

NEEDED = ("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth")


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `Fast3rConfig` that the tensors decide; heads leave no trace."""
    hidden = side(shapes, "encoder.enc_blocks.0.mlp.fc1.weight", 0, 2)
    width = side(shapes, "encoder.enc_blocks.0.mlp.fc1.weight", 1, 2)
    found: dict[str, Any] = {
        "patch_size": side(shapes, "encoder.patch_embed.proj.weight", 3, 4),
        "encoder_dim": side(shapes, "decoder.decoder_embed.weight", 1, 2),
        "encoder_depth": count_blocks(shapes, "encoder.enc_blocks"),
        "decoder_dim": side(shapes, "decoder.decoder_embed.weight", 0, 2),
        "decoder_depth": count_blocks(shapes, "decoder.dec_blocks"),
        "mlp_ratio": hidden // width if hidden and width else None,
        "dpt": dpt_sizes(shapes, "downstream_head.dpt"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _configure(shapes: Shapes, published: Published) -> Fast3rConfig:
    found = found_sizes(shapes)
    if published.config is None or "encoder_args" not in published.config:
        return released_config("Fast3R", Fast3rConfig, found, NEEDED)
    config = config_from_published(published.config)
    # The published file does not state the widths of the heads.
    config = replace(config, dpt=found.get("dpt", config.dpt))
    check_sizes(config, shapes, found)
    return config


def _check(config: Fast3rConfig, shapes: Shapes) -> None:
    check_sizes(config, shapes, found_sizes(shapes))


def _policy(config: Fast3rConfig) -> ImagePolicy:
    return ImagePolicy(config.image_size, config.patch_size)


FAST3R = Family(
    name="fast3r",
    title="Fast3R",
    config=Fast3rConfig,
    network=Fast3r,
    marks=("encoder.", "decoder.", "downstream_head_local."),
    configure=_configure,
    check=_check,
    policy=_policy,
    outputs=(points_output(r"downstream_head(_local)?\.dpt\.head\.4"),),
    has_config_file=True,
)
