"""From pointmaps to two clouds, and how far they are apart.

The published evaluation of 3D reconstruction: predicted pointmaps, in the frame of the first
camera, are matched to the true ones in depth and size; the middle of every image is kept; iterated
closest points moves one cloud onto the other. `views` makes the true pointmaps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.icp import IcpResult, icp, transformed
from ttt3r.evaluation.metrics.neighbours import Neighbours
from ttt3r.evaluation.metrics.normals import estimate_normals
from ttt3r.evaluation.metrics.points import PointErrors, point_errors
from ttt3r.geometry import se3

PUBLISHED_CROP_HALF, PUBLISHED_WIDTH = 112, 512
SMALLEST_RADIUS, LARGEST_RADIUS = 1e-3, 1e3  # of predictions, in their unit


class UnusableTruthError(InputError):
    """The truth allows no alignment, whatever was predicted."""


@dataclass(frozen=True)
class AlignedClouds:
    """Corresponding points of a prediction and the truth, in the true world.

    Attributes:
        prediction: [k, 3], metres.
        truth: [k, 3], metres.
        prediction_shift: median z of the prediction in the frame of the first camera.
        truth_shift: the same of the truth, metres.
        prediction_radius: median distance of the prediction from its median point, within
            1e-3 and 1e3. The prediction was scaled by `truth_radius` over it.
        truth_radius: the same of the truth, metres.
    """

    prediction: Float64[np.ndarray, "k 3"]
    truth: Float64[np.ndarray, "k 3"]
    prediction_shift: float
    truth_shift: float
    prediction_radius: float
    truth_radius: float


def crop_half_for(width: int) -> int:
    """Return half the side of the square that is scored, for images of this width, in pixels.

    112 at width 512, in proportion elsewhere, at least 1.
    """
    return max(1, round(PUBLISHED_CROP_HALF * width / PUBLISHED_WIDTH))


def align_clouds(
    prediction: Float[np.ndarray, "views height width 3"],
    truth: Float[np.ndarray, "views2 height2 width2 3"],
    valid: Bool[np.ndarray, "views3 height3 width3"],
    world_from_first: Float[np.ndarray, "4 4"],
    crop_half: int,
) -> AlignedClouds:
    """Bring predicted pointmaps to the depth and size of the true ones, and keep the middle.

    Both are seen from the first camera. All valid pixels give a median z and, after a median
    centre, a median radius; lower medians, of float32. The prediction is moved along z by the
    difference of the medians and scaled by the ratio of the radii. Of every view the central
    square is kept. Arrays are read view by view, so they may be memory maps; next to them and
    the result, only four bytes per valid pixel are held.

    Args:
        prediction: [views, height, width, 3] in the frame of the first camera, any unit.
        truth: true pointmaps of the same shape, in the world, metres.
        valid: where the truth is known, [views, height, width].
        world_from_first: true pose of the first camera.
        crop_half: half the side of the square, pixels; cut at the image's border. See
            `crop_half_for`.

    Raises:
        UnusableTruthError: if no pixel is valid, at all or inside the squares; a valid true point
            or the pose is not finite; or half of the true points coincide.
        InputError: if the shapes differ, or the prediction has such a fault.
        SettingError: if `crop_half` is not positive.
    """
    if not prediction.shape == truth.shape == (*valid.shape, 3):
        raise InputError(
            f"predicted points {prediction.shape}, true points {truth.shape} and their mask "
            f"{valid.shape} do not match; bring the truth to that size with `prepare_view`."
        )
    if not np.isfinite(world_from_first).all():
        raise UnusableTruthError(
            "the true pose of the first frame is not finite; start at another frame."
        )
    if crop_half < 1:
        raise SettingError(f"half the side of the scored square is {crop_half}; use at least 1")
    pose = world_from_first.astype(np.float64)
    inner = _central(valid.shape[1], crop_half), _central(valid.shape[2], crop_half)
    window = slice(None), *inner
    kept = np.asarray(valid[window])
    if not kept.any():
        raise UnusableTruthError(
            "no true point is known inside the squares that are scored; leave it out."
        )
    true = _spread_of(truth, valid, se3.invert(torch.from_numpy(pose)).numpy(), "true")
    predicted = _spread_of(prediction, valid, np.eye(4), "predicted")
    radius = min(max(predicted.radius, SMALLEST_RADIUS), LARGEST_RADIUS)
    scale = true.radius / radius
    matched = np.diag([scale, scale, scale, 1.0])
    matched[2, 3] = true.shift - scale * predicted.shift
    return AlignedClouds(
        prediction=_gather(prediction[window], kept, pose @ matched),
        truth=_gather(truth[window], kept, np.eye(4)),
        prediction_shift=predicted.shift,
        truth_shift=true.shift,
        prediction_radius=radius,
        truth_radius=true.radius,
    )


class Reconstruction(NamedTuple):
    """A prediction that was moved into place.

    Attributes:
        errors: of the prediction there.
        registration: how it was moved.
        prediction: its points there [k, 3], metres.
    """

    errors: PointErrors
    registration: IcpResult
    prediction: Float64[np.ndarray, "k 3"]


def score_clouds(aligned: AlignedClouds, threshold: float = 0.05) -> Reconstruction:
    """Move a prediction into place by iterated closest points, and return its errors.

    Registration is point to point within 0.1 m; normals come from 30 neighbours.

    Args:
        aligned: what `align_clouds` returned.
        threshold: distance below which a point counts as right, metres.

    Raises:
        InputError: if registration is impossible, or there are fewer than three points.
    """
    truth = Neighbours(aligned.truth)
    registration = icp(aligned.prediction, truth)
    moved = transformed(aligned.prediction, registration.transform)
    prediction = Neighbours(moved)
    normals = (estimate_normals(prediction), estimate_normals(truth))
    errors = point_errors(prediction, truth, *normals, threshold)
    return Reconstruction(errors, registration, moved)


class _Spread(NamedTuple):
    """Median z, and median distance from the median point."""

    shift: float
    radius: float


def _spread_of(
    points: Float[np.ndarray, "views height width 3"],
    valid: Bool[np.ndarray, "views height width"],
    transform: Float64[np.ndarray, "4 4"],
    name: str,
) -> _Spread:
    """Return the spread of the valid points, seen through `transform`."""
    values = np.empty(int(valid.sum()), dtype=np.float32)
    centre = np.zeros(3)
    wrong = UnusableTruthError if name == "true" else InputError
    for axis in range(3):
        _fill(values, (view[:, axis] for view in _views(points, valid, transform)))
        if not np.isfinite(values).all():
            raise wrong(
                f"{int((~np.isfinite(values)).sum())} of {len(values)} {name} points at valid "
                "pixels are not finite, so there is no error that means anything."
            )
        centre[axis] = _lower_median(values)
    views = _views(points, valid, transform)
    _fill(values, (np.linalg.norm(view - centre, axis=-1) for view in views))
    radius = _lower_median(values)
    if not radius > 0.0:
        raise wrong(f"half of the {name} points coincide, so the cloud has no size.")
    return _Spread(float(centre[2]), radius)


def _views(
    points: Float[np.ndarray, "views height width 3"],
    valid: Bool[np.ndarray, "views height width"],
    transform: Float64[np.ndarray, "4 4"],
) -> Iterator[Float64[np.ndarray, "k 3"]]:
    for view, mask in zip(points, valid, strict=True):
        yield transformed(view[mask], transform)


def _fill(buffer: np.ndarray, parts: Iterator[np.ndarray]) -> None:
    start = 0
    for part in parts:
        with np.errstate(over="ignore"):  # to infinity, which is refused
            buffer[start : start + len(part)] = part
        start += len(part)


def _lower_median(values: Float[np.ndarray, " n"]) -> float:
    """Return element (n − 1) // 2 of the sorted values, which lose their order."""
    middle = (len(values) - 1) // 2
    values.partition(middle)
    return float(values[middle])


def _central(side: int, half: int) -> slice:
    return slice(max(0, side // 2 - half), min(side, side // 2 + half))


def _gather(
    points: Float[np.ndarray, "views height width 3"],
    valid: Bool[np.ndarray, "views height width"],
    transform: Float64[np.ndarray, "4 4"],
) -> Float64[np.ndarray, "k 3"]:
    gathered = np.empty((int(valid.sum()), 3))
    _fill(gathered, _views(points, valid, transform))
    return gathered
