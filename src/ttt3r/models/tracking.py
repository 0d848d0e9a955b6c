"""Follow points through a set of images."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.models.vggt.network import Vggt
from ttt3r.models.vggt.track import Tracks


@torch.no_grad()
def track(
    model: Any,
    images: Float[Tensor, "batch views 3 height width"],
    points: Float[Tensor, "batch points 2"],
) -> Tracks:
    """Follow points of the first image through the others (arXiv 2503.11651, section 3.3).

    Args:
        model: a VGGT network with a track head, as from ``ttt3r.load("vggt")``.
        images: RGB in [-1, 1]; sides are multiples of the patch.
        points: (x, y) in pixels of the first image; the centre of the top-left pixel is (0, 0).

    Returns:
        Positions [batch, views, points, 2] in pixels, and visibility and confidence
        [batch, views, points], both from 0 to 1, on the model's device.

    Raises:
        SettingError: if the model cannot track, or the images' size does not suit it.
        InputError: if a point lies outside the first image, or images are too small to track in.
    """
    if not isinstance(model, Vggt):
        raise SettingError("only VGGT follows points; use ttt3r.load('vggt')")
    return model.track(images.to(model.device), points.to(model.device))
