"""Whether what one view says of the scene fits what another says of it."""

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.camera import project

TOLERANCE = 0.1
LEAST_POINTS = 16


def agreement(
    points: Float[Tensor, "n 3"],
    world_from_camera: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    depth: Float[Tensor, "height width"],
    tolerance: float = TOLERANCE,
) -> float:
    """Return the share of points whose depth in a view is the one that the view has there.

    A point counts if it lies before the camera and falls on a pixel of known depth. It agrees if
    its depth differs by less than `tolerance` times the view's. Points that something hides from
    the view disagree, so that even exact maps give less than 1.

    Args:
        points: in the world, such as those of the frame before.
        world_from_camera: pose of the view.
        intrinsics: of the view, in pixels.
        depth: of the view, along the optical axis, in the unit of `points`.
        tolerance: relative difference of depths.

    Returns:
        A share in [0, 1]; NaN if fewer than 16 points count.
    """
    seen = se3.apply(se3.invert(world_from_camera), points)
    height, width = depth.shape
    z = seen[:, 2]
    pixels = project(seen, intrinsics).round()
    inside = (z > 0) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    u, v = pixels[inside].long().unbind(1)
    here, there = depth[v, u], z[inside]
    known = here.isfinite() & there.isfinite() & (here > 0)
    if int(known.sum()) < LEAST_POINTS:
        return float("nan")
    here, there = here[known], there[known]
    return float(((there - here).abs() < tolerance * here).float().mean())


def some_points(
    points: Float[Tensor, "height width 3"], world_from_camera: Float[Tensor, "4 4"], most: int
) -> Float[Tensor, "n 3"]:
    """Return points of an even grid of a view's pixels, in the world; about `most` of them.

    Points that are not finite or not before the camera are left out, and so are all of a view
    without a place.
    """
    height, width = points.shape[:2]
    step = max(1, round((height * width / most) ** 0.5))
    chosen = points[step // 2 :: step, step // 2 :: step].reshape(-1, 3).float()
    usable = chosen.isfinite().all(1) & (chosen[:, 2] > 0)
    if not bool(world_from_camera.isfinite().all()):
        usable = torch.zeros_like(usable)
    return se3.apply(world_from_camera.to(chosen), chosen[usable])
