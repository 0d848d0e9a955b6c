"""Compares a run with the truth about its video, beside answers that need no network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt3r import Run
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.folders import Folders
from ttt3r.evaluation.metrics.depth import DepthErrors, depth_errors
from ttt3r.evaluation.metrics.trajectory import rotation_error_deg, trajectory_errors
from ttt3r.evaluation.tasks.depth import constant_error
from ttt3r.evaluation.tasks.pose import without_images
from ttt3r.sources import prepare_frame
from ttt3r.types import Frame, ImageTransform, Preparation

FARTHEST = 60.0


@dataclass(frozen=True)
class Record:
    """What a run says of its frames beside what is true.

    Attributes:
        estimate: predicted camera poses [n, 4, 4].
        truth: true camera poses [n, 4, 4].
        predicted: predicted depth [n, h, w], in the run's unit.
        true_depth: true depth at the same pixels [n, h, w], metres, 0 where unknown.
    """

    estimate: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    true_depth: np.ndarray

    def scaled_errors(self) -> DepthErrors:
        """Errors of depth after one scale for the whole run."""
        return depth_errors(self.predicted, self.true_depth, "scale", max_depth=FARTHEST)


@dataclass(frozen=True)
class Comparison:
    """One error of a run, and of the best answer without images.

    Attributes:
        what: in words, with the unit.
        error: of the run.
        baseline: of that answer.
        name: of that answer.
    """

    what: str
    error: float
    baseline: float
    name: str

    @property
    def better(self) -> bool:
        """Whether the run beats the baseline."""
        return self.error < self.baseline

    def __str__(self) -> str:
        return f"{self.what:<34} {self.error:8.3f} {self.baseline:10.3f}  {self.name}"


def read_record(run: Run, truth: Path) -> Record:
    """Line up what a run says with a truth folder, as `ttt3r scene --truth` writes it."""
    sequence = Folders().open(truth, truth.name, Selection("recon"))
    estimate, poses, predicted, depths = [], [], [], []
    for true, prediction in zip(sequence, run, strict=True):
        assert prediction.world_from_camera is not None and prediction.depth is not None
        assert true.depth is not None
        policy = Preparation(max(prediction.depth.shape))
        frame = prepare_frame(Frame(true.image, prediction.index, true.timestamp), policy)
        assert frame.transform is not None
        estimate.append(prediction.world_from_camera.double().numpy())
        poses.append(true.world_from_camera)
        predicted.append(prediction.depth.float().numpy())
        depths.append(_depth_in_network(true.depth, frame.transform))
    return Record(*map(np.stack, (estimate, poses, predicted, depths)))


def compare(record: Record) -> list[Comparison]:
    """Errors of a record beside a camera that does not move and one depth for every pixel."""
    known = record.true_depth[(record.true_depth > 0) & (record.true_depth < FARTHEST)]
    everywhere = np.ones(len(record.truth), bool)
    still = without_images(record.truth, everywhere)
    constant, camera = "the best constant depth", "a camera that stands still"
    depth = record.scaled_errors().abs_rel
    rotation = rotation_error_deg(record.estimate, record.truth)
    ate = trajectory_errors(record.estimate, record.truth, "sim3").ate
    return [
        Comparison("depth, relative (one scale)", depth, constant_error(known), constant),
        Comparison("rotation, degrees", rotation, still["rotation_static"], camera),
        Comparison("camera path, metres (after Sim(3))", ate, still["ate_static"], camera),
    ]


def _depth_in_network(depth: np.ndarray, transform: ImageTransform) -> np.ndarray:
    """Bring a depth map [h, w] of the source image to the pixels that the network saw.

    Each takes the nearest source pixel, so that no depth is made up at the edges of things.
    """
    columns, rows = transform.crop[2:]
    original_from_processed = np.linalg.inv(transform.processed_from_original)

    def nearest(count: int, axis: int) -> np.ndarray:
        at = np.arange(count) * original_from_processed[axis, axis]
        at = np.floor(at + original_from_processed[axis, 2] + 0.5).astype(np.int64)
        return at.clip(0, transform.original_size[axis] - 1)

    return depth[nearest(rows, 1)[:, None], nearest(columns, 0)]
