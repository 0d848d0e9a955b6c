"""How far predicted depth is from the true depth, under the alignments that papers use.

Depth is z in the camera's frame, in metres. A sequence is aligned once, over all valid pixels of
all its frames, and scored over the same pixels. Errors are those of Eigen, Puhrsch and Fergus,
"Depth map prediction from a single image using a multi-scale deep network", NeurIPS 2014.
Errors are summed in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from ttt3r.errors import InputError, SettingError

Alignment = Literal["metric", "median", "scale", "scale&shift"]

IRLS_ROUNDS, IRLS_SMALLEST_RESIDUAL, SMALLEST_SCALE = 10, 1e-8, 1e-3
# The published optimiser: Adam with its usual constants.
ADAM_STEPS, ADAM_RATE, ADAM_BETAS, ADAM_EPSILON, ADAM_TOLERANCE = (
    1000,
    1e-4,
    (0.9, 0.999),
    1e-8,
    1e-6,
)
SMALLEST_DEPTH = 1e-5  # of a prediction whose logarithm or ratio is taken, metres
GOLDEN_RATIO, GOLDEN_ROUNDS = (math.sqrt(5.0) - 1.0) / 2.0, 60


class Affine(NamedTuple):
    """What makes a prediction comparable: depth ↦ `scale` · depth + `shift` (metres)."""

    scale: float
    shift: float


@dataclass(frozen=True)
class DepthErrors:
    """Errors of one sequence, or their mean over several.

    Attributes:
        abs_rel: mean |p − g| / g.
        sq_rel: mean (p − g)² / g, metres.
        rmse: root mean square of p − g, metres.
        log_rmse: root mean square of ln p − ln g.
        delta_1: fraction of pixels with max(p/g, g/p) < 1.25.
        delta_2: the same for 1.25².
        delta_3: the same for 1.25³.
        valid_pixels: number of pixels scored.
        affine: scale and shift the prediction was given; None for a mean over sequences.
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    log_rmse: float
    delta_1: float
    delta_2: float
    delta_3: float
    valid_pixels: int
    affine: Affine | None


METRICS = ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta_1", "delta_2", "delta_3")


def depth_errors(
    prediction: Float[np.ndarray, "*shape"],
    truth: Float[np.ndarray, "*truth_shape"],
    alignment: Alignment = "scale",
    valid: Bool[np.ndarray, "*valid_shape"] | None = None,
    max_depth: float | None = None,
    post_clip_max: float | None = None,
    compat: bool = True,
) -> DepthErrors:
    """Return the errors of one sequence.

    Args:
        prediction: depth of any shape, usually [frames, height, width], metres.
        truth: true depth of the same shape; values that are not positive mean "unknown".
        alignment: "metric" takes the prediction as it is; "median" multiplies it by
            median(truth) / median(prediction); "scale" by a robust scale, the headline of the
            papers; "scale&shift" fits both. See `fit_affine`.
        valid: further restricts the pixels.
        max_depth: true depths of this value and beyond are left out, metres.
        post_clip_max: the aligned prediction is cut to this value, metres.
        compat: score exactly as published results were, including their weaknesses: neither
            robust fit reaches its minimum, infinite true depth counts unless `max_depth` is
            given, a NaN that is predicted makes the errors NaN and the fractions smaller, and a
            sequence without a valid pixel has errors of zero. If false: both fits are exact,
            infinite true depth is unknown, and the last two are errors.

    Raises:
        InputError: if the shapes differ; if not `compat`, also if a prediction at a valid pixel
            is not finite, or no pixel is valid.
        SettingError: if `alignment` is unknown.
    """
    if not prediction.shape == truth.shape == (truth if valid is None else valid).shape:
        raise InputError(
            f"predicted depth {prediction.shape}, true depth {truth.shape} and their mask must "
            "have the same shape; `resize_depth` brings predictions to the size of the truth."
        )
    mask = valid_pixels(truth, max_depth, valid, allow_infinite=compat)
    p, g = prediction[mask], truth[mask]
    if not compat:
        _require_usable(p)
    affine = fit_affine(p, g, alignment, compat)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        aligned = affine.scale * p.astype(np.float64) + affine.shift
        if post_clip_max is not None:
            aligned = np.minimum(aligned, post_clip_max)
        return _errors(aligned, g.astype(np.float64), affine)


def valid_pixels(
    truth: Float[np.ndarray, "*shape"],
    max_depth: float | None = None,
    valid: Bool[np.ndarray, "*shape"] | None = None,
    allow_infinite: bool = False,
) -> Bool[np.ndarray, "*shape"]:
    """Return where the true depth is known, and below `max_depth` if that is given."""
    mask = truth > 0.0  # false for NaN
    if not allow_infinite:
        mask &= np.isfinite(truth)
    if max_depth is not None:
        mask &= truth < max_depth
    return mask if valid is None else mask & valid


def mean_errors(errors: Sequence[DepthErrors], weighted: bool = True) -> DepthErrors:
    """Return the mean over sequences.

    Args:
        errors: one entry per sequence; those without a valid pixel are left out.
        weighted: weight sequences by their number of valid pixels, as published results do;
            otherwise all count alike. Either way each metric is averaged as it is, so the mean of
            RMSEs is not the RMSE over all pixels.

    Raises:
        InputError: if no sequence has a valid pixel.
    """
    scored = [e for e in errors if e.valid_pixels]
    if not scored:
        raise InputError("no sequence has a valid pixel, so there is no mean depth error.")
    weights = [e.valid_pixels if weighted else 1 for e in scored]

    def mean(name: str) -> float:
        return float(np.average([getattr(e, name) for e in scored], weights=weights))

    pixels = sum(e.valid_pixels for e in scored)
    return DepthErrors(**{n: mean(n) for n in METRICS}, valid_pixels=pixels, affine=None)


def resize_depth(
    depth: Float[np.ndarray, "*batch old_height old_width"], height: int, width: int
) -> Float[np.ndarray, "*batch height width"]:
    """Resize depth maps to the size of the truth.

    Bicubic with a = −0.75, pixel centres at half-integers, replicated borders and no smoothing,
    which is what published results were scored with. Overshoots at depth edges are kept.

    Args:
        depth: [*batch, old_height, old_width], without NaN.
        height: new number of rows.
        width: new number of columns.
    """
    maps = torch.from_numpy(np.ascontiguousarray(depth)).reshape(-1, 1, *depth.shape[-2:])
    resized = functional.interpolate(maps, (height, width), mode="bicubic", align_corners=False)
    return resized.numpy().reshape(*depth.shape[:-2], height, width)


def fit_affine(
    prediction: Float[np.ndarray, " pixels"],
    truth: Float[np.ndarray, " pixels"],
    alignment: Alignment,
    compat: bool = True,
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
        "scale&shift": _published_scale_and_shift if compat else _least_absolute_fit,
    }
    if alignment not in fits:
        raise SettingError(f"unknown alignment {alignment!r}; choose one of {', '.join(fits)}")
    if not len(truth):
        return Affine(1.0, 0.0)
    p, g = (x.astype(np.promote_types(x.dtype, np.float32)) for x in (prediction, truth))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        affine = fits[alignment](p, g)
    if not (compat or np.isfinite(affine).all()):
        raise InputError(
            f"the alignment {alignment} is undefined for this prediction. Is it zero everywhere?"
        )
    return affine


def _require_usable(prediction: Float[np.ndarray, " pixels"]) -> None:
    if not len(prediction):
        raise InputError("no true depth is known in this sequence; leave it out.")
    wrong = int((~np.isfinite(prediction)).sum())
    if wrong:
        raise InputError(
            f"{wrong} of {len(prediction)} predicted depths are not finite: the run failed there."
        )


def _errors(
    p: Float[np.ndarray, " pixels"], g: Float[np.ndarray, " pixels"], affine: Affine
) -> DepthErrors:
    if not len(g):
        return DepthErrors(*[0.0] * len(METRICS), valid_pixels=0, affine=affine)
    square = np.square(p - g)
    positive = np.maximum(p, SMALLEST_DEPTH)
    ratio = np.maximum(positive / g, g / positive)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(p - g) / g)),
        sq_rel=float(np.mean(square / g)),
        rmse=float(np.sqrt(np.mean(square))),
        log_rmse=float(np.sqrt(np.mean(np.square(np.log(positive) - np.log(g))))),
        delta_1=float(np.mean(ratio < 1.25)),
        delta_2=float(np.mean(ratio < 1.25**2)),
        delta_3=float(np.mean(ratio < 1.25**3)),
        valid_pixels=len(g),
        affine=affine,
    )


def _lower_median(values: Float[np.ndarray, " n"]) -> np.float64:
    """Return element (n − 1) // 2 of the sorted values, or NaN if there is any."""
    if np.isnan(values).any():
        return np.float64(np.nan)
    middle = (len(values) - 1) // 2
    return np.float64(np.partition(values, middle)[middle])


def _published_scale(prediction: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]) -> Affine:
    p, g = torch.from_numpy(prediction), torch.from_numpy(truth)
    scale = g.nanmean() / p.nanmean()
    for _ in range(IRLS_ROUNDS):
        weights = 1.0 / ((scale * p - g).abs() + IRLS_SMALLEST_RESIDUAL)
        scale = (weights * p * g).sum() / (weights * p**2).sum()
    return Affine(float(scale.clamp(min=SMALLEST_SCALE)), 0.0)


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


def _published_scale_and_shift(
    prediction: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]
) -> Affine:
    """Kingma and Ba, "Adam", ICLR 2015, algorithm 1, on Σ |s p + t − g|.

    The two unknowns and the moments have the prediction's dtype, as they had when the published
    results were made: at a rate of 1e-4 the rounding of s is not negligible.
    """
    dtype = prediction.dtype
    start = dtype.type(_lower_median(truth)) / dtype.type(_lower_median(prediction))
    unknowns = np.array([start, 0.0], dtype=dtype)
    first, second = np.zeros_like(unknowns), np.zeros_like(unknowns)
    beta_1, beta_2 = ADAM_BETAS
    before = math.inf
    for step in range(1, ADAM_STEPS + 1):
        residual = unknowns[0] * prediction + unknowns[1] - truth
        cost = float(np.abs(residual).sum())
        if abs(before - cost) < ADAM_TOLERANCE:
            break
        before = cost
        sign = np.sign(residual).astype(dtype)
        gradient = np.array([(sign * prediction).sum(), sign.sum()], dtype=dtype)
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
