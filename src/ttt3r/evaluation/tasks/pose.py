"""Camera poses: trajectory errors after a similarity, and the accuracy of all pairs of frames."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics import trajectory
from ttt3r.evaluation.metrics.pairs import pair_accuracy
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.evaluation.store import ESTIMATE, TRUTH
from ttt3r.evaluation.tasks.base import Outcome, Recorder
from ttt3r.files import write_atomically, write_text
from ttt3r.runs.trajectory import tum_line
from ttt3r.sources import prepare_frame
from ttt3r.types import Frame, Prediction, Preparation

UNKNOWN = np.full((4, 4), np.nan)
CLOSE_DEG = 15.0  # below it the relative pose of two frames counts as right
WALKS = 8  # random walks that are averaged


class PoseRecorder(Recorder):
    """Poses of all frames; see `Recorder`."""

    outputs: ClassVar[tuple[str, ...]] = ("pose",)

    def __init__(
        self, protocol: Protocol, sequence: Sequence, preparation: Preparation, folder: Path
    ) -> None:
        super().__init__(protocol, sequence, preparation, folder)
        self.stamps: list[float] = []
        self.truth: list[np.ndarray] = []
        self.estimate: list[np.ndarray] = []

    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Take the true pose; images are cropped about the centre."""
        self.stamps.append(true.timestamp)
        pose = true.world_from_camera
        self.truth.append(UNKNOWN if pose is None else pose)
        return prepare_frame(frame, self.preparation)

    def take(self, prediction: Prediction) -> None:
        """Take the predicted pose."""
        assert prediction.world_from_camera is not None
        self.estimate.append(prediction.world_from_camera.double().cpu().numpy())

    def score(self, frames: int) -> Outcome:
        """Compare the trajectories.

        Published results left out a sequence with any unknown pose; the corrected protocol leaves
        out the pose.
        """
        estimate, truth = np.stack(self.estimate[:frames]), np.stack(self.truth[:frames])
        good, known = trajectory.finite_poses(estimate), trajectory.finite_poses(truth)
        if not good.all():
            note = f"{int((~good).sum())} predicted poses are not finite, the first of frame "
            return Outcome("failed", note=note + str(int(good.argmin())))
        unknown = int((~known).sum())
        note = f"{unknown} of {len(truth)} true poses are unknown" if unknown else ""
        if unknown and self.protocol.variant == "published":
            return Outcome("dropped", note=note)
        try:  # does the truth allow a score, whatever was predicted?
            baselines = without_images(truth, known)
        except InputError as error:
            return Outcome("dropped", note=str(error))
        try:
            errors = trajectory.trajectory_errors(estimate, truth, "sim3", known)
            rotation = trajectory.rotation_error_deg(estimate, truth, known)
            pairs = pair_accuracy(estimate, truth, (CLOSE_DEG,), known)
        except InputError as error:
            return Outcome("failed", note=str(error))
        metrics = {
            "ate": errors.ate,
            "rpe_translation": errors.rpe_translation,
            "rpe_rotation": errors.rpe_rotation_deg,
            "rotation": rotation,
            "auc_30": pairs.auc,
            "rra_15": pairs.rra[CLOSE_DEG],
            "rta_15": pairs.rta[CLOSE_DEG],
            "ate_of_path": errors.ate / trajectory.path_length(truth, known),
            "scale": errors.scale,
        }
        return Outcome("ok", metrics | baselines, f"{note} and masked" if note else "")

    def keep(self) -> None:
        """Write both trajectories in the format of the TUM RGB-D benchmark."""
        for name, poses in ((ESTIMATE, self.estimate), (TRUTH, self.truth)):
            pairs = zip(self.stamps, poses[: len(self.estimate)], strict=False)
            text = "".join(tum_line(stamp, torch.from_numpy(pose)) for stamp, pose in pairs)
            write_atomically(
                self.folder / name,
                lambda path, text=text: write_text(path, text),
            )


def without_images(
    truth: Float64[np.ndarray, "n 4 4"], known: Bool[np.ndarray, " n"]
) -> dict[str, float]:
    """Return what answers score that use no image: a still camera, and random walks.

    The best place of a still camera is the mean of the true positions, so its ATE is their RMS
    distance from that: the largest error that any estimate can have after the fit of a similarity.
    A random walk has steps of independent normal numbers; its ATE is the mean over `WALKS` of them.

    Raises:
        InputError: if the truth allows no score.
    """
    still = np.tile(np.eye(4), (len(truth), 1, 1))
    positions = truth[known, :3, 3]
    walks = []
    for seed in range(WALKS):
        walk = still.copy()
        steps = np.random.default_rng([seed, len(truth)]).normal(size=(len(truth), 3))
        walk[:, :3, 3] = steps.cumsum(0)
        walks.append(trajectory.ate(walk, truth, "sim3", known))
    return {
        "ate_static": float(np.sqrt(np.square(positions - positions.mean(0)).sum(-1).mean())),
        "ate_walk": float(np.mean(walks)),
        "rotation_static": trajectory.rotation_error_deg(still, truth, known),
    }
