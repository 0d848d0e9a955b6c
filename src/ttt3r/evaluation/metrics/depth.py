"""How far predicted depth is from the true depth, under the alignments that papers use.

Depth is z in the camera's frame, in metres. A sequence is aligned once, over all valid pixels of
all its frames, and scored over the same pixels. Errors are those of Eigen, Puhrsch and Fergus,
"Depth map prediction from a single image using a multi-scale deep network", NeurIPS 2014.
Errors are summed in float64.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.depth_fits import Affine, Alignment, blocks, fit_affine

SMALLEST_DEPTH = 1e-5  # of a prediction whose logarithm or ratio is taken, metres


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
    device: str | torch.device = "cpu",
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
        device: where the published fit of scale and shift is computed.

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
    # Arrays without a pixel to leave out are not copied: they may be memory maps of gigabytes.
    p, g = (x.ravel() if mask.all() else x[mask] for x in (prediction, truth))
    if not compat:
        _require_usable(p)
    affine = fit_affine(p, g, alignment, compat, device)
    return _errors(p, g, affine, math.inf if post_clip_max is None else post_clip_max)


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


def _require_usable(prediction: Float[np.ndarray, " pixels"]) -> None:
    if not len(prediction):
        raise InputError("no true depth is known in this sequence; leave it out.")
    wrong = sum(int((~np.isfinite(prediction[at])).sum()) for at in blocks(len(prediction)))
    if wrong:
        raise InputError(
            f"{wrong} of {len(prediction)} predicted depths are not finite: the run failed there."
        )


def _errors(
    prediction: Float[np.ndarray, " pixels"],
    truth: Float[np.ndarray, " pixels"],
    affine: Affine,
    clip: float,
) -> DepthErrors:
    count = len(truth)
    if not count:
        return DepthErrors(*[0.0] * len(METRICS), valid_pixels=0, affine=affine)
    sums = np.zeros(len(METRICS))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for at in blocks(count):
            aligned = affine.scale * prediction[at].astype(np.float64) + affine.shift
            # Not np.minimum with infinity: a NaN that is predicted has to stay one.
            sums += _sums(np.where(aligned > clip, clip, aligned), truth[at].astype(np.float64))
        means = sums / count
    abs_rel, sq_rel, square, log_square, *fractions = (float(mean) for mean in means)
    return DepthErrors(
        abs_rel,
        sq_rel,
        math.sqrt(square),
        math.sqrt(log_square),
        *fractions,
        valid_pixels=count,
        affine=affine,
    )


def _sums(
    p: Float[np.ndarray, " pixels"], g: Float[np.ndarray, " pixels"]
) -> Float[np.ndarray, " metrics"]:
    """Sum what `METRICS` are means of, in their order; squares before their root."""
    square = np.square(p - g)
    positive = np.maximum(p, SMALLEST_DEPTH)
    ratio = np.maximum(positive / g, g / positive)
    return np.array(
        [
            (np.abs(p - g) / g).sum(),
            (square / g).sum(),
            square.sum(),
            np.square(np.log(positive) - np.log(g)).sum(),
            *(np.count_nonzero(ratio < 1.25**power) for power in (1, 2, 3)),
        ]
    )
