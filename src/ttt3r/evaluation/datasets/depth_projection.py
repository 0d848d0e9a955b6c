"""Depth maps seen from another camera, as when a depth camera stands beside a colour camera."""

import numpy as np
from jaxtyping import Float32, Float64


def project_depth(
    depth: Float32[np.ndarray, "height width"],
    source: Float64[np.ndarray, "3 3"],
    target: Float64[np.ndarray, "3 3"],
    target_from_source: Float64[np.ndarray, "4 4"],
) -> Float32[np.ndarray, "height width"]:
    """Move the points of a depth map into another camera of the same image size.

    A pixel u of depth z holds the point X = z K_s⁻¹ [u, 1]ᵀ of the source camera. With
    [p, w]ᵀ = K_t (R X + t), the target camera sees it at depth w in the pixel nearest to p / w. Of
    several points that meet in one pixel the nearest one stays. Nothing is filled in between:
    what the source camera did not see remains unknown.

    Args:
        depth: z in the source camera's frame, metres; what is not positive and finite is unknown.
        source: pinhole matrix of the depth map, pixels, centres at integers.
        target: pinhole matrix of the result.
        target_from_source: rigid transform of points, metres.

    Returns:
        z in the target camera's frame, metres, 0 where unknown.
    """
    height, width = depth.shape
    v, u = np.nonzero((depth > 0) & np.isfinite(depth))
    z = depth[v, u].astype(np.float64)
    linear = target @ target_from_source[:3, :3] @ np.linalg.inv(source)
    shift = target @ target_from_source[:3, 3]
    x, y, w = (z * (a * u + b * v + c) + t for (a, b, c), t in zip(linear, shift, strict=True))
    ahead = w > 0  # before the camera, not behind it
    x, y, w = x[ahead], y[ahead], w[ahead]
    column, row = np.floor(x / w + 0.5), np.floor(y / w + 0.5)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = (row[inside] * width + column[inside]).astype(np.int64)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, pixel, w[inside])
    nearest[np.isinf(nearest)] = 0.0
    return nearest.reshape(height, width).astype(np.float32)
