"""3D reconstruction: the distance of two clouds, once one was moved onto the other."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.clouds import (
    UnusableTruthError,
    align_clouds,
    crop_half_for,
    score_clouds,
)
from ttt3r.evaluation.metrics.neighbours import Neighbours
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.evaluation.store import CLOUDS
from ttt3r.evaluation.tasks.base import Outcome, Recorder
from ttt3r.evaluation.views import prepare_view, unproject
from ttt3r.sources.preprocess import fit
from ttt3r.types import Frame, Prediction, Preparation

KEPT_POINTS = 60_000
OF_ERRORS = (
    *("accuracy", "completeness", "chamfer", "f_score", "precision", "recall"),
    *("accuracy_median", "completeness_median"),
    *("normal_consistency", "normal_consistency_median"),
)


class ReconRecorder(Recorder):
    """Pointmaps in the frame of the first camera, predicted and true; see `Recorder`."""

    outputs: ClassVar[tuple[str, ...]] = ("world",)

    def __init__(
        self, protocol: Protocol, sequence: Sequence, preparation: Preparation, folder: Path
    ) -> None:
        super().__init__(protocol, sequence, preparation, folder)
        self.truth = self._spool("truth", np.float32)
        self.valid = self._spool("valid", np.bool_)
        self.estimate = self._spool("estimate", np.float32)
        self.world_from_first: np.ndarray | None = None
        self.unplaced: list[bool] = []  # whether the true pose of a frame is unknown
        self.kept: dict[str, np.ndarray] = {}

    @classmethod
    def check(cls) -> None:
        """Neighbours are searched with SciPy."""
        Neighbours(np.zeros((1, 3)))

    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Keep the true points; images are cut about the principal point."""
        height, width = true.image.shape[:2]
        sides = fit(max(width, height), min(width, height), self.preparation).crop[2:]
        view = prepare_view(true, sides)
        pose = view.world_from_camera
        if self.count == 0:
            self.world_from_first = pose
        self.unplaced.append(pose is None or not np.isfinite(pose).all())
        if self.unplaced[-1] or pose is None:
            points = np.zeros((*view.depth.shape, 3), np.float32)
            valid = np.zeros(view.depth.shape, bool)
        else:
            points, valid = unproject(view.depth, view.intrinsics, pose)
        self.truth.append(points[None])
        self.valid.append(valid[None])
        return Frame(view.image, frame.index, frame.timestamp, view.intrinsics, frame.name)

    def take(self, prediction: Prediction) -> None:
        """Take the predicted points."""
        assert prediction.world_points is not None
        points = prediction.world_points.float().cpu().numpy()
        valid = self.valid.rows(len(self.wrong) + 1)[-1]
        self.wrong.append(int((~np.isfinite(points[valid])).any(-1).sum()))
        self.estimate.append(points[None])

    def score(self, frames: int) -> Outcome:
        """Match both clouds in depth and size, register them, and compare.

        Views of unknown pose have no points that are true: under the corrected protocol they are
        masked, under the published one the sequence is left out.
        """
        failure = self._failure(frames, "points")
        if failure is not None:
            return failure
        unplaced = sum(self.unplaced[:frames])
        text = f"{unplaced} of {frames} true poses are unknown"
        if unplaced and self.protocol.variant == "published":
            return Outcome("dropped", note=text)
        if self.world_from_first is None:
            return Outcome("dropped", note=f"{text}, the first among them")
        assert self.size is not None
        valid = self.valid.rows(frames)
        if not valid.any():
            return Outcome("dropped", note="no true depth is valid")
        maps = self.estimate.rows(frames), self.truth.rows(frames), valid
        try:
            aligned = align_clouds(*maps, self.world_from_first, crop_half_for(self.size[1]))
            scored = score_clouds(aligned)
        except UnusableTruthError as error:
            return Outcome("dropped", note=str(error))
        except InputError as error:
            return Outcome("failed", note=str(error))
        self.kept = {"prediction": _some(scored.prediction), "truth": _some(aligned.truth)}
        metrics = {name: float(getattr(scored.errors, name)) for name in OF_ERRORS}
        metrics["icp_fitness"] = scored.registration.fitness
        return Outcome("ok", metrics, f"{text} and masked" if unplaced else "")

    def keep(self) -> None:
        """Write some points of both clouds as they were scored last."""
        if self.kept:
            self._save(CLOUDS, self.kept)


def _some(points: np.ndarray) -> np.ndarray:
    """Return points spread evenly over a cloud."""
    chosen = np.linspace(0, len(points) - 1, min(KEPT_POINTS, len(points))).astype(np.int64)
    return points[chosen].astype(np.float32)
