"""Cameras as nine numbers: translation, quaternion and fields of view (VGGT, arXiv 2503.11651).

An encoding is [tx, ty, tz, qx, qy, qz, qw, fov_v, fov_h]: the pose maps the world to the camera,
the quaternion's real part comes last, and the vertical and horizontal fields of view are in
radians. The principal point is the image's centre, (width / 2, height / 2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix


def decode(
    encoding: Float[Tensor, "*batch 9"], size: tuple[int, int]
) -> tuple[Float[Tensor, "*batch 4 4"], Float[Tensor, "*batch 3 3"]]:
    """Return ``camera_from_world`` and the pinhole matrix of encoded cameras.

    f = side / (2 tan(fov / 2)), so a field of view of zero gives an infinite focal length.

    Args:
        encoding: [*batch, 9]; the quaternion may have any length except zero.
        size: (height, width) of the image in pixels.

    Returns:
        Rigid transforms [*batch, 4, 4] (NaN for a zero quaternion) and matrices [*batch, 3, 3] in
        pixels.
    """
    translation, vector, scalar, fov = encoding.split((3, 3, 1, 2), dim=-1)
    rotation = matrix_from_quaternion(torch.cat((scalar, vector), dim=-1))
    tan_y, tan_x = (fov / 2).tan().unbind(-1)
    center_y, center_x = (torch.full_like(tan_x, 0.5 * side) for side in size)
    zero, one = torch.zeros_like(tan_x), torch.ones_like(tan_x)
    focal_x, focal_y = center_x / tan_x, center_y / tan_y
    entries = [focal_x, zero, center_x, zero, focal_y, center_y, zero, zero, one]
    return se3.assemble(rotation, translation), torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def encode(
    camera_from_world: Float[Tensor, "*batch 4 4"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    size: tuple[int, int],
) -> Float[Tensor, "*batch 9"]:
    """Return the encoding of cameras, with a unit quaternion, qw ≥ 0.

    Skew and principal point have no place in it.

    Args:
        camera_from_world: rigid transforms [*batch, 4, 4].
        intrinsics: pinhole matrices [*batch, 3, 3] in pixels.
        size: (height, width) of the image in pixels.
    """
    scalar, vector = quaternion_from_matrix(camera_from_world[..., :3, :3]).split((1, 3), dim=-1)
    half = 0.5 * torch.tensor(size, dtype=intrinsics.dtype, device=intrinsics.device)
    focal = torch.stack((intrinsics[..., 1, 1], intrinsics[..., 0, 0]), dim=-1)
    fov = 2 * (half / focal).atan()
    return torch.cat((camera_from_world[..., :3, 3], vector, scalar, fov), dim=-1)
