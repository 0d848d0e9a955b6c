"""How far a predicted point cloud is from the true one.

Distances are Euclidean and in the unit of the clouds, which is metres. Medians are those of numpy:
of an even number of values, the mean of the middle two.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.neighbours import Neighbours, searched


@dataclass(frozen=True)
class PointErrors:
    """Errors of one predicted cloud. Consistencies are None unless normals were given.

    Attributes:
        accuracy: mean distance of a predicted point from the nearest true one, metres.
        accuracy_median: its median.
        completeness: mean distance of a true point from the nearest predicted one, metres.
        completeness_median: its median.
        chamfer: mean of accuracy and completeness, metres.
        normal_consistency: mean of the next two means.
        normal_consistency_1: mean |cos| of the angle between the normal of a predicted point and
            that of the nearest true one.
        normal_consistency_2: the same for true points and the nearest predicted ones.
        normal_consistency_median: mean of the next two medians.
        normal_consistency_1_median: median of the first.
        normal_consistency_2_median: median of the second.
        precision: fraction of predicted points nearer than `threshold` to a true one.
        recall: fraction of true points nearer than `threshold` to a predicted one.
        f_score: harmonic mean of precision and recall.
        threshold: metres.
        predicted_points: number of predicted points.
        true_points: number of true points.
    """

    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    chamfer: float
    normal_consistency: float | None
    normal_consistency_1: float | None
    normal_consistency_2: float | None
    normal_consistency_median: float | None
    normal_consistency_1_median: float | None
    normal_consistency_2_median: float | None
    precision: float
    recall: float
    f_score: float
    threshold: float
    predicted_points: int
    true_points: int


def point_errors(
    prediction: Float[np.ndarray, "n 3"] | Neighbours,
    truth: Float[np.ndarray, "m 3"] | Neighbours,
    prediction_normals: Float[np.ndarray, "n2 3"] | None = None,
    truth_normals: Float[np.ndarray, "m2 3"] | None = None,
    threshold: float = 0.05,
) -> PointErrors:
    """Return the errors of a predicted cloud, which must be in place already.

    Distances are not cut off, so a few far points dominate the means. Precision, recall and
    F-score are those of Knapitsch, Park, Zhou and Koltun, "Tanks and Temples: benchmarking
    large-scale scene reconstruction", SIGGRAPH 2017, as fractions.

    Args:
        prediction: [n, 3], or a search structure over it.
        truth: [m, 3], or a search structure over it.
        prediction_normals: unit vectors [n, 3] of any sign; see `normals.estimate_normals`.
        truth_normals: unit vectors [m, 3]; given if and only if the others are.
        threshold: distance below which a point counts as right, metres.

    Raises:
        InputError: if a cloud is empty or not finite, or the normals do not match the clouds.
        SettingError: if `threshold` is not positive.
    """
    if not threshold > 0.0:
        raise SettingError(f"the threshold is {threshold}; it must be a positive distance")
    predicted, true = searched(prediction), searched(truth)
    _require_normals(prediction_normals, len(predicted), truth_normals, len(true))
    to_truth, nearest_true = true.nearest(predicted.points)
    to_prediction, nearest_predicted = predicted.nearest(true.points)
    precision, recall = (float(np.mean(d < threshold)) for d in (to_truth, to_prediction))
    accuracy, completeness = float(to_truth.mean()), float(to_prediction.mean())
    return PointErrors(
        accuracy=accuracy,
        accuracy_median=float(np.median(to_truth)),
        completeness=completeness,
        completeness_median=float(np.median(to_prediction)),
        chamfer=(accuracy + completeness) / 2.0,
        **_consistency(prediction_normals, nearest_true, truth_normals, nearest_predicted),
        precision=precision,
        recall=recall,
        f_score=_harmonic_mean(precision, recall),
        threshold=threshold,
        predicted_points=len(predicted),
        true_points=len(true),
    )


def _require_normals(
    prediction: Float[np.ndarray, "n 3"] | None,
    predicted_points: int,
    truth: Float[np.ndarray, "m 3"] | None,
    true_points: int,
) -> None:
    if (prediction is None) != (truth is None):
        raise InputError("normals of one cloud only have nothing to agree with; give both or none")
    for normals, count in ((prediction, predicted_points), (truth, true_points)):
        if normals is not None and len(normals) != count:
            raise InputError(f"there are {len(normals)} normals for {count} points; give as many")
        if normals is not None and not np.isfinite(normals).all():
            raise InputError("a normal is not finite; leave its point out")


def _consistency(
    prediction: Float[np.ndarray, "n 3"] | None,
    nearest_true: Int[np.ndarray, " n"],
    truth: Float[np.ndarray, "m 3"] | None,
    nearest_predicted: Int[np.ndarray, " m"],
) -> dict[str, float | None]:
    """Return the six consistencies by their names."""
    if prediction is None or truth is None:
        means, medians = [None] * 3, [None] * 3
    else:
        agreements = (
            _agreement(prediction, truth[nearest_true]),
            _agreement(truth, prediction[nearest_predicted]),
        )
        means, medians = (
            [sum(pair) / 2.0, *pair]
            for pair in ([float(f(a)) for a in agreements] for f in (np.mean, np.median))
        )
    names = ("normal_consistency", "normal_consistency_1", "normal_consistency_2")
    return dict(zip((*names, *(f"{n}_median" for n in names)), [*means, *medians], strict=True))


def _agreement(
    first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    return np.abs(np.einsum("ni,ni->n", first, second, dtype=np.float64))


def _harmonic_mean(first: float, second: float) -> float:
    return 2.0 * first * second / (first + second) if first + second else 0.0
