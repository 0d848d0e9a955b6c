"""The Lie algebra of similarities: seven numbers for one, and how small changes carry over.

A tangent vector is (u, ω, λ): shift [3], rotation vector in radians [3], logarithm of the scale. It
stands for the matrix [[λ I + ω^, u], [0, 0]], where ω^ x = ω × x; the exponential of that is the
similarity (Strasdat, "Local accuracy and global consistency for efficient visual SLAM", 2012,
section 2.4). Where others write closed forms with cases for small angles and scales near 1, the
exponential of a matrix does without cases here. Meant for float64.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.rotation import quaternion_from_matrix


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return ω^ with ω^ x = ω × x."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = (zero, -z, y, z, zero, -x, -y, x, zero)
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def exp(tangent: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 4 4"]:
    """Return the similarity of a tangent vector."""
    shift, turn, log_scale = tangent[..., :3], tangent[..., 3:6], tangent[..., 6]
    grown = log_scale.exp()[..., None, None] * torch.linalg.matrix_exp(cross_matrix(turn))
    moved = (_shift_matrix(turn, log_scale) @ shift[..., None]).squeeze(-1)
    return se3.assemble(grown, moved)


def log(similarity: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 7"]:
    """Return the tangent vector of a similarity; its rotation vector is at most π long."""
    scale = se3.similarity_scale(similarity)
    turn = rotation_vector(similarity[..., :3, :3] / scale[..., None, None])
    matrix = _shift_matrix(turn, scale.log())
    shift = torch.linalg.solve(matrix, similarity[..., :3, 3])
    return torch.cat([shift, turn, scale.log()[..., None]], -1)


def rotation_vector(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Return axis times angle in radians of rotations; the angle is from 0 to π."""
    quaternion = quaternion_from_matrix(rotation)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    length = imaginary.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(length.dtype).tiny
    # 2 atan2(|v|, w) / |v| is 2 / w to all digits where |v| is far below w.
    factor = 2 * torch.atan2(length, real) / length.clamp(min=tiny)
    return imaginary * torch.where(length > tiny, factor, 2.0 / real.clamp(min=0.5))


def adjoint(similarity: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 7 7"]:
    """Return the matrix A with S exp(ξ) S⁻¹ = exp(A ξ)."""
    grown, shift = similarity[..., :3, :3], similarity[..., :3, 3]
    rotation = grown / se3.similarity_scale(similarity)[..., None, None]
    zero = torch.zeros_like(rotation)
    column = torch.cat([-shift, torch.zeros_like(shift), torch.ones_like(shift[..., :1])], -1)
    top = torch.cat([grown, cross_matrix(shift) @ rotation], -1)
    middle = torch.cat([zero, rotation], -1)
    rows = torch.cat([top, middle, torch.zeros_like(top[..., :1, :])], -2)
    return torch.cat([rows, column[..., None]], -1)


def inner(tangent: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """Return the matrix of ξ ↦ [tangent, ξ], the derivative of `adjoint` at the identity."""
    shift, turn, log_scale = tangent[..., :3], tangent[..., 3:6], tangent[..., 6:]
    turning = cross_matrix(turn)
    growing = log_scale[..., None] * torch.eye(3, dtype=tangent.dtype, device=tangent.device)
    top = torch.cat([turning + growing, cross_matrix(shift), -shift[..., None]], -1)
    zero = torch.zeros_like(turning)
    middle = torch.cat([zero, turning, torch.zeros_like(shift[..., None])], -1)
    return torch.cat([top, middle, torch.zeros_like(top[..., :1, :])], -2)


def log_derivative(tangent: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7 7"]:
    """Return the matrix J with log(exp(tangent) exp(δ)) = tangent + J δ for small δ.

    The inverse of the right Jacobian, which is the integral of exp(-τ inner(tangent)) over τ from 0
    to 1 (Sola et al., "A micro Lie theory for state estimation in robotics", arXiv 1812.01537,
    equation 67).
    """
    return torch.linalg.inv(_integral(-inner(tangent)))


def _shift_matrix(
    turn: Float[Tensor, "*batch 3"], log_scale: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Matrix that turns the shift of a tangent vector into that of its similarity."""
    one = torch.eye(3, dtype=turn.dtype, device=turn.device)
    return _integral(cross_matrix(turn) + log_scale[..., None, None] * one)


def _integral(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Integral of exp(τ matrix) over τ from 0 to 1.

    The upper right block of the exponential of [[matrix, I], [0, 0]] (Van Loan, "Computing
    integrals involving the matrix exponential", 1978).
    """
    size = matrix.shape[-1]
    one = torch.eye(size, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    top = torch.cat([matrix, one], -1)
    both = torch.cat([top, torch.zeros_like(top)], -2)
    return torch.linalg.matrix_exp(both)[..., :size, size:]
