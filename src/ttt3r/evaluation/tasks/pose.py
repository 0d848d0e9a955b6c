"""Camera poses: trajectory errors after a similarity, and the accuracy of all pairs of frames."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.baselines import static_camera_errors
from ttt3r.evaluation.metrics import trajectory
from ttt3r.evaluation.metrics.pairs import pair_accuracy
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.sequences import Sequence, TrueFrame, read_numbers
from ttt3r.evaluation.store import ESTIMATE, TRUTH
from ttt3r.evaluation.tasks.base import Outcome, Recorder
from ttt3r.files import write_atomically
from ttt3r.geometry import se3
from ttt3r.sources import prepare_frame
from ttt3r.stream import tum
from ttt3r.types import Frame, ImagePolicy, Prediction

UNKNOWN = np.full((4, 4), np.nan)
CLOSE_DEG = 15.0  # below it the relative pose of two frames counts as right


class PoseRecorder(Recorder):
    """Poses of all frames; see `Recorder`."""

    outputs: ClassVar[tuple[str, ...]] = ("pose",)

    def __init__(
        self, protocol: Protocol, sequence: Sequence, policy: ImagePolicy, folder: Path
    ) -> None:
        super().__init__(protocol, sequence, policy, folder)
        self.stamps: list[float] = []
        self.truth: list[np.ndarray] = []
        self.estimate: list[np.ndarray] = []

    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Take the true pose; images are cropped about the centre."""
        self.stamps.append(true.timestamp)
        pose = true.world_from_camera
        self.truth.append(UNKNOWN if pose is None else pose)
        return prepare_frame(frame, self.policy)

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
        if unknown and self.protocol.variant == "published":
            note = f"{unknown} of {len(truth)} true poses are unknown"
            return Outcome("dropped", note=note)
        try:  # does the truth allow a score, whatever was predicted?
            trajectory.trajectory_errors(
                np.where(known[:, None, None], truth, np.eye(4)), truth, "sim3", known
            )
            still = static_camera_errors(truth, known)
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
            "auc_30": 100.0 * pairs.auc,
            "rra_15": 100.0 * pairs.rra[CLOSE_DEG],
            "rta_15": 100.0 * pairs.rta[CLOSE_DEG],
            "ate_percent": 100.0 * errors.ate / trajectory.path_length(truth, known),
            "ate_static": still.ate,
            "scale": errors.scale,
        }
        note = f"{unknown} of {len(truth)} true poses are unknown and masked" if unknown else ""
        return Outcome("ok", metrics, note)

    def keep(self) -> None:
        """Write both trajectories in the format of the TUM RGB-D benchmark."""
        for name, poses in ((ESTIMATE, self.estimate), (TRUTH, self.truth)):
            lines = [
                tum.tum_line(stamp, torch.from_numpy(pose))
                for stamp, pose in zip(self.stamps, poses[: len(self.estimate)], strict=False)
            ]
            write_atomically(self.folder / name, lambda path, text=lines: _write(path, text))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(lines), "ascii", newline="\n")


def read_trajectories(
    folder: Path,
) -> tuple[Float64[np.ndarray, "frames 4 4"], Float64[np.ndarray, "frames 4 4"]]:
    """Return the estimate and the truth that `PoseRecorder.keep` left in a folder.

    Raises:
        InputError: if they cannot be read.
    """
    estimate, truth = (
        se3.pose_from_encoding(
            torch.from_numpy(
                read_numbers(folder / name, 8, "evaluate again")[:, [1, 2, 3, 7, 4, 5, 6]]
            )
        ).numpy()
        for name in (ESTIMATE, TRUTH)
    )
    return estimate, truth
