"""How far an estimated camera trajectory is from the true one.

Sturm, Engelhard, Endres, Burgard and Cremers, "A benchmark for the evaluation of RGB-D SLAM
systems", IROS 2012, with the alignment of Umeyama, PAMI 1991. Poses are ``world_from_camera``
[n, 4, 4] whose worlds may differ; lengths come in the unit of the true poses, which is metres.
Everything is computed in float64.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from ttt3r.errors import InputError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points

Alignment = Literal["sim3", "se3", "none"]

# Positions whose spread across their main direction is this small, relative to the spread along
# it (the product of both trajectories' ratios), lie on a line as far as float32 can tell.
COLLINEAR = 1e-12
# Largest entry of RᵀR − I of a matrix that still counts as a rotation.
NOT_A_ROTATION = 1e-2


class RelativeErrors(NamedTuple):
    """Relative pose errors: root mean squares over `pairs` pairs of frames.

    Attributes:
        translation: metres.
        rotation_deg: degrees.
        pairs: number of pairs of frames.
    """

    translation: float
    rotation_deg: float
    pairs: int


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors of one trajectory.

    Attributes:
        ate: absolute trajectory error after alignment, RMS metres.
        rpe_translation: relative pose error, translation after alignment, RMS metres.
        rpe_rotation_deg: relative pose error, rotation, RMS degrees.
        scale: what the estimate's lengths were multiplied by.
        frames: number of poses that were compared.
        pairs: number of pairs of poses behind the relative errors.
    """

    ate: float
    rpe_translation: float
    rpe_rotation_deg: float
    scale: float
    frames: int
    pairs: int


class Matched(NamedTuple):
    """Rigid poses [n, 4, 4] in float64; true poses that are not `used` [n] are the identity."""

    estimate: Float[np.ndarray, "n 4 4"]
    truth: Float[np.ndarray, "n 4 4"]
    used: Bool[np.ndarray, " n"]


def trajectory_errors(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    alignment: Alignment = "sim3",
    valid: Bool[np.ndarray, " k"] | None = None,
    delta: int = 1,
) -> TrajectoryErrors:
    """Return the absolute and relative errors of a trajectory.

    Args:
        estimate: estimated ``world_from_camera`` [n, 4, 4], all finite.
        truth: true ``world_from_camera`` of the same frames, [n, 4, 4].
        alignment: see `align`.
        valid: frames [n] whose true pose is known; all if None. The others are left out, and so
            is every pair that contains one. `finite_poses(truth)` makes such a mask.
        delta: frames between the two poses of a pair.

    Raises:
        InputError: if the numbers of poses differ; a used pose is not a finite rigid transform
            (an estimate that is not finite is a failed run, also where `valid` is false); the
            alignment is undefined; or there is no pair.
        SettingError: if `alignment` is unknown or `delta` is not positive.
    """
    matched = match(estimate, truth, valid)
    similarity = _align(matched, alignment)
    relative = _relative_errors(matched, _scale(similarity), delta)
    return TrajectoryErrors(
        ate=_absolute_error(matched, similarity),
        rpe_translation=relative.translation,
        rpe_rotation_deg=relative.rotation_deg,
        scale=_scale(similarity),
        frames=int(matched.used.sum()),
        pairs=relative.pairs,
    )


def ate(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    alignment: Alignment = "sim3",
    valid: Bool[np.ndarray, " k"] | None = None,
) -> float:
    """Return the absolute trajectory error: RMS of |t_true − aligned t_estimate|, metres.

    Arguments and errors as in `trajectory_errors`.
    """
    matched = match(estimate, truth, valid)
    return _absolute_error(matched, _align(matched, alignment))


def rpe(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    delta: int = 1,
    alignment: Alignment = "sim3",
    valid: Bool[np.ndarray, " k"] | None = None,
) -> RelativeErrors:
    """Return the relative pose error over all pairs of frames (i, i + `delta`).

    E_i = (Q_i⁻¹ Q_j)⁻¹ (P_i⁻¹ P_j) with true poses Q and aligned estimates P. The alignment
    acts on it through its scale only.

    Arguments and errors as in `trajectory_errors`.
    """
    matched = match(estimate, truth, valid)
    return _relative_errors(matched, _scale(_align(matched, alignment)), delta)


def rotation_error_deg(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    valid: Bool[np.ndarray, " k"] | None = None,
) -> float:
    """Return the mean angle between estimated and true rotation since the first frame, degrees.

    The mean runs over the frames after the first one that is valid. No alignment is needed.

    Arguments and errors as in `trajectory_errors`; two frames are the least.
    """
    matched = match(estimate, truth, valid)
    frames = np.flatnonzero(matched.used)
    if len(frames) < 2:
        raise InputError("a rotation error needs at least two frames whose true pose is known")
    first = np.full(len(frames) - 1, frames[0])
    angles = _angle_deg(_pair_errors(matched, 1.0, first, frames[1:])[:, :3, :3])
    return float(angles.mean())


def align(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    alignment: Alignment = "sim3",
    valid: Bool[np.ndarray, " k"] | None = None,
) -> Float[np.ndarray, "4 4"]:
    """Return the transform that takes the estimate's world to the true one.

    Args:
        estimate: as in `trajectory_errors`.
        truth: as in `trajectory_errors`.
        alignment: "sim3" fits rotation, translation and scale to the positions by least squares,
            "se3" the same without scale, "none" returns the identity.
        valid: as in `trajectory_errors`.

    Raises:
        InputError: as in `trajectory_errors`. The alignment is undefined for fewer than three
            poses, and where all true or all estimated positions lie on a line or coincide.
    """
    return _align(match(estimate, truth, valid), alignment)


def path_length(
    poses: Float[np.ndarray, "n 4 4"], valid: Bool[np.ndarray, " k"] | None = None
) -> float:
    """Return the length of the polygon through the (valid) camera positions.

    Args:
        poses: [n, 4, 4].
        valid: poses [n] to use; all if None. A gap is bridged by a straight line.

    Raises:
        InputError: if a used position is not finite.
    """
    positions = poses[_mask(poses, valid), :3, 3].astype(np.float64)
    if not np.isfinite(positions).all():
        raise InputError(
            "a camera position is not finite, so the path has no length. "
            "Leave such poses out with valid=finite_poses(poses)."
        )
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=-1).sum())


def finite_poses(poses: Float[np.ndarray, "n 4 4"]) -> Bool[np.ndarray, " n"]:
    """Return which poses [n, 4, 4] hold finite numbers only."""
    return np.asarray(np.isfinite(poses).all((-2, -1)))


def match(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    valid: Bool[np.ndarray, " k"] | None,
) -> Matched:
    """Check and normalise both trajectories.

    Args:
        estimate: estimated ``world_from_camera`` [n, 4, 4], all finite.
        truth: true ``world_from_camera`` of the same frames, [n, 4, 4].
        valid: frames [n] whose true pose is known; all if None.

    Raises:
        InputError: if their numbers differ, or a pose that counts is not finite or not rigid.
    """
    if len(estimate) != len(truth):
        raise InputError(
            f"there are {len(estimate)} estimated poses but {len(truth)} true ones; pair them first"
        )
    used = _mask(truth, valid)
    known = np.where(used[:, None, None], truth, np.eye(4))
    return Matched(
        _rigid(estimate, "estimated", "The run failed there, and has no error that means anything"),
        _rigid(known, "true", "If it is unknown, pass valid=finite_poses(truth)"),
        used,
    )


def _mask(
    poses: Float[np.ndarray, "n 4 4"], valid: Bool[np.ndarray, " k"] | None
) -> Bool[np.ndarray, " n"]:
    if valid is None:
        return np.ones(len(poses), dtype=bool)
    if len(valid) != len(poses):
        raise InputError(f"the mask has {len(valid)} entries for {len(poses)} poses; give as many")
    return valid


def _rigid(poses: Float[np.ndarray, "n 4 4"], name: str, advice: str) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses in float64, each with the rotation that is nearest to its matrix.

    Poses stored as float32 are rotations up to 1e-7 only, which is a large part of the
    relative rotation of two neighbouring frames.
    """
    poses = poses.astype(np.float64)
    for check, problem in (
        (finite_poses, "is not finite"),
        (_nearly_rigid, "is not a rotation and a translation"),
    ):
        ok = check(poses)
        if not ok.all():
            raise InputError(f"the {name} pose of frame {int(ok.argmin())} {problem}. {advice}.")
    left, _, right = np.linalg.svd(poses[:, :3, :3])
    poses[:, :3, :3] = left @ right
    return poses


def _nearly_rigid(poses: Float[np.ndarray, "n 4 4"]) -> Bool[np.ndarray, " n"]:
    matrices = poses[:, :3, :3]
    rest = matrices.swapaxes(-1, -2) @ matrices - np.eye(3)
    return (np.abs(rest).max((-2, -1)) < NOT_A_ROTATION) & (np.linalg.det(matrices) > 0.0)


def _align(matched: Matched, alignment: Alignment) -> Float[np.ndarray, "4 4"]:
    if alignment not in ("sim3", "se3", "none"):
        raise SettingError(f"unknown alignment {alignment!r}; choose sim3, se3 or none")
    if alignment == "none":
        return np.eye(4)
    source, target = (poses[matched.used, :3, 3] for poses in (matched.estimate, matched.truth))
    if len(source) < 3 or _on_a_line(source, target):
        raise InputError(
            "the trajectories cannot be aligned: there are fewer than three poses, or all "
            "positions of one trajectory lie on a line or coincide. Compare more frames, or "
            "use the alignment none."
        )
    similarity = align_points(
        torch.from_numpy(source), torch.from_numpy(target), None, with_scale=alignment == "sim3"
    )
    return similarity.numpy()


def _on_a_line(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> bool:
    """Say whether the positions' covariance has a rank below two."""
    deltas = [points - points.mean(0) for points in (source, target)]
    spreads = [np.sqrt(np.square(d).sum()) for d in deltas]
    singular = np.linalg.svd(deltas[1].T @ deltas[0], compute_uv=False)
    return bool(singular[1] <= COLLINEAR * spreads[0] * spreads[1])


def _scale(similarity: Float[np.ndarray, "4 4"]) -> float:
    return float(se3.similarity_scale(torch.from_numpy(similarity)))


def _absolute_error(matched: Matched, similarity: Float[np.ndarray, "4 4"]) -> float:
    estimate, truth = (p[matched.used, :3, 3] for p in (matched.estimate, matched.truth))
    if not len(truth):
        raise InputError("no true pose is known, so there is nothing to compare with")
    aligned = estimate @ similarity[:3, :3].T + similarity[:3, 3]
    return _rms(np.linalg.norm(truth - aligned, axis=-1))


def _relative_errors(matched: Matched, scale: float, delta: int) -> RelativeErrors:
    if delta < 1:
        raise SettingError(f"delta is {delta}; pairs must be at least one frame apart")
    first = np.flatnonzero(matched.used[:-delta] & matched.used[delta:])
    if not len(first):
        raise InputError(
            f"there is no pair of frames {delta} apart with known true poses. Compare more frames."
        )
    errors = _pair_errors(matched, scale, first, first + delta)
    return RelativeErrors(
        translation=_rms(np.linalg.norm(errors[:, :3, 3], axis=-1)),
        rotation_deg=_rms(_angle_deg(errors[:, :3, :3])),
        pairs=len(first),
    )


def _pair_errors(
    matched: Matched,
    scale: float,
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, "pairs 4 4"]:
    """Return E = (Q_i⁻¹ Q_j)⁻¹ (P_i⁻¹ P_j), the estimate's translations times `scale`."""
    estimate, truth = (
        se3.invert(torch.from_numpy(poses[first])) @ torch.from_numpy(poses[second])
        for poses in (matched.estimate, matched.truth)
    )
    scaled = se3.assemble(estimate[:, :3, :3], scale * estimate[:, :3, 3])
    return (se3.invert(truth) @ scaled).numpy()


def _angle_deg(rotations: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Return rotation angles: tan θ = |R − Rᵀ| / √2 / (tr R − 1), exact at 0° and 180° too."""
    skew = rotations - rotations.swapaxes(-1, -2)
    sine = np.linalg.norm(skew, axis=(-2, -1)) / np.sqrt(2.0)
    return np.degrees(np.arctan2(sine, np.trace(rotations, axis1=-2, axis2=-1) - 1.0))


def _rms(values: Float[np.ndarray, " n"]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
