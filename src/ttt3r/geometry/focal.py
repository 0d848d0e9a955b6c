"""Focal length from a pointmap in the camera's own frame."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.geometry.camera import pixel_grid

SMALLEST_RESIDUAL = 1e-8


def focal_from_points(
    points: Float[Tensor, "*batch height width 3"],
    iterations: int = 10,
    usable: Bool[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Estimate one focal length per pointmap, shared by both axes, in pixels.

    Minimises Σ |x − f a| over f by iteratively reweighted least squares (Weiszfeld), where x is a
    pixel relative to the principal point (width // 2, height // 2) and a = (X/Z, Y/Z). Outlying
    pixels count little; none is excluded.

    Args:
        points: pointmap in the camera's frame, any unit, [*batch, height, width, 3].
        iterations: reweighting steps after the least-squares start.
        usable: pixels that may take part; all of them if None.

    Returns:
        Focal lengths, at least 0; NaN where no pixel holds a usable ray. Points that no camera can
        see may ask for a negative focal length, which becomes 0.
    """
    height, width = points.shape[-3:-1]
    pixels = pixel_grid((height, width), like=points).flatten(0, 1)
    pixels = pixels - pixels.new_tensor([width // 2, height // 2])
    if usable is not None:  # a point that is not finite has no slope
        points = points.masked_fill(~usable[..., None], torch.nan)
    return _weiszfeld(pixels, points.flatten(-3, -2), iterations).clamp(min=0.0)


def _weiszfeld(
    pixels: Float[Tensor, "pixels 2"], points: Float[Tensor, "*batch pixels 3"], iterations: int
) -> Float[Tensor, "*batch"]:
    """Return argmin over f of Σ |x − f a|, a being 0 where it is not finite."""
    slopes = (points[..., :2] / points[..., 2:]).nan_to_num(0.0, 0.0, 0.0)
    products = (slopes * pixels).sum(-1)
    squares = slopes.square().sum(-1)
    focal = products.mean(-1) / squares.mean(-1)
    for _ in range(iterations):
        # Expanding the square would cancel exactly where residuals are small and weights large.
        residuals = torch.linalg.vector_norm(pixels - focal[..., None, None] * slopes, dim=-1)
        weights = residuals.clamp(min=SMALLEST_RESIDUAL).reciprocal()
        focal = (weights * products).mean(-1) / (weights * squares).mean(-1)
    return focal
