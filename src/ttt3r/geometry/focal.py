"""Focal length from a pointmap in the camera's own frame."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.geometry.camera import pixel_grid

SMALLEST_RESIDUAL = 1e-8


def focal_from_points(
    points: Float[Tensor, "*batch height width 3"],
    principal_point: Float[Tensor, "... 2"] | None = None,
    iterations: int = 10,
    min_factor: float = 0.0,
    max_factor: float = math.inf,
    method: Literal["weiszfeld", "median"] = "weiszfeld",
    usable: Bool[Tensor, "*batch height width"] | None = None,
    fallback_factor: float = math.nan,
) -> Float[Tensor, "*batch"]:
    """Estimate one focal length per pointmap, shared by both axes, in pixels.

    "weiszfeld" minimises Σ |x − f a| over f, where x is a pixel relative to the principal point
    and a = (X/Z, Y/Z), by iteratively reweighted least squares. Outlying pixels count little;
    none is excluded. "median" takes the median of what each coordinate of each pixel votes for,
    x Z/X and y Z/Y.

    Args:
        points: pointmap in the camera's frame, any unit, [*batch, height, width, 3].
        principal_point: (u, v) in pixels, [2] or [*batch, 2]; (width // 2, height // 2) if None.
        iterations: reweighting steps after the least-squares start ("weiszfeld" only).
        min_factor: lower bound, as a multiple of the focal length at which the longer image side
            spans 60°.
        max_factor: upper bound, likewise.
        method: "weiszfeld" or "median".
        usable: pixels that may take part; all of them if None.
        fallback_factor: answer where no pixel holds a usable ray, as a multiple like the bounds.
            1.0 supposes 60°, as published for pointmaps of which nothing is trusted; NaN, the
            default, supposes nothing.

    Returns:
        Focal lengths within the bounds. A cloud that no camera sees may ask for a negative one and
        then gets the lower bound.

    Raises:
        SettingError: if `method` is unknown, the bounds are out of order, or the fallback is not
            within them.
    """
    if not 0.0 <= min_factor <= max_factor:
        raise SettingError(f"focal bounds must rise from 0: {min_factor} to {max_factor}")
    if fallback_factor < min_factor or fallback_factor > max_factor:
        raise SettingError(
            f"fallback_factor ({fallback_factor}) must be NaN, or lie within the bounds "
            f"{min_factor} to {max_factor}"
        )
    height, width = points.shape[-3:-1]
    if principal_point is None:
        principal_point = points.new_tensor([width // 2, height // 2])
    pixels = pixel_grid((height, width), like=points).flatten(0, 1)
    pixels = pixels - principal_point[..., None, :]
    if usable is not None:  # a point that is not finite casts no vote
        points = points.masked_fill(~usable[..., None], torch.nan)
    flat = points.flatten(-3, -2)
    if method == "weiszfeld":
        focal = _weiszfeld(pixels, flat, iterations)
    elif method == "median":
        votes = pixels * (flat[..., 2:] / flat[..., :2])
        focal = votes.flatten(-2).nanmedian(-1).values
    else:
        raise SettingError(f"unknown focal method {method!r}; choose weiszfeld or median")
    base = max(height, width) / (2.0 * math.tan(math.radians(30.0)))
    focal = focal.clamp(min_factor * base, max_factor * base)
    return torch.where(focal.isnan(), fallback_factor * base, focal)


def _weiszfeld(
    pixels: Float[Tensor, "... pixels 2"], points: Float[Tensor, "*batch pixels 3"], iterations: int
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
