"""Small VGGT and StreamVGGT networks for tests."""

from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from ttt3r.models.streamvggt.config import StreamVggtConfig
from ttt3r.models.streamvggt.network import StreamVggt
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.network import Vggt, VggtNetwork

# The goldens were made with these sizes.
TINY: dict[str, Any] = {
    "image_size": 70,
    "dim": 48,
    "encoder_depth": 2,
    "encoder_heads": 3,
    "depth": 5,
    "heads": 4,
    "levels": (1, 2, 3, 4),
    "camera_depth": 2,
    "camera_heads": 6,
    "dpt_widths": (12, 16, 20, 24),
    "dpt_features": 16,
    "track": None,
}
# Smaller still, for random weights.
SMALL = TINY | {
    "dim": 16,
    "encoder_depth": 1,
    "encoder_heads": 2,
    "depth": 4,
    "heads": 2,
    "levels": (0, 1, 2, 3),
    "camera_depth": 1,
    "camera_heads": 2,
    "camera_iterations": 3,
    "dpt_widths": (4, 4, 4, 4),
    "dpt_features": 8,
}


def reference_weights() -> dict[str, torch.Tensor]:
    """The reference's random weights, those of the track head included; skips without goldens."""
    folder = goldens("vggt")
    return {
        key: tensor
        for part in ("aggregator", "heads", "track")
        for key, tensor in load_file(folder / f"tiny.weights_{part}.safetensors").items()
    }


def _build(family: str, sizes: dict[str, Any]) -> VggtNetwork:
    if family == "vggt":
        return Vggt(VggtConfig(**sizes))
    return StreamVggt(StreamVggtConfig(**sizes))


@cache
def reference_tiny(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A tiny "vggt" or "streamvggt" with the reference's weights; skips without goldens."""
    network = _build(family, TINY | changes)
    weights = reference_weights()
    own = {k: v for k, v in weights.items() if not k.startswith("track_head.")}
    network.load_state_dict(own, strict=True)
    return network.to(dtype).eval().requires_grad_(False)


@cache
def random_tiny(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A tiny "vggt" or "streamvggt" with random weights of our own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _build(family, SMALL | changes)
        for name, parameter in network.named_parameters():
            if ("token" in name and parameter.ndim > 1) or name.endswith("pos_embed"):
                torch.nn.init.normal_(parameter, std=0.5)  # these start at zero
    with torch.no_grad():  # a camera near the origin that sees about 60 degrees
        network.camera_head.pose_branch.fc2.bias[6:] = 0.3
    return network.to(dtype).eval().requires_grad_(False)
