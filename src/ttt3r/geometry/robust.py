"""The similarity between two sets of points of which some do not fit, and how sure its scale is."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points

# Of a normal distribution, 1.4826 times the median absolute deviation is the standard deviation,
# and a threshold of 1.345 of them keeps 95 % of the efficiency of least squares (Huber 1981).
HUBER = 1.345 * 1.4826
ITERATIONS = 20
SETTLED = 1e-10  # change of the weights, relative to their sum, from one iteration to the next


class RobustFit(NamedTuple):
    """A similarity, and how well it is known.

    Attributes:
        target_from_source: the similarity, float64.
        scale_error: standard error of the natural logarithm of its scale.
        residual: weighted median of the distances that are left, in the target's unit.
        kept: share of the weight that was not taken away, from 0 to 1.
    """

    target_from_source: Float[Tensor, "4 4"]
    scale_error: float
    residual: float
    kept: float


def align_robustly(
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    groups: Int[Tensor, " n"],
) -> RobustFit:
    """Fit a similarity by iteratively reweighted least squares with Huber's weights.

    Huber, "Robust statistics", Wiley 1981, section 7.8: a point whose distance r is above the
    threshold k counts with k / r of its weight. k is 1.345 · 1.4826 times the weighted median of
    the distances, found anew in each iteration.

    The standard error of the scale is the cluster-robust one of Liang and Zeger, "Longitudinal data
    analysis using generalized linear models", Biometrika 1986, with the factor C / (C - 1) of C
    groups: errors within a group may depend on each other in any way, errors of different groups
    may not. At the optimum the scale is uncorrelated with rotation and shift, so it can be treated
    alone. An error that all groups share does not show.

    Args:
        source: points.
        target: the corresponding points.
        weights: positive weights.
        groups: number of the group that a point belongs to, from 0.

    Raises:
        InputError: as `align_points`.
    """
    source, target, weights = (item.to(torch.float64) for item in (source, target, weights))

    def similarity(some: Float[Tensor, " n"]) -> Float[Tensor, "4 4"]:
        return align_points(source, target, some, with_scale=True)

    fit, trust = reweighted(similarity, source, target, weights)
    distance = (target - se3.apply(fit, source)).norm(dim=1)
    return RobustFit(
        fit,
        _scale_error(source, target, weights * trust, groups, fit),
        float(_weighted_median(distance, weights)),
        float((weights * trust).sum() / weights.sum()),
    )


def reweighted(
    fit: Callable[[Float[Tensor, " n"]], Float[Tensor, "4 4"]],
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    rounds: int = ITERATIONS,
) -> tuple[Float[Tensor, "4 4"], Float[Tensor, " n"]]:
    """Fit again and again with Huber's weights, see `align_robustly`.

    Args:
        fit: returns the least-squares transform for some weights.
        source: points, float64.
        target: the corresponding points, float64.
        weights: positive weights, float64.
        rounds: fits at most, after the first; fewer if the weights settle.

    Returns:
        The transform, and the share that each point keeps of its weight.
    """
    trust, found = torch.ones_like(weights), fit(weights)
    for _ in range(rounds):
        distance = (target - se3.apply(found, source)).norm(dim=1)
        threshold = HUBER * _weighted_median(distance, weights)
        before = trust
        trust = torch.where(distance <= threshold, 1.0, threshold / distance)
        if float(((trust - before).abs() * weights).sum()) <= SETTLED * float(weights.sum()):
            break
        found = fit(weights * trust)
    return found, trust


def _scale_error(
    source: Tensor, target: Tensor, weights: Tensor, groups: Tensor, fit: Tensor
) -> float:
    """Standard error of log s: the derivative of a moved point by it is s R (x - mean)."""
    mean = (weights[:, None] * source).sum(0) / weights.sum()
    lever = (source - mean) @ fit[:3, :3].mT
    left = target - se3.apply(fit, source)
    scores = weights * (lever * left).sum(1)
    by_group = torch.zeros(int(groups.max()) + 1, dtype=scores.dtype, device=scores.device)
    by_group = by_group.index_add(0, groups, scores)
    count = len(groups.unique())
    if count < 2:
        return float("inf")
    information = (weights[:, None] * lever.square()).sum()
    return float((by_group.square().sum() * count / (count - 1)).sqrt() / information)


def _weighted_median(values: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Tensor:
    """Smallest value that at least half of the weight does not exceed."""
    ordered, order = values.sort()
    share = weights[order].cumsum(0)
    return ordered[torch.searchsorted(share, share[-1:] / 2)[0].clamp(max=len(values) - 1)]
