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
from ttt3r.evaluation.spool import Spool
from ttt3r.evaluation.store import CLOUDS
from ttt3r.evaluation.tasks.base import Outcome, Recorder, save_arrays
from ttt3r.evaluation.views import prepare_view, unproject
from ttt3r.files import write_atomically
from ttt3r.sources.preprocess import fit
from ttt3r.types import Frame, ImagePolicy, Prediction

KEPT_POINTS = 60_000


class ReconRecorder(Recorder):
    """Pointmaps in the frame of the first camera, predicted and true; see `Recorder`."""

    outputs: ClassVar[tuple[str, ...]] = ("world",)

    def __init__(
        self, protocol: Protocol, sequence: Sequence, policy: ImagePolicy, folder: Path
    ) -> None:
        super().__init__(protocol, sequence, policy, folder)
        self.truth = Spool(folder / ".truth.tmp", np.float32)
        self.valid = Spool(folder / ".valid.tmp", np.bool_)
        self.estimate = Spool(folder / ".estimate.tmp", np.float32)
        self.wrong: list[int] = []  # predictions that are not finite, of each frame
        self.world_from_first: np.ndarray | None = None
        self.unplaced: list[bool] = []  # whether the true pose of a frame is unknown
        self.device = "cpu"
        self.kept: dict[str, np.ndarray] = {}

    @classmethod
    def check(cls, device: str) -> None:
        """Neighbours are searched with SciPy on the processor."""
        Neighbours(np.zeros((1, 3)), device)

    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Keep the true points; images are cut about the principal point."""
        height, width = true.image.shape[:2]
        sides = fit(max(width, height), min(width, height), self.policy).crop[2:]
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
        self.device = prediction.world_points.device.type
        points = prediction.world_points.float().cpu().numpy()
        self.wrong.append(int((~np.isfinite(points)).any(-1).sum()))
        self.estimate.append(points[None])

    def score(self, frames: int) -> Outcome:
        """Match both clouds in depth and size, register them, and compare.

        Views of unknown pose have no points that are true: under the corrected protocol they are
        masked, under the published one the sequence is left out.
        """
        wrong = sum(self.wrong[:frames])
        if wrong:
            first = next(i for i, count in enumerate(self.wrong) if count)
            note = f"{wrong} predicted points are not finite, the first in frame {first}"
            return Outcome("failed", note=note)
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
        half = crop_half_for(self.size[1])
        try:
            aligned = align_clouds(
                self.estimate.rows(frames),
                self.truth.rows(frames),
                valid,
                self.world_from_first,
                half,
            )
            scored = score_clouds(aligned, device=self.device)
        except UnusableTruthError as error:
            return Outcome("dropped", note=str(error))
        except InputError as error:
            return Outcome("failed", note=str(error))
        errors = scored.errors
        self.kept = {"prediction": _some(scored.prediction), "truth": _some(aligned.truth)}
        metrics = {
            "accuracy": errors.accuracy,
            "completeness": errors.completeness,
            "chamfer": errors.chamfer,
            "f_score": errors.f_score,
            "precision": errors.precision,
            "recall": errors.recall,
            "accuracy_median": errors.accuracy_median,
            "completeness_median": errors.completeness_median,
            "icp_fitness": scored.registration.fitness,
        }
        assert errors.normal_consistency is not None
        assert errors.normal_consistency_median is not None
        metrics["normal_consistency"] = errors.normal_consistency
        metrics["normal_consistency_median"] = errors.normal_consistency_median
        return Outcome("ok", metrics, f"{text} and masked" if unplaced else "")

    def keep(self) -> None:
        """Write some points of both clouds as they were scored last."""
        if self.kept:
            write_atomically(self.folder / CLOUDS, lambda path: save_arrays(path, self.kept))

    def close(self) -> None:
        """Delete the spools."""
        for spool in (self.truth, self.valid, self.estimate):
            spool.close()


def _some(points: np.ndarray) -> np.ndarray:
    """Return points spread evenly over a cloud."""
    chosen = np.linspace(0, len(points) - 1, min(KEPT_POINTS, len(points))).astype(np.int64)
    return points[chosen].astype(np.float32)
