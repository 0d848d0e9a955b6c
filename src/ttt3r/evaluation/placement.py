"""How far points lie from where they belong in the world, and what part the poses have in it."""

import numpy as np
from jaxtyping import Bool, Float, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.streaming import Record


def placement_error(
    record: Record,
    poses: Float[np.ndarray, "frames 4 4"],
    scale: float,
    pose_scale: float,
    max_depth: float | None = None,
) -> float:
    """Return the mean of |x̂ − x| / d over points of known depth.

    x̂ is a predicted point, times `scale`, placed by `poses`; x is the true point placed by the
    true poses; d is the true distance from the camera. Both worlds are the first camera's frame.

    Args:
        record: with depth, all true poses and all true intrinsics.
        poses: ``world_from_camera`` to place the points by: the predicted ones, or the true ones
            for the error that remains when the poses are perfect.
        scale: factor of the predicted points.
        pose_scale: factor of the translations of `poses`.
        max_depth: points of this true depth and beyond do not count, metres.

    Raises:
        InputError: if truth is missing, or a pose or point is not finite.
    """
    used = np.ones(len(record.depth), dtype=bool)
    if max_depth is not None:
        used &= record.depth < max_depth
    if not (
        used.any() and np.isfinite(record.truth).all() and np.isfinite(record.intrinsics).all()
    ):
        raise InputError("placing points takes true depth, poses and intrinsics of all frames")
    true_points = _true_points(record, used)
    frame = record.frame[used]
    points = scale * record.points[used].astype(np.float64)
    estimate = _from_first(poses, pose_scale)[frame]
    truth = _from_first(record.truth, 1.0)[frame]
    distance = np.linalg.norm(true_points, axis=-1)
    errors = np.linalg.norm(_move(estimate, points) - _move(truth, true_points), axis=-1)
    if not np.isfinite(errors).all():
        raise InputError("a predicted pose or point is not finite, so there is no mean error")
    return float((errors / distance).mean())


def _true_points(
    record: Record, used: Bool[np.ndarray, " values"]
) -> Float64[np.ndarray, "used 3"]:
    depth = record.depth[used].astype(np.float64)
    matrix = record.intrinsics[record.frame[used]]
    v, u = np.divmod(record.pixel[used], record.size[1])
    x = (u - matrix[:, 0, 2]) / matrix[:, 0, 0]
    y = (v - matrix[:, 1, 2]) / matrix[:, 1, 1]
    return np.stack([x * depth, y * depth, depth], axis=-1)


def _from_first(
    poses: Float[np.ndarray, "frames 4 4"], scale: float
) -> Float64[np.ndarray, "frames 4 4"]:
    relative = np.linalg.inv(poses[0].astype(np.float64)) @ poses
    relative[:, :3, 3] *= scale
    return relative


def _move(
    poses: Float64[np.ndarray, "values 4 4"], points: Float64[np.ndarray, "values 3"]
) -> Float64[np.ndarray, "values 3"]:
    return np.einsum("vij,vj->vi", poses[:, :3, :3], points) + poses[:, :3, 3]
