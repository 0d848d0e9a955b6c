"""Fast3R weights: safetensors with a ``config.json``, or the state dict of a training."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ttt3r.checkpoints.reading import Checkpoint
from ttt3r.checkpoints.shapes import Shapes, count_blocks, side
from ttt3r.models.config import dpt_sizes, mlp_ratio
from ttt3r.models.family import Family, Tiny, points_output
from ttt3r.models.fast3r.config import TINY, Fast3rConfig, config_from_published
from ttt3r.models.fast3r.network import Fast3r


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `Fast3rConfig` that the tensors decide; heads leave no trace."""
    return {
        "patch_size": side(shapes, "encoder.patch_embed.proj.weight", 3, 4),
        "encoder_dim": side(shapes, "decoder.decoder_embed.weight", 1, 2),
        "encoder_depth": count_blocks(shapes, "encoder.enc_blocks"),
        "decoder_dim": side(shapes, "decoder.decoder_embed.weight", 0, 2),
        "decoder_depth": count_blocks(shapes, "decoder.dec_blocks"),
        "mlp_ratio": mlp_ratio(shapes, "encoder.enc_blocks.0.mlp"),
        "dpt": dpt_sizes(shapes, "downstream_head.dpt"),
    }


def _stated(published: Checkpoint, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of the published ``config.json``, which does not state the widths of the heads."""
    if published.config is None or "encoder_args" not in published.config:
        return None
    config = config_from_published(published.config)
    said = {item.name: getattr(config, item.name) for item in fields(config)}
    return said | {"dpt": found.get("dpt", config.dpt)}


FAMILY = Family(
    name="fast3r",
    title="Fast3R",
    config=Fast3rConfig,
    network=Fast3r,
    marks=("encoder.", "decoder.", "downstream_head_local."),
    found=found_sizes,
    needed=("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth"),
    stated=_stated,
    tiny=(Tiny("tiny-fast3r", "Random weights for tests of sets of views.", TINY),),
    outputs=(points_output(r"downstream_head(_local)?\.dpt\.head\.4"),),
    has_config_file=True,
)
