"""A run: the folder that holds all that a session produced.

    run/
      manifest.json            what was run on what, with which settings; status
      frames/000000.safetensors …   one prediction each
      trajectory.tum           one line per frame that has a pose
      inputs.txt               size and name of each image file, where the source has them
      summary.png              the run in one picture, once it is complete
      trace.safetensors        what the state did over time, if the run was traced
      segments/000.safetensors …   the state at the end of a segment, with --loops
      placement.json           where the run was moved after it was made, if it was
      session.safetensors      the session after a recent frame, for resuming

The formats are described in ``docs/run-folder.md``.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.files import user_path
from ttt3r.geometry import se3
from ttt3r.runs.frame_file import read_pose, read_prediction
from ttt3r.runs.manifest import read_manifest
from ttt3r.runs.placement import Placement
from ttt3r.runs.trajectory import Trajectory, stack
from ttt3r.types import Prediction

FRAMES = "frames"
TRAJECTORY = "trajectory.tum"
SESSION = "session.safetensors"
INPUTS = "inputs.txt"
SUMMARY = "summary.png"
TRACE = "trace.safetensors"
LOCK = ".lock"


def frame_path(folder: Path, index: int) -> Path:
    """Where the frame at `index` is stored."""
    return folder / f"{FRAMES}/{index:06d}.safetensors"


class SegmentScale(NamedTuple):
    """The factor that lengths of a segment were multiplied with.

    Attributes:
        segment: its number, from 0.
        scale: the factor.
        error: standard error of its natural logarithm, against the first segment's; None if it is
            not known.
    """

    segment: int
    scale: float
    error: float | None


class Run:
    """Read access to a run, also while it is being written.

    Frames are loaded when asked for; nothing is kept. `run[12]` is a `Prediction`, `len(run)` the
    number of frames, and iterating goes through them in order. All frames are read where
    `placement` moves them.
    """

    def __init__(
        self, folder: Path, manifest: dict[str, Any], placement: Placement | None = None
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.placement = Placement() if placement is None else placement
        self._known = 0  # frames found so far

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open the run in `folder`.

        Raises:
            RunError: if it is not a run.
        """
        folder = user_path(folder)
        return cls(folder, read_manifest(folder), Placement.read(folder))

    def __len__(self) -> int:
        """Number of frames that are complete on disk, counted from the first without a gap.

        The folder is listed once. After that, a call looks at the last known frame and the next
        one, so it takes the same time for any length.
        """
        if self._known == 0 or not self._has(self._known - 1):
            names = {path.name for path in (self.folder / FRAMES).glob("[0-9]*.safetensors")}
            self._known = 0
            while frame_path(self.folder, self._known).name in names:
                self._known += 1
        while self._has(self._known):
            self._known += 1
        return self._known

    def _has(self, index: int) -> bool:
        return frame_path(self.folder, index).exists()

    def __getitem__(self, index: int) -> Prediction:
        if not 0 <= index < self._known:
            count = len(self)
            if not -count <= index < count:
                raise IndexError(f"the run holds {count} frames; there is no frame {index}")
            index %= count
        return self.read(index)

    def __iter__(self) -> Iterator[Prediction]:
        for index in range(len(self)):
            yield self.read(index)

    def read(self, index: int, only: tuple[str, ...] | None = None) -> Prediction:
        """Read the frame at `index`, from 0.

        Args:
            index: of the frame.
            only: names of the tensors to read; the others become None.

        Raises:
            RunError: if the frame is missing or damaged.
        """
        return self.placement.move(read_prediction(frame_path(self.folder, index), only))

    def stored(self) -> Iterator[Prediction]:
        """Go through the frames in order, with maps as float16 that stay in their files.

        For programs that look at few pixels of each: only these are read. Of a run that was moved,
        points are float32, so that none is rounded twice.
        """
        for index in range(len(self)):
            prediction = read_prediction(frame_path(self.folder, index), stored=True)
            if self.placement.of(prediction.segment) is not None:
                prediction = prediction.map(Tensor.float)
            yield self.placement.move(prediction)

    def upright(self) -> "Run":
        """The same run in a world whose y points down; see `Placement.upright`."""
        turned = copy.copy(self)
        turned.placement = self.placement.upright()
        return turned

    def stamp(self, index: int) -> float:
        """Read the time of the frame at `index` in seconds.

        Raises:
            RunError: if the frame is missing or damaged.
        """
        return read_pose(frame_path(self.folder, index)).timestamp

    def scales(self) -> list[SegmentScale]:
        """Scales of all segments that have a frame, in order, corrected as frames are.

        Raises:
            RunError: if a frame is missing or damaged.
        """
        found: dict[int, SegmentScale] = {}
        for index in range(len(self)):
            said = read_pose(frame_path(self.folder, index))
            if said.segment not in found:
                moved = self.placement.of(said.segment)
                scale = 1.0 if moved is None else float(se3.similarity_scale(moved))
                found[said.segment] = SegmentScale(
                    said.segment, said.scale * scale, said.scale_error
                )
        return [found[segment] for segment in sorted(found)]

    def trajectory(self) -> Trajectory:
        """Poses of all frames that have one; a frame that could not be placed is left out.

        Raises:
            RunError: if the run was made without poses.
        """
        stamps, poses = [], []
        for index in range(len(self)):
            said = read_pose(frame_path(self.folder, index))
            if said.pose is None:
                raise RunError("this run holds no poses; run again with the output 'pose'")
            if bool(said.pose.isfinite().all()):
                stamps.append(said.timestamp)
                poses.append(self.placement.move_pose(said.segment, said.pose))
        return stack(stamps, poses)
