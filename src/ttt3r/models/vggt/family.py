"""VGGT and StreamVGGT weights: flat state dicts of the same names, which do not state a thing.

The ``config.json`` that is published beside VGGT's tensors says nothing that they do not show.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from ttt3r.checkpoints.shapes import Shapes, count_blocks, side
from ttt3r.models.config import mlp_ratio
from ttt3r.models.family import RAW_DEPTH, Family, OutputLayer, Tiny
from ttt3r.models.vggt.config import TINY, VggtConfig
from ttt3r.models.vggt.network import Vggt
from ttt3r.models.vggt.track import TrackSizes

TRUNK = "aggregator.frame_blocks"
ENCODER = "aggregator.patch_embed"
TRACKER = "track_head.tracker"
# Cells in which the tracker compares features at each level: 9 x 9 in the released network.
COMPARED = (2 * TrackSizes().radius + 1) ** 2


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `VggtConfig` that the tensors decide, but for the track head's.

    Heads of attention leave no trace in shapes, except in the trunk, nor do the levels that the
    dense heads read.
    """
    dim = side(shapes, "aggregator.camera_token", 3, 4)
    head = side(shapes, f"{TRUNK}.0.attn.q_norm.weight", 0, 1)
    patch = side(shapes, f"{ENCODER}.patch_embed.proj.weight", 3, 4)
    places = side(shapes, f"{ENCODER}.pos_embed", 1, 3)
    grid = math.isqrt(places - 1) if places else 0
    return {
        "image_size": grid * patch if grid and patch else None,
        "patch_size": patch,
        "dim": dim,
        "encoder_depth": count_blocks(shapes, f"{ENCODER}.blocks"),
        "depth": count_blocks(shapes, TRUNK),
        "heads": dim // head if dim and head else None,
        "registers": side(shapes, "aggregator.register_token", 2, 4),
        "mlp_ratio": mlp_ratio(shapes, f"{TRUNK}.0.mlp"),
        "camera_depth": count_blocks(shapes, "camera_head.trunk"),
        "dpt_widths": _widths(shapes, "depth_head"),
        "dpt_features": side(shapes, "depth_head.scratch.layer1_rn.weight", 0, 4),
    }


def _widths(shapes: Shapes, head: str) -> tuple[int, ...] | None:
    widths = [side(shapes, f"{head}.projects.{level}.weight", 0, 4) for level in range(4)]
    known = tuple(width for width in widths if width is not None)
    return known if len(known) == 4 else None


def track_sizes(shapes: Shapes) -> TrackSizes | None:
    """Sizes of the track head, as far as tensors tell; None without one."""
    if not any(key.startswith("track_head.") for key in shapes):
        return None
    former = f"{TRACKER}.updateformer"
    extractor = "track_head.feature_extractor"
    compared = side(shapes, f"{TRACKER}.corr_mlp.fc1.weight", 1, 2)
    found = {
        "layers": _widths(shapes, extractor),
        "features": side(shapes, f"{extractor}.scratch.layer1_rn.weight", 0, 4),
        "levels": compared // COMPARED if compared else None,
        "hidden": side(shapes, f"{former}.input_transform.weight", 0, 2),
        "rounds": count_blocks(shapes, f"{former}.time_blocks"),
        "virtual_tracks": side(shapes, f"{former}.virual_tracks", 1, 4),
    }
    return TrackSizes(**{name: value for name, value in found.items() if value is not None})


def _untold(shapes: Shapes, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"track": track_sizes(shapes)}


OUTPUTS = (
    # Each of four iterations adds its share: no rotation, views of about one radian.
    OutputLayer(re.compile(r"camera_head\.pose_branch\.fc2"), 9, 0.02, {6: 0.25, 7: 0.25, 8: 0.25}),
    OutputLayer(re.compile(r"depth_head\.scratch\.output_conv2\.2"), 2, 0.1, {0: math.log(2.0)}),
    OutputLayer(re.compile(r"point_head\.scratch\.output_conv2\.2"), 4, 0.1, {2: RAW_DEPTH}),
)
FAMILY = Family(
    name="vggt",
    title="VGGT",
    config=VggtConfig,
    network=Vggt,
    marks=("aggregator.", "camera_head.", "depth_head.", "point_head.", "track_head."),
    found=found_sizes,
    needed=("image_size", "patch_size", "dim", "encoder_depth", "depth", "camera_depth"),
    untold=_untold,
    tiny=(Tiny("tiny-vggt", "Random weights for tests, with a track head.", TINY),),
    outputs=OUTPUTS,
    has_config_file=True,
)
