"""The pinhole camera: pixels, rays and points. Pixels are (u, v) = (column, row) at integers."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ttt3r.geometry import se3


def pixel_grid(size: tuple[int, int], like: Tensor) -> Float[Tensor, "height width 2"]:
    """Return the pixel centres (u, v) of an image of `size`, with `like`'s dtype and device."""
    v, u = torch.meshgrid(
        torch.arange(size[0], dtype=like.dtype, device=like.device),
        torch.arange(size[1], dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([u, v], dim=-1)


def default_intrinsics(
    size: tuple[int, int], focal: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Return pinhole matrices with square pixels and principal point (width // 2, height // 2).

    Args:
        size: (height, width) in pixels.
        focal: focal length in pixels, [*batch].
    """
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    center_u, center_v = one * (size[1] // 2), one * (size[0] // 2)
    entries = [focal, zero, center_u, zero, focal, center_v, zero, zero, one]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def project(
    points: Float[Tensor, "*points 3"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*points 2"]:
    """Project points of the camera's frame to pixels.

    Args:
        points: [*batch, ..., 3], the batch axes of `intrinsics` followed by any others.
        intrinsics: pinhole matrices [*batch, 3, 3] in pixels.

    Returns:
        (u, v) in the shape of `points`. Points behind the camera (z < 0) are projected through the
        pinhole and those with z = 0 become infinite or NaN, so look at z before using a pixel.
    """
    rows = points.unsqueeze(-2).flatten(intrinsics.ndim - 2, -2)
    homogeneous = (rows @ intrinsics.mT).reshape(points.shape)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def unproject(
    depth: Float[Tensor, "*batch height width"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch height width 3"]:
    """Return the pointmap of a depth map, in the camera's frame and the unit of `depth`.

    Args:
        depth: distance along the optical axis (z, not the length of the ray).
        intrinsics: pinhole matrices [*batch, 3, 3] in pixels.
    """
    height, width = depth.shape[-2:]
    return _points_at_depth_one(intrinsics, (height, width)) * depth[..., None]


def ray_map(
    world_from_camera: Float[Tensor, "*batch 4 4"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    size: tuple[int, int],
) -> Float[Tensor, "*batch height width 6"]:
    """Return the ray map by which CUT3R is asked for an unseen view (arXiv 2501.12387).

    Channels are [t, d] with t the camera's centre and d = normalise(R K⁻¹ [u, v, 1]ᵀ + t). The
    translation is added before normalising, so d points from the world's origin to the pixel's
    point at depth 1; it is the direction of the ray only if t = 0. This is not a slip: the
    released networks were trained with exactly these numbers and understand no others.

    Args:
        world_from_camera: rigid poses [*batch, 4, 4], the world being the stream's first camera.
        intrinsics: pinhole matrices [*batch, 3, 3] in pixels.
        size: (height, width) in pixels.
    """
    points = se3.apply(world_from_camera, _points_at_depth_one(intrinsics, size))
    center = world_from_camera[..., None, None, :3, 3].expand_as(points)
    return torch.cat([center, functional.normalize(points, dim=-1)], dim=-1)


def _points_at_depth_one(
    intrinsics: Float[Tensor, "*batch 3 3"], size: tuple[int, int]
) -> Float[Tensor, "*batch height width 3"]:
    """K⁻¹ [u, v, 1]ᵀ for every pixel; K is upper triangular, so the inverse is written out."""
    u, v = pixel_grid(size, like=intrinsics).unbind(-1)
    (fx, skew, cx), (_, fy, cy), _ = (
        row.unbind(-1) for row in intrinsics[..., None, None, :, :].unbind(-2)
    )
    y = (v - cy) / fy
    x = (u - cx - skew * y) / fx
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)
