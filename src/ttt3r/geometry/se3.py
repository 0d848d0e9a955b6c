"""Rigid transforms and similarities as 4x4 matrices named ``target_from_source``.

A similarity is [[s R, t], [0, 1]] with a scale s > 0; a rigid transform is one with s = 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix


def assemble(
    linear: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Return the transform x ↦ `linear` x + `translation`."""
    top = torch.cat([linear, translation[..., None]], dim=-1)
    bottom = torch.eye(4, dtype=top.dtype, device=top.device)[3:]
    return torch.cat([top, bottom.expand(*top.shape[:-2], 1, 4)], dim=-2)


def invert(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Return ``source_from_target`` for rigid transforms and similarities [*batch, 4, 4].

    (s R)⁻¹ = (s R)ᵀ / s², so nothing is factorised. Not for general affine maps.
    """
    scale = similarity_scale(transform)[..., None, None]
    linear = transform[..., :3, :3].mT / scale.square()
    return assemble(linear, -(linear @ transform[..., :3, 3:]).squeeze(-1))


def apply(
    transform: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*points 3"]
) -> Float[Tensor, "*points 3"]:
    """Move points by their transforms.

    Args:
        transform: [*batch, 4, 4].
        points: [*batch, ..., 3]: the batch axes of `transform`, then any number of further axes,
            all moved by the same transform. [4, 4] thus moves points of any shape, and [b, 4, 4]
            moves [b, 3], [b, n, 3] and pointmaps [b, height, width, 3].

    Returns:
        The moved points, in the shape of `points`.
    """
    batch = transform.shape[:-2]
    rows = points.unsqueeze(-2).flatten(len(batch), -2)
    moved = rows @ transform[..., :3, :3].mT + transform[..., None, :3, 3]
    return moved.reshape(points.shape)


def pose_from_encoding(encoding: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 4 4"]:
    """Return ``world_from_camera`` of a pose encoding.

    Args:
        encoding: [tx, ty, tz, qw, qx, qy, qz]; the quaternion may have any length except zero.
    """
    return assemble(matrix_from_quaternion(encoding[..., 3:]), encoding[..., :3])


def encoding_from_pose(pose: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 7"]:
    """Return [tx, ty, tz, qw, qx, qy, qz] of rigid transforms, with a unit quaternion, qw ≥ 0."""
    return torch.cat([pose[..., :3, 3], quaternion_from_matrix(pose[..., :3, :3])], dim=-1)


def similarity_scale(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch"]:
    """Return the scale s of similarities: the root mean square length of the columns of s R."""
    return transform[..., :3, :3].square().sum((-2, -1)).div(3.0).sqrt()


def place_camera(
    world_from_segment: Float[Tensor, "*batch 4 4"],
    segment_from_camera: Float[Tensor, "*batch 4 4"],
) -> Float[Tensor, "*batch 4 4"]:
    """Carry a camera into the world, when segment and world differ in scale.

    The plain product would scale the camera's own axes. Here the pose stays rigid: the camera's
    position takes the scale, its rotation does not. Points in the camera's frame must be
    multiplied by `similarity_scale(world_from_segment)` to go with the result.

    Args:
        world_from_segment: similarity [*batch, 4, 4].
        segment_from_camera: rigid pose [*batch, 4, 4], in the segment's unit.

    Returns:
        Rigid ``world_from_camera`` [*batch, 4, 4], in the world's unit.
    """
    product = world_from_segment @ segment_from_camera
    scale = similarity_scale(world_from_segment)[..., None, None]
    return assemble(product[..., :3, :3] / scale, product[..., :3, 3])
