"""What answers score that look at no image; a network must beat them to have learned anything.

Every baseline says what it is told beforehand: some know the training set, some know the truth.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.depth import valid_pixels
from ttt3r.evaluation.metrics.depth_fits import weighted_median
from ttt3r.evaluation.metrics.trajectory import TrajectoryErrors, finite_poses, rpe

SMALLEST_WEIGHT = 1e-6  # of the known pixels that make a resized one


def best_constant_depth(
    depths: Iterable[Float[np.ndarray, "..."]], max_depth: float | None = None
) -> float:
    """Return the one depth c that has the least mean |c − g| / g over all known pixels.

    That is the median of g weighted by 1/g. Fitted to the very depths that are scored it is the
    best any constant can do, so no prediction worth its name is above its AbsRel.

    Args:
        depths: true depth maps of any shapes; values that are not positive and finite are unknown.
        max_depth: depths of this value and beyond do not count, metres.

    Returns:
        Metres.

    Raises:
        InputError: if no depth is known.
    """
    known = [depth[valid_pixels(depth, max_depth)].astype(np.float64) for depth in depths]
    if not sum(map(len, known)):
        raise InputError("no true depth is known, so there is no best constant")
    values = np.concatenate(known)
    return weighted_median(values, 1.0 / values)


def mean_depth_image(
    depths: Iterable[Float[np.ndarray, "_ _"]],
    height: int,
    width: int,
    max_depth: float | None = None,
) -> Float[np.ndarray, "{height} {width}"]:
    """Return the mean of (training) depth maps, pixel by pixel.

    Maps are resized by antialiased bilinear interpolation over their known pixels. Pixels that
    no map knows take the mean of the others.

    Args:
        depths: true depth maps of any sizes; values that are not positive and finite are unknown.
        height: rows of the result.
        width: columns of the result.
        max_depth: depths of this value and beyond do not count, metres.

    Returns:
        Metres, float64.

    Raises:
        InputError: if no depth is known.
    """
    total, weight = np.zeros((height, width)), np.zeros((height, width))
    for depth in depths:
        known = valid_pixels(depth, max_depth)
        pair = np.stack([np.where(known, depth, 0.0), known]).astype(np.float64)
        resized = _resize(torch.from_numpy(pair), height, width).numpy()
        total += resized[0]
        weight += resized[1]
    seen = weight > SMALLEST_WEIGHT
    if not seen.any():
        raise InputError("no true depth is known, so there is no mean")
    image = np.full((height, width), total[seen].sum() / weight[seen].sum())
    image[seen] = total[seen] / weight[seen]
    return image


def static_camera(frames: int) -> Float[np.ndarray, "{frames} 4 4"]:
    """Return poses of a camera that does not move: identities [frames, 4, 4].

    No similarity or rigid alignment of it is defined; `static_camera_errors` gives its errors.
    """
    return np.tile(np.eye(4), (frames, 1, 1))


def static_camera_errors(
    truth: Float[np.ndarray, "n 4 4"],
    valid: Bool[np.ndarray, " k"] | None = None,
    delta: int = 1,
) -> TrajectoryErrors:
    """Return the errors of a camera that does not move, placed as well as can be.

    The best place is the mean of the true positions, so the absolute error is their RMS distance
    from it: what a similarity fit tends to when the estimate has nothing to do with the truth.
    It is the largest error that any estimate can have after such a fit. The relative errors are
    the true camera's own motion.

    Args:
        truth: true ``world_from_camera`` [n, 4, 4].
        valid: as in `trajectory.trajectory_errors`.
        delta: as in `trajectory.trajectory_errors`.

    Raises:
        InputError: as there, but for the alignment, which is always defined.
    """
    relative = rpe(static_camera(len(truth)), truth, delta, "none", valid)
    used = np.ones(len(truth), dtype=bool) if valid is None else valid
    positions = truth[used, :3, 3].astype(np.float64)
    deviations = positions - positions.mean(0)
    return TrajectoryErrors(
        ate=float(np.sqrt(np.square(deviations).sum(-1).mean())),
        rpe_translation=relative.translation,
        rpe_rotation_deg=relative.rotation_deg,
        scale=0.0,
        frames=int(used.sum()),
        pairs=relative.pairs,
    )


def constant_velocity(truth: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses of a camera that repeats its first true motion for ever.

    The first two poses are the true ones, and pose i is T₀ (T₀⁻¹ T₁)ⁱ. So the baseline knows the
    scale, the start and the first step, which no network is told; it knows nothing afterwards.

    Args:
        truth: true ``world_from_camera`` [n, 4, 4]; only the first two are read.

    Raises:
        InputError: if there are fewer than two poses or the first two are not finite.
    """
    start = truth[:2].astype(np.float64)
    if len(start) < 2 or not finite_poses(start).all():
        raise InputError("a constant velocity needs the first two true poses; begin at known ones")
    step = np.linalg.inv(start[0]) @ start[1]
    poses = [start[0]]
    for _ in range(1, len(truth)):
        poses.append(poses[-1] @ step)
    return np.stack(poses)


def _resize(maps: Float[Tensor, "maps _ _"], height: int, width: int) -> Float[Tensor, "maps _ _"]:
    return functional.interpolate(
        maps[None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )[0]
