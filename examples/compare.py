"""Compares a run with the truth about its video, beside answers that need no network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt3r import Run
from ttt3r.evaluation import baselines
from ttt3r.evaluation.metrics.depth import depth_errors
from ttt3r.evaluation.metrics.trajectory import rotation_error_deg
from ttt3r.evaluation.sequences import FolderSequence
from ttt3r.evaluation.streaming import EstimateRecorder, Record, TruthRecorder, score
from ttt3r.types import ImagePolicy

FARTHEST = 60.0


@dataclass(frozen=True)
class Comparison:
    """One error of a run, and of the best answer that looks at no image.

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
    """Line up what a run says with a truth folder in the layout of `FolderSequence`."""
    sequence = FolderSequence(truth)
    longest = max(run[0].points.shape[:2])  # pyright: ignore[reportOptionalMemberAccess]
    recorder = TruthRecorder(sequence.name, len(sequence), ImagePolicy(longest))
    estimate = EstimateRecorder(recorder)
    for true, prediction in zip(sequence, run, strict=True):
        recorder.take(true)
        assert prediction.world_from_camera is not None and prediction.points is not None
        estimate.take(prediction.world_from_camera, prediction.points)
    return estimate.record()


def compare(record: Record) -> list[Comparison]:
    """Errors of a record beside a camera that does not move and one depth for every pixel."""
    result = score(record, FARTHEST)
    assert result.depth_scale is not None and result.rotation_deg is not None
    still = baselines.static_camera(len(record))
    constant = baselines.best_constant_depth([record.depth[None]], FARTHEST)
    flat = depth_errors(
        np.full_like(record.depth, constant), record.depth, "metric", max_depth=FARTHEST
    )
    rows = [
        Comparison(
            "depth, relative (one scale)",
            result.depth_scale.abs_rel,
            flat.abs_rel,
            "the best constant depth",
        ),
        Comparison(
            "rotation, degrees",
            result.rotation_deg,
            rotation_error_deg(still, record.truth),
            "a camera that stands still",
        ),
    ]
    if result.trajectory is not None:
        limit = baselines.static_camera_errors(record.truth).ate
        rows.append(
            Comparison(
                "camera path, metres (after Sim(3))",
                result.trajectory.ate,
                limit,
                "a camera that stands still",
            )
        )
    return rows
