"""Focal length from a pointmap in the camera's own frame."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
    if usable is not None:  # a point that is not finite has no slope
        points = points.masked_fill(~usable[..., None], torch.nan)
    return _weiszfeld(points, iterations).clamp(min=0.0)


def _weiszfeld(
    points: Float[Tensor, "*batch height width 3"], iterations: int
) -> Float[Tensor, "*batch"]:
    """Return argmin over f of Σ |x − f a|, a being 0 where it is not finite.

    The two coordinates are kept apart: an axis of two at the end costs ten times the time.
    """
    rows, columns = (
        torch.arange(side, dtype=points.dtype, device=points.device) - side // 2
        for side in points.shape[-3:-1]
    )
    u, v = columns, rows[:, None]
    a, b = ((points[..., i] / points[..., 2]).nan_to_num(0.0, 0.0, 0.0) for i in range(2))
    products, squares = a * u + b * v, a * a + b * b
    focal = products.mean((-2, -1)) / squares.mean((-2, -1))
    for _ in range(iterations):
        # Expanding the square would cancel exactly where residuals are small and weights large.
        factor = focal[..., None, None]
        along_u, along_v = u - factor * a, v - factor * b
        residuals = along_u.square_().addcmul_(along_v, along_v).sqrt_()
        weights = residuals.clamp_(min=SMALLEST_RESIDUAL).reciprocal_()
        focal = (weights * products).mean((-2, -1)) / (weights * squares).mean((-2, -1))
    return focal
