"""The true path of an input's camera, and how far estimates are from it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.tum import associate_one_to_one
from ttt3r.evaluation.metrics import trajectory
from ttt3r.evaluation.text import read_tum
from ttt3r.files import user_path

NAMES = ("poses.txt", "groundtruth.txt", "trajectory.tum")  # in a folder, the first that is there


class Errors(NamedTuple):
    """Errors of one path; those that cannot be had are NaN.

    Attributes:
        ate: absolute trajectory error after a similarity, RMS, metres.
        rpe_translation: relative pose error of neighbouring frames, RMS, metres.
        rpe_rotation: the same of the rotation, degrees.
        rotation: mean angle between true and estimated rotation since the first frame, degrees.
        over_time: distance from the true position after the similarity, metres, for each frame;
            NaN where the truth is unknown.
        positions: after the similarity, in the world of the truth, metres.
    """

    ate: float
    rpe_translation: float
    rpe_rotation: float
    rotation: float
    over_time: Float64[np.ndarray, " frames"]
    positions: Float64[np.ndarray, "frames 3"]


def read_truth(
    path: str | Path, stamps: Float64[np.ndarray, " frames"]
) -> Float64[np.ndarray, "frames 4 4"]:
    """Read the true pose of each frame; NaN where there is none.

    Poses belong to the frames of the nearest time, at most 20 ms apart, one to one. Where no times
    agree and there are as many poses as frames, they are taken in order.

    Args:
        path: a file of lines `stamp tx ty tz qx qy qz qw`, camera-to-world, or a folder that holds
            one, such as `ttt3r scene --truth` writes.
        stamps: times of the frames, seconds.

    Raises:
        InputError: if there is no such file, it cannot be read, or it does not fit the frames.
    """
    path = user_path(path)
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise InputError(f"{path} holds no {', '.join(NAMES[:-1])} or {NAMES[-1]}")
        path = found[0]
    times, poses = read_tum(path)
    pairs = associate_one_to_one(stamps, times)
    if not pairs and len(times) == len(stamps):
        pairs = [(frame, frame) for frame in range(len(stamps))]
    if not pairs:
        raise InputError(
            f"no pose of {path} is within 20 ms of a frame, and there are {len(times)} poses for "
            f"{len(stamps)} frames; give the path of this input"
        )
    truth = np.full((len(stamps), 4, 4), np.nan)
    for frame, line in pairs:
        truth[frame] = poses[line]
    return truth


def errors_of(
    estimate: Float64[np.ndarray, "frames 4 4"], truth: Float64[np.ndarray, "frames 4 4"]
) -> tuple[Errors, str]:
    """Return the errors of a path, and why some could not be had ("" if all could).

    Args:
        estimate: estimated poses of all frames.
        truth: true ones; NaN where unknown.
    """
    known, nothing = trajectory.finite_poses(truth), float("nan")
    nowhere = np.full(len(truth), np.nan), np.full((len(truth), 3), np.nan)
    try:
        errors = trajectory.trajectory_errors(estimate, truth, "sim3", known)
        rotation = trajectory.rotation_error_deg(estimate, truth, known)
        similarity = trajectory.align(estimate, truth, "sim3", known)
    except InputError as error:
        return Errors(nothing, nothing, nothing, nothing, *nowhere), str(error)
    placed = estimate[:, :3, 3] @ similarity[:3, :3].T + similarity[:3, 3]
    over_time = np.linalg.norm(placed - truth[:, :3, 3], axis=1)
    found = errors.ate, errors.rpe_translation, errors.rpe_rotation_deg, rotation
    return Errors(*found, np.where(known, over_time, np.nan), placed), ""
