"""What brings predicted depth near the truth: scale and shift, as published and exact."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import InputError, SettingError

Alignment = Literal["metric", "median", "scale", "scale&shift"]

BLOCK = 2**25  # values that are worked on at once; sums over fewer have the published rounding
IRLS_ROUNDS, IRLS_SMALLEST_RESIDUAL, SMALLEST_SCALE = 10, 1e-8, 1e-3
# The published optimiser: Adam with its usual constants.
ADAM_STEPS, ADAM_RATE, ADAM_BETAS, ADAM_EPSILON, ADAM_TOLERANCE = (
    1000,
    1e-4,
    (0.9, 0.999),
    1e-8,
    1e-6,
)
MARGIN = 1e-3  # by how much scale and shift (metres) may move before all values are looked at again
GOLDEN_RATIO, GOLDEN_ROUNDS = (math.sqrt(5.0) - 1.0) / 2.0, 60


class Affine(NamedTuple):
    """What makes a prediction comparable: depth ↦ `scale` · depth + `shift` (metres)."""

    scale: float
    shift: float


def fit_affine(
    prediction: Float[np.ndarray, " pixels"],
    truth: Float[np.ndarray, " pixels"],
    alignment: Alignment,
    compat: bool = True,
    device: str | torch.device = "cpu",
) -> Affine:
    """Return the scale and shift that bring a prediction near the truth.

    * "metric": 1 and 0.
    * "median": median(truth) / median(prediction) and 0, with lower medians.
    * "scale": the least Σ |s p − g|, at least 1e-3. If `compat`, ten rounds of reweighted least
      squares towards it, from mean(g) / mean(p). Weights of up to 1e8 hang on the rounding of
      the residuals, so that scale is reproducible to three digits only, unless every operation
      has the published order and dtype, as here.
    * "scale&shift": the least Σ |s p + t − g|. If `compat`, a thousand steps of Adam at the rate
      1e-4 from the ratio of medians: each moves s and t by about 1e-4, so the result stays near
      that start and depends on the unit.

    Args:
        prediction: depth of the valid pixels, [pixels].
        truth: true depth of the same pixels, [pixels], positive.
        alignment: one of the four.
        compat: see above.
        device: where the steps of Adam are computed.

    Returns:
        Scale and shift; 1 and 0 if there are no pixels.

    Raises:
        InputError: if there is no such fit (a prediction of nothing but zeros, say) and not
            `compat`, under which it is NaN or infinite.
        SettingError: if `alignment` is unknown.
    """
    fits: dict[str, Callable[..., Affine]] = {
        "metric": lambda p, g: Affine(1.0, 0.0),
        "median": lambda p, g: Affine(float(_lower_median(g) / _lower_median(p)), 0.0),
        "scale": _published_scale if compat else _least_absolute_scale,
        "scale&shift": (
            (lambda p, g: _published_fit(p, g, torch.device(device)))
            if compat
            else _least_absolute_fit
        ),
    }
    if alignment not in fits:
        raise SettingError(f"unknown alignment {alignment!r}; choose one of {', '.join(fits)}")
    if not len(truth):
        return Affine(1.0, 0.0)
    p, g = (
        x.astype(np.promote_types(x.dtype, np.float32), copy=False) for x in (prediction, truth)
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        affine = fits[alignment](p, g)
    if not (compat or np.isfinite(affine).all()):
        raise InputError(
            f"the alignment {alignment} is undefined for this prediction. Is it zero everywhere?"
        )
    return affine


def blocks(count: int) -> list[slice]:
    """Return slices of at most `BLOCK` values that cover `count`."""
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def _lower_median(values: Float[np.ndarray, " n"]) -> np.float64:
    """Return element (n − 1) // 2 of the sorted values, or NaN if there is any."""
    if np.isnan(values).any():
        return np.float64(np.nan)
    middle = (len(values) - 1) // 2
    return np.float64(np.partition(values, middle)[middle])


def _published_scale(prediction: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]) -> Affine:
    scale = _mean_of_known(truth) / _mean_of_known(prediction)
    for _ in range(IRLS_ROUNDS):
        upper, lower = torch.zeros_like(scale), torch.zeros_like(scale)
        for at in blocks(len(truth)):
            p, g = _tensor(prediction[at]), _tensor(truth[at])
            weights = 1.0 / ((scale * p - g).abs() + IRLS_SMALLEST_RESIDUAL)
            upper = upper + (weights * p * g).sum()
            lower = lower + (weights * p**2).sum()
        scale = upper / lower
    return Affine(float(scale.clamp(min=SMALLEST_SCALE)), 0.0)


def _mean_of_known(values: Float[np.ndarray, " n"]) -> Tensor:
    total, count = torch.zeros((), dtype=_tensor(values[:1]).dtype), 0
    for at in blocks(len(values)):
        part = _tensor(values[at])
        if len(values) <= BLOCK:
            return part.nanmean()
        total, count = total + part.nansum(), count + int(part.isnan().logical_not().sum())
    return total / count


def _tensor(values: Float[np.ndarray, " n"]) -> Tensor:
    return torch.from_numpy(np.array(values))  # a copy: maps of files cannot be written


def _least_absolute_scale(
    prediction: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]
) -> Affine:
    """Minimise Σ |s p − g|: the median of g / p, weighted by |p|."""
    seen = prediction != 0.0
    if not seen.any():
        return Affine(math.nan, 0.0)
    p, g = (x[seen].astype(np.float64) for x in (prediction, truth))
    scale = weighted_median(g / p, np.abs(p))
    return Affine(max(scale, SMALLEST_SCALE), 0.0)


def weighted_median(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> float:
    """Return an m that minimises Σ w |m − value|; the lower one if there are several.

    Args:
        values: [n], at least one, finite.
        weights: [n], positive.
    """
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2.0)]])


class _Signs:
    """Σ |r|, Σ sign(r) p and Σ sign(r) over all values, with r = s p + t − g.

    While s and t stay within `MARGIN` of where they were, the sign of r can only change where
    |r| ≤ MARGIN · (|p| + 1). So all values are read once in a while, and these few are kept.
    """

    def __init__(
        self,
        prediction: Float[np.ndarray, " n"],
        truth: Float[np.ndarray, " n"],
        device: torch.device,
    ) -> None:
        self._prediction, self._truth, self._device = prediction, truth, device
        self._at = (math.nan, math.nan)

    def at(self, scale: np.floating, shift: np.floating) -> tuple[float, float, float]:
        """Return the three sums."""
        if not max(abs(float(scale) - self._at[0]), abs(float(shift) - self._at[1])) < MARGIN:
            self._look(scale, shift)
        cost, by_scale, by_shift = self._sure
        cost += (float(scale) - self._at[0]) * by_scale + (float(shift) - self._at[1]) * by_shift
        for p, g in self._unsure:
            residual = float(scale) * p + float(shift) - g
            sign = residual.sign().double()
            cost += float(residual.abs().double().sum())
            by_scale += float((sign * p).sum())
            by_shift += float(sign.sum())
        return cost, by_scale, by_shift

    def _look(self, scale: np.floating, shift: np.floating) -> None:
        """Read all values, sum up those whose sign is sure, and keep the others."""
        self._at = float(scale), float(shift)
        sums = np.zeros(3)
        self._unsure: list[tuple[Tensor, Tensor]] = []
        for at in blocks(len(self._truth)):
            p, g = (_tensor(x[at]).to(self._device) for x in (self._prediction, self._truth))
            residual = self._at[0] * p + self._at[1] - g
            near = ~(residual.abs() > MARGIN * (p.abs() + 1.0))
            sign = torch.where(near, 0.0, residual.sign()).double()
            sums += [float(x.sum()) for x in (sign * residual, sign * p, sign)]
            self._unsure.append((p[near], g[near]))
        self._sure = tuple(sums.tolist())


def _published_fit(
    prediction: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"], device: torch.device
) -> Affine:
    """Kingma and Ba, "Adam", ICLR 2015, algorithm 1, on Σ |s p + t − g|.

    The two unknowns and the moments have the prediction's dtype, as they had when the published
    results were made: at a rate of 1e-4 the rounding of s is not negligible.
    """
    dtype = prediction.dtype
    start = dtype.type(_lower_median(truth)) / dtype.type(_lower_median(prediction))
    unknowns = np.array([start, 0.0], dtype=dtype)
    first, second = np.zeros_like(unknowns), np.zeros_like(unknowns)
    (beta_1, beta_2), before = ADAM_BETAS, math.inf
    signs = _Signs(prediction, truth, device)
    for step in range(1, ADAM_STEPS + 1):
        if not np.isfinite(unknowns).all():
            return Affine(math.nan, math.nan)
        cost, *sums = signs.at(*unknowns)
        if abs(before - cost) < ADAM_TOLERANCE:
            break
        before, gradient = cost, np.array(sums, dtype=dtype)
        first = (beta_1 * first + (1.0 - beta_1) * gradient).astype(dtype)
        second = (beta_2 * second + (1.0 - beta_2) * np.square(gradient)).astype(dtype)
        size = np.sqrt(second) / math.sqrt(1.0 - beta_2**step) + ADAM_EPSILON
        unknowns = (unknowns - ADAM_RATE / (1.0 - beta_1**step) * first / size).astype(dtype)
    return Affine(float(unknowns[0]), float(unknowns[1]))


def _least_absolute_fit(
    prediction: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]
) -> Affine:
    """Minimise Σ |s p + t − g| over both unknowns.

    For a given s the best t is the median of g − s p, and what remains is a convex function of s:
    a golden-section search finds its minimum, starting from the least-squares s.
    """
    p = prediction.astype(np.float64)
    truth = truth.astype(np.float64)
    centred = p - np.median(p)
    spread = float(np.abs(centred).mean())
    if spread <= np.finfo(prediction.dtype).eps * np.abs(p).max():
        return Affine(1.0, float(np.median(truth - p)))  # a constant: no scale is better

    def cost(scale: float) -> float:
        rest = truth - scale * centred
        return float(np.abs(rest - np.median(rest)).mean())

    deltas = p - p.mean()
    middle = float((deltas * truth).sum() / np.square(deltas).sum())
    # By the triangle inequality no s farther than this from `middle` costs less.
    reach = 2.0 * cost(middle) / spread
    scale = _golden_section(cost, middle - reach, middle + reach)
    return Affine(scale, float(np.median(truth - scale * p)))


def _golden_section(cost: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimum of a convex function between two bounds."""
    left, right = high - GOLDEN_RATIO * (high - low), low + GOLDEN_RATIO * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    for _ in range(GOLDEN_ROUNDS):
        if cost_left <= cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - GOLDEN_RATIO * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + GOLDEN_RATIO * (high - low)
            cost_right = cost(right)
    return left if cost_left <= cost_right else right
