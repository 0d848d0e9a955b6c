"""Least-squares transform between two sets of corresponding points."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import InputError
from ttt3r.geometry import se3


def align_points(
    source: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None,
    with_scale: bool,
) -> Float[Tensor, "*batch 4 4"]:
    """Return the ``target_from_source`` that minimises Σ w |target − (s R source + t)|².

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 1991, equations 34 to 43, with weighted means. R is always a proper rotation, also where
    a reflection would fit better. Computed in float64.

    If the points lie on a line (up to noise), every rotation about it fits equally well: the
    result is then one of the best fits, and which one is not specified.

    Args:
        source: points [*batch, n, 3].
        target: the corresponding points, [*batch, n, 3].
        weights: non-negative weights [*batch, n]; all equal if None. Points of weight zero are
            ignored whatever they hold, NaN included.
        with_scale: estimate s (a similarity) or keep s = 1 (a rigid transform).

    Returns:
        Transforms [*batch, 4, 4] with the dtype of `source`.

    Raises:
        InputError: if, for any element of the batch, the answer is undefined: fewer than three
            points have positive weight, a value is not finite, a weight is negative, all points
            coincide, or source and target are uncorrelated.
    """
    tiny = torch.finfo(source.dtype).eps
    mass = torch.ones_like(source[..., 0]) if weights is None else weights
    needs = {"weights must be finite and not negative": (mass.isfinite() & (mass >= 0.0)).all(-1)}
    used = mass > 0.0
    needs["at least three points with positive weight are needed"] = used.sum(-1) >= 3
    if not mass.shape[-1]:
        _require(needs)
    x, y = (torch.where(used[..., None], p, 0.0).to(torch.float64) for p in (source, target))
    for points, name in ((x, "source"), (y, "target")):
        needs[f"the {name} points must be finite"] = points.isfinite().all(-1).all(-1)
    mass = mass.to(torch.float64)
    mass = (mass / mass.amax(-1, keepdim=True))[..., None]
    mass = mass / mass.sum(-2, keepdim=True)

    mean_x, mean_y = ((mass * points).sum(-2, keepdim=True) for points in (x, y))
    deltas_x, deltas_y = x - mean_x, y - mean_y
    variance_x, variance_y = ((mass * d.square()).sum((-2, -1)) for d in (deltas_x, deltas_y))
    for points, variance, name in ((x, variance_x, "source"), (y, variance_y, "target")):
        rounding = 10.0 * tiny * points.abs().amax((-2, -1))
        needs[f"all {name} points coincide"] = variance > rounding.square()

    covariance = (mass * deltas_y).mT @ deltas_x  # equation 38
    left, singular, right = torch.linalg.svd(covariance.nan_to_num(0.0, 0.0, 0.0))
    least = tiny * (variance_x * variance_y).sqrt()
    needs["source and target points are uncorrelated"] = singular.sum(-1) > least
    _require(needs)
    sign = (torch.linalg.det(left) * torch.linalg.det(right)).sign()
    signs = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    linear = left * signs[..., None, :] @ right  # equation 40
    if with_scale:
        scale = (singular * signs).sum(-1) / variance_x  # equation 42
        linear = scale[..., None, None] * linear
    translation = mean_y - mean_x @ linear.mT  # equation 41
    return se3.assemble(linear, translation.squeeze(-2)).to(source.dtype)


def _require(needs: Mapping[str, Bool[Tensor, "*batch"]]) -> None:
    """Raise `InputError` for the first condition that fails, and the first element that fails it.

    The conditions, by what is wrong where they fail, are fetched from their device together.
    """
    failed = (~torch.stack(list(needs.values()))).cpu()
    for problem, of_batch in zip(needs, failed, strict=True):
        if not bool(of_batch.any()):
            continue
        index = tuple(of_batch.nonzero()[0].tolist())
        where = f" (batch element {', '.join(map(str, index))})" if index else ""
        raise InputError(
            f"cannot align the points{where}: {problem}. "
            "Use more of the points, or points that spread in space."
        )
