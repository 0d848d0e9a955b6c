"""Rotations as matrices and as quaternions [w, x, y, z]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def matrix_from_quaternion(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation matrix of a quaternion of any length except zero.

    R = I + s (w [v]× + [v]×²) with s = 2 / (q · q), so q, −q and c q all give the same rotation.

    Args:
        quaternion: [*batch, 4], real part first.

    Returns:
        Rotation matrices [*batch, 3, 3]; NaN for a zero quaternion, which is not a rotation.
    """
    w, x, y, z = quaternion.unbind(-1)
    s = 2.0 / quaternion.square().sum(-1)
    entries = [
        *(1.0 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        *(s * (x * y + z * w), 1.0 - s * (x * x + z * z), s * (y * z - x * w)),
        *(s * (x * z - y * w), s * (y * z + x * w), 1.0 - s * (x * x + y * y)),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_matrix(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Return the unit quaternion of a rotation matrix, with w ≥ 0.

    The entries of R give the symmetric matrix 4 q qᵀ, every row of which is a multiple of q. The
    row of its largest diagonal entry (at least 1) is taken and normalised, so that no rotation
    angle loses precision.

    Args:
        matrix: rotations [*batch, 3, 3] without scale.

    Returns:
        [*batch, 4], real part first. Where w = 0 both signs describe the rotation and either may
        be returned.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix.flatten(-2).unbind(-1)
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    diagonal = (
        1.0 + m00 + m11 + m22,
        1.0 + m00 - m11 - m22,
        1.0 - m00 + m11 - m22,
        1.0 - m00 - m11 + m22,
    )
    ww, xx, yy, zz = diagonal
    rows = torch.stack([ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz], dim=-1)
    largest = torch.stack(diagonal, dim=-1).argmax(-1)[..., None, None]
    row = rows.unflatten(-1, (4, 4)).take_along_dim(largest, dim=-2).squeeze(-2)
    quaternion = functional.normalize(row, dim=-1)
    return torch.where(quaternion[..., :1] < 0.0, -quaternion, quaternion)


def angle(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Return the angle of a rotation in radians, exact near 0 and π too.

    tan θ = |R − Rᵀ| / √2 / (tr R − 1).
    """
    sine = torch.linalg.matrix_norm(matrix - matrix.mT) / 2**0.5
    return torch.atan2(sine, matrix.diagonal(dim1=-2, dim2=-1).sum(-1) - 1.0)
