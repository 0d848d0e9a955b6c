"""The pose of a camera that sees three known points (P3P)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ttt3r.geometry import se3


def camera_from_three_points(
    points: Float[Tensor, "*batch 3 3"], rays: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch 4 4 4"]:
    """Return every pose from which the three points lie on the three rays.

    Grunert's solution in the form of Haralick et al., "Review and analysis of solutions of the
    three point perspective pose estimation problem", IJCV 1994, equations 9 to 16. The distances
    along the rays are s, u s and v s, where v is a root of a quartic; each root with positive
    distances gives the triangle in the camera's frame, and so a pose.

    Args:
        points: the points in the world, one per row; any unit. Float64 is advised.
        rays: their directions in the camera's frame, of any length.

    Returns:
        Four ``camera_from_world`` per sample. One is NaN where its root is complex, where the root
        would put a point behind the camera, or where the points lie on a line.
    """
    rays = functional.normalize(rays, dim=-1)
    first, second, third = rays.unbind(-2)
    distances = _distances(points, rays)
    s, u, v = (value[..., None] for value in distances)
    seen = torch.stack(
        [s * first[..., None, :], s * u * second[..., None, :], s * v * third[..., None, :]],
        dim=-2,
    )  # [*batch, root, point, 3]
    in_world, in_camera = _triangle_frame(points)[..., None, :, :], _triangle_frame(seen)
    rotation = in_camera @ in_world.mT
    center = points.mean(-2)[..., None, :, None]
    translation = seen.mean(-2) - (rotation @ center).squeeze(-1)
    return se3.assemble(rotation, translation)


def _distances(
    points: Float[Tensor, "*batch 3 3"], rays: Float[Tensor, "*batch 3 3"]
) -> tuple[
    Float[Tensor, "*batch 4"],
    Float[Tensor, "*batch 4"],
    Float[Tensor, "*batch 4"],
]:
    """The distance s of the first point and the ratios u, v of the others to it; NaN if none."""
    one, two, three = points.unbind(-2)
    a2, b2, c2 = ((p - q).square().sum(-1) for p, q in ((two, three), (one, three), (one, two)))
    first, second, third = rays.unbind(-2)
    cos_a, cos_b, cos_c = (
        (p * q).sum(-1) for p, q in ((second, third), (first, third), (first, second))
    )
    a_c, c_b, a_b = (a2 - c2) / b2, c2 / b2, a2 / b2
    quartic = torch.stack(
        [
            (1 + a_c) ** 2 - 4 * a_b * cos_c**2,
            4 * (-a_c * (1 + a_c) * cos_b + 2 * a_b * cos_c**2 * cos_b)
            - 4 * (1 - a_b - c_b) * cos_a * cos_c,
            2 * (a_c**2 - 1 + 2 * a_c**2 * cos_b**2 + 2 * (1 - c_b) * cos_a**2)
            + 4 * ((1 - a_b) * cos_c**2 - 2 * (a_b + c_b) * cos_a * cos_b * cos_c),
            4 * (a_c * (1 - a_c) * cos_b - (1 - a_b - c_b) * cos_a * cos_c)
            + 8 * c_b * cos_a**2 * cos_b,
            (a_c - 1) ** 2 - 4 * c_b * cos_a**2,
        ],
        dim=-1,
    )
    v = _real_roots(quartic)
    cos_a, cos_b, cos_c, a_c, b2 = (x[..., None] for x in (cos_a, cos_b, cos_c, a_c, b2))
    u = ((a_c - 1) * v**2 - 2 * a_c * cos_b * v + 1 + a_c) / (2 * (cos_c - v * cos_a))
    s = (b2 / (1 + v**2 - 2 * v * cos_b)).sqrt()
    in_front = (u > 0) & (v > 0) & s.isfinite()
    return torch.where(in_front, s, torch.nan), u, v


def _real_roots(quartic: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch 4"]:
    """Roots of Σ quartic[k] x^k as eigenvalues of its companion matrix; NaN for complex ones."""
    companion = torch.zeros(*quartic.shape[:-1], 4, 4, dtype=quartic.dtype, device=quartic.device)
    companion[..., 1, 0] = companion[..., 2, 1] = companion[..., 3, 2] = 1.0
    companion[..., :, 3] = -quartic[..., :4] / quartic[..., 4:]
    solvable = companion.isfinite().all(-1).all(-1)
    roots = torch.linalg.eigvals(torch.where(solvable[..., None, None], companion, 0.0))
    # Double roots, and rounding, leave a small imaginary part.
    is_real = roots.imag.abs() <= 1e-4 * roots.abs()
    return torch.where(is_real & solvable[..., None], roots.real, torch.nan)


def _triangle_frame(corners: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Columns: direction of the first side, the normal's cross product with it, the normal."""
    side, other = (corners[..., i, :] - corners[..., 0, :] for i in (1, 2))
    normal = torch.linalg.cross(side, other)
    side, normal = (x / torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (side, normal))
    return torch.stack([side, torch.linalg.cross(normal, side), normal], dim=-1)
