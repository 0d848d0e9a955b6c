"""What is drawn of a frame: its points in the world, and its depth where that is known.

Pictures, viewers and exports all take it from here.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ttt3r.drawing.voxels import Cloud
from ttt3r.geometry import se3
from ttt3r.types import LARGEST_HALF, Prediction

GREY = 128  # the colour of points of frames without an image


def cloud_of(prediction: Prediction, stride: int = 1) -> Cloud:
    """The points of a frame in the world, at every `stride`-th pixel, in memory of their own.

    Points that are not finite are left out. A frame without points, a pose or a place has none.
    Without an image, points are grey; without a confidence, theirs is 1, the least there is.
    """
    points, pose = prediction.points, prediction.world_from_camera
    if points is None or pose is None or not bool(pose.isfinite().all()):
        return Cloud(
            np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32)
        )
    points = points[::stride, ::stride].reshape(-1, 3)
    usable = (points.abs() < LARGEST_HALF).all(dim=1)
    confidence = points.new_ones(len(points))
    if prediction.confidence is not None:
        confidence = prediction.confidence[::stride, ::stride].flatten()
        usable &= confidence.isfinite()
    colours = torch.full_like(points, GREY, dtype=torch.uint8)
    if prediction.image is not None:
        colours = prediction.image[::stride, ::stride].reshape(-1, 3)
    world = se3.apply(pose, points[usable].to(pose))
    return Cloud(
        world.cpu().float().numpy(),
        colours[usable].cpu().numpy(),
        confidence[usable].cpu().float().numpy(),
    )


def depth_of(points: Float[Tensor, "rows columns 3"]) -> Float32[np.ndarray, "rows columns"]:
    """The z of points in a camera's frame; NaN where nothing is known, or behind the camera."""
    z = points[..., 2].cpu().float().numpy()
    return np.where((z > 0) & (z < LARGEST_HALF), z, np.float32(np.nan))
