"""Run a session over a sequence whose truth is known, and score what it said.

Memory does not grow with the length: of all depths only every k-th pixel is kept, with k such that
at most `MOST_VALUES` remain; which pixels these are shifts from frame to frame.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64
from torch import Tensor

from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.machine import clock
from ttt3r.evaluation.metrics import depth as depth_scores
from ttt3r.evaluation.metrics.depth import DepthErrors
from ttt3r.evaluation.metrics.trajectory import (
    TrajectoryErrors,
    finite_poses,
    path_length,
    rotation_error_deg,
    trajectory_errors,
)
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.sources import prepare_frame
from ttt3r.stream.session import Session
from ttt3r.types import Frame, ImagePolicy, ImageTransform

MOST_VALUES = 2_000_000
UNKNOWN_POSE = np.full((4, 4), np.nan)
UNKNOWN_INTRINSICS = np.full((3, 3), np.nan)


@dataclass(frozen=True)
class Record:
    """Poses of every frame and depths of some pixels: what was said beside what is true.

    Attributes:
        name: of the sequence.
        size: (height, width) of the images the network saw.
        transform: how they were made from the sequence's own images.
        estimate: predicted ``world_from_camera``.
        truth: true ``world_from_camera``, NaN where unknown.
        intrinsics: true pinhole matrices of the images the network saw, NaN where unknown.
        points: predicted points in their camera's frame, at pixels of known depth.
        depth: true depth there, metres.
        frame: frame of each point.
        pixel: its pixel, counted row by row.
        kept_one_of: k, where every k-th pixel was kept.
        wrong_depths: of each frame, how many of all pixels of known depth have a predicted one that
            is not finite.
        seconds: time that the session took, without reading and preparing images.
    """

    name: str
    size: tuple[int, int]
    transform: ImageTransform
    estimate: Float64[np.ndarray, "frames 4 4"]
    truth: Float64[np.ndarray, "frames 4 4"]
    intrinsics: Float64[np.ndarray, "frames 3 3"]
    points: Float32[np.ndarray, "values 3"]
    depth: Float32[np.ndarray, " values"]
    frame: Int32[np.ndarray, " values"]
    pixel: Int32[np.ndarray, " values"]
    kept_one_of: int
    wrong_depths: Int64[np.ndarray, " frames"]
    seconds: float = math.nan

    def __len__(self) -> int:
        return len(self.estimate)

    def first(self, frames: int) -> "Record":
        """Return the record of the first frames; `seconds` remains that of all."""
        until = int(np.searchsorted(self.frame, frames))
        return Record(
            self.name,
            self.size,
            self.transform,
            self.estimate[:frames],
            self.truth[:frames],
            self.intrinsics[:frames],
            self.points[:until],
            self.depth[:until],
            self.frame[:until],
            self.pixel[:until],
            self.kept_one_of,
            self.wrong_depths[:frames],
            self.seconds,
        )


@dataclass(frozen=True)
class SequenceResult:
    """Errors on one sequence; None where they are not defined, with the reason in `notes`.

    Attributes:
        name: of the sequence.
        frames: how many were shown.
        known_poses: how many of them have a true pose.
        size: (height, width) of the images the network saw.
        trajectory: after the best similarity.
        path_length: of the true camera, metres.
        rotation_deg: mean error of the rotation since the first frame, degrees.
        depth_metric: depth as predicted.
        depth_scale: depth after the one scale for the whole sequence with the least
            Σ |s p − g|.
        kept_one_of: every k-th pixel was scored.
        frames_per_second: of the session alone.
        failed: whether a prediction was not finite.
        notes: what failed or is not defined, in words.
    """

    name: str
    frames: int
    known_poses: int
    size: tuple[int, int]
    trajectory: TrajectoryErrors | None
    path_length: float | None
    rotation_deg: float | None
    depth_metric: DepthErrors | None
    depth_scale: DepthErrors | None
    kept_one_of: int
    frames_per_second: float
    failed: bool
    notes: tuple[str, ...]

    @property
    def ate_percent(self) -> float | None:
        """Absolute trajectory error in percent of the length of the true path."""
        if self.trajectory is None or not self.path_length:
            return None
        return 100.0 * self.trajectory.ate / self.path_length


class TruthRecorder:
    """Prepares the frames of a sequence for a network, and keeps what is known of them.

    Args:
        name: of the sequence.
        frames: how many will come.
        policy: of the network's weights.
        most_values: how many depths to keep.
    """

    def __init__(
        self, name: str, frames: int, policy: ImagePolicy, most_values: int = MOST_VALUES
    ) -> None:
        self.name, self.frames, self.policy, self.most_values = name, frames, policy, most_values
        self.poses: list[np.ndarray] = []
        self.intrinsics: list[np.ndarray] = []
        self.depths: list[np.ndarray] = []
        self.pixels: list[np.ndarray] = []
        self.known = np.zeros(0, np.int64)  # of the last frame
        self.form: tuple[tuple[int, int], ImageTransform] | None = None

    @property
    def kept_one_of(self) -> int:
        """Every k-th pixel is kept; known once there was a frame."""
        assert self.form is not None
        return max(1, math.ceil(self.frames * math.prod(self.form[0]) / self.most_values))

    def take(self, true: TrueFrame) -> Frame:
        """Prepare a frame.

        Raises:
            InputError: if its size is not that of the frames before.
        """
        index = len(self.poses)
        frame = prepare_frame(
            Frame(
                image=true.image,
                index=index,
                timestamp=true.timestamp,
                intrinsics=true.intrinsics,
                name=self.name,
            ),
            self.policy,
        )
        assert frame.transform is not None
        form = ((frame.image.shape[0], frame.image.shape[1]), frame.transform)
        if self.form not in (None, form):
            raise InputError(f"frame {index} of {self.name} has another size; cut the sequence")
        self.form = form
        pose = true.world_from_camera
        self.poses.append(UNKNOWN_POSE if pose is None else pose)
        self.intrinsics.append(UNKNOWN_INTRINSICS if frame.intrinsics is None else frame.intrinsics)
        self._take_depth(true, index, frame.transform)
        return frame

    def _take_depth(self, true: TrueFrame, index: int, transform: ImageTransform) -> None:
        if true.depth is None:
            depth, self.known = np.zeros(0, np.float32), np.zeros(0, np.int64)
        else:
            depth = depth_in_network(true.depth, transform).ravel()
            self.known = np.flatnonzero(depth_scores.valid_pixels(depth))
        kept = self.known[self.known % self.kept_one_of == index % self.kept_one_of]
        self.pixels.append(kept.astype(np.int32))
        self.depths.append(depth[kept].astype(np.float32))


class EstimateRecorder:
    """Keeps what a network says of the frames that a `TruthRecorder` prepares, in lockstep.

    Args:
        truth: has taken each frame before its prediction comes here.
    """

    def __init__(self, truth: TruthRecorder) -> None:
        self.truth = truth
        self.poses: list[np.ndarray] = []
        self.points: list[np.ndarray] = []
        self.wrong: list[int] = []

    def take(
        self, world_from_camera: Float[Tensor, "4 4"], points: Float[Tensor, "height width 3"]
    ) -> None:
        """Keep a pose, and the points at the kept pixels."""
        self.poses.append(world_from_camera.double().cpu().numpy())
        flat = points.detach().float().cpu().flatten(0, 1).numpy()
        self.wrong.append(int((~np.isfinite(flat[self.truth.known, 2])).sum()))
        self.points.append(flat[self.truth.pixels[-1]])

    def record(self, seconds: float = math.nan) -> Record:
        """Return all of it.

        Raises:
            InputError: if there was no frame.
        """
        truth = self.truth
        if truth.form is None:
            raise InputError(f"the sequence {truth.name} has no frames")
        counts = [len(pixels) for pixels in truth.pixels]
        return Record(
            name=truth.name,
            size=truth.form[0],
            transform=truth.form[1],
            estimate=np.stack(self.poses),
            truth=np.stack(truth.poses).astype(np.float64),
            intrinsics=np.stack(truth.intrinsics).astype(np.float64),
            points=np.concatenate(self.points),
            depth=np.concatenate(truth.depths),
            frame=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
            pixel=np.concatenate(truth.pixels),
            kept_one_of=truth.kept_one_of,
            wrong_depths=np.array(self.wrong, dtype=np.int64),
            seconds=seconds,
        )


def depth_in_network(
    depth: Float[np.ndarray, "height width"], transform: ImageTransform
) -> Float[np.ndarray, "new_height new_width"]:
    """Bring a depth map of the source image to the pixels that the network saw.

    Each takes the nearest source pixel, so that no depth is made up at the edges of things.
    """
    columns, rows = transform.crop[2:]
    original_from_processed = np.linalg.inv(transform.processed_from_original)

    def nearest(count: int, axis: int) -> np.ndarray:
        at = np.arange(count) * original_from_processed[axis, axis]
        at = np.floor(at + original_from_processed[axis, 2] + 0.5).astype(np.int64)
        return at.clip(0, transform.original_size[axis] - 1)

    return depth[nearest(rows, 1)[:, None], nearest(columns, 0)]


def measure(
    session: Session,
    sequence: Sequence,
    max_depth: float | None = None,
    most_values: int = MOST_VALUES,
) -> SequenceResult:
    """Push a sequence through a session and score it.

    Args:
        session: fresh, with the outputs "points" and "pose".
        sequence: its images are resized and cropped as the weights' policy says.
        max_depth: true depths of this value and beyond do not count, metres.
        most_values: how many depths to keep and score.

    Raises:
        InputError: if the sequence has no frames or cannot be read.
        SettingError: if the session is not fresh or lacks an output.
    """
    return score(collect(session, sequence, most_values), max_depth)


def collect(session: Session, sequence: Sequence, most_values: int = MOST_VALUES) -> Record:
    """Push a sequence through a session and keep what is needed to score it; see `measure`."""
    if session.index or not {"points", "pose"} <= session.outputs:
        raise SettingError("measuring takes a fresh session with the outputs points and pose")
    truth = TruthRecorder(
        sequence.name, len(sequence), session.model.image_policy, most_values=most_values
    )
    estimate = EstimateRecorder(truth)
    seconds, device = 0.0, session.state.age.device
    for true in sequence:
        frame = truth.take(true)
        start = clock(device)
        prediction = session.push(frame)
        seconds += clock(device) - start
        assert prediction.world_from_camera is not None and prediction.points is not None
        estimate.take(prediction.world_from_camera, prediction.points)
    return estimate.record(seconds)


def score(record: Record, max_depth: float | None = None) -> SequenceResult:
    """Return the errors of a record; what is not finite is reported, never left out.

    Args:
        record: from `collect`.
        max_depth: true depths of this value and beyond do not count, metres.
    """
    notes: list[str] = []
    known = finite_poses(record.truth)
    good = finite_poses(record.estimate)
    failed = not good.all()
    trajectory = rotation = length = None
    if known.any():
        length = path_length(record.truth, known)
    if failed:
        notes.append(
            f"{int((~good).sum())} predicted poses are not finite, the first of frame "
            f"{int(good.argmin())}"
        )
    elif not known.any():
        notes.append("no true pose is known")
    else:
        try:
            rotation = rotation_error_deg(record.estimate, record.truth, known)
            trajectory = trajectory_errors(record.estimate, record.truth, "sim3", known)
        except InputError as error:
            notes.append(str(error))
    metric = scale = None
    bad = int(record.wrong_depths.sum())
    if bad:
        failed = True
        notes.append(f"{bad} predicted depths are not finite")
    else:
        metric, scale = _depth(record, max_depth, notes)
    return SequenceResult(
        name=record.name,
        frames=len(record),
        known_poses=int(known.sum()),
        size=record.size,
        trajectory=trajectory,
        path_length=length,
        rotation_deg=rotation,
        depth_metric=metric,
        depth_scale=scale,
        kept_one_of=record.kept_one_of,
        frames_per_second=len(record) / record.seconds if record.seconds else math.nan,
        failed=failed,
        notes=tuple(notes),
    )


def _depth(
    record: Record, max_depth: float | None, notes: list[str]
) -> tuple[DepthErrors | None, DepthErrors | None]:
    if not depth_scores.valid_pixels(record.depth, max_depth).any():
        notes.append("no true depth is known")
        return None, None
    try:
        metric, scale = (
            depth_scores.depth_errors(
                record.points[:, 2], record.depth, alignment, max_depth=max_depth, compat=False
            )
            for alignment in ("metric", "scale")
        )
    except InputError as error:
        notes.append(str(error))
        return None, None
    return metric, scale
