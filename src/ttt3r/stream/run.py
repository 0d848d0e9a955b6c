"""A run: the folder that holds all that a session produced.

    run/
      manifest.json            what was run on what, with which settings; status
      frames/000000.safetensors …   one prediction each
      trajectory.tum           one line per frame
      session.safetensors      the session after a recent frame, for resuming

The formats are described in ``docs/run-folder.md``.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttt3r.errors import RunError
from ttt3r.stream import tum
from ttt3r.stream.frame_file import read_pose, read_prediction
from ttt3r.types import Prediction

FORMAT = 1
MANIFEST = "manifest.json"
FRAMES = "frames"
TRAJECTORY = "trajectory.tum"
SESSION = "session.safetensors"
LOCK = ".lock"


def frame_path(folder: Path, index: int) -> Path:
    """Where the frame at `index` is stored."""
    return folder / FRAMES / f"{index:06d}.safetensors"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run.

    Raises:
        RunError: if there is none, or this version cannot read it.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{folder} is not a run: it holds no {MANIFEST}. Give the folder that "
            "`ttt3r run … --out FOLDER` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise RunError(f"{path} has format {found}; this version of ttt3r reads {FORMAT}")
    return manifest


class Run:
    """Read access to a run, also while it is being written.

    Frames are loaded when asked for; nothing is kept. `run[12]` is a `Prediction`, `len(run)` the
    number of frames, and iterating goes through them in order.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open the run in `folder`.

        Raises:
            RunError: if it is not a run.
        """
        folder = Path(folder)
        return cls(folder, read_manifest(folder))

    def __len__(self) -> int:
        """Number of frames that are complete on disk, counted from the first without a gap."""
        names = {path.name for path in (self.folder / FRAMES).glob("[0-9]*.safetensors")}
        count = 0
        while frame_path(self.folder, count).name in names:
            count += 1
        return count

    def __getitem__(self, index: int) -> Prediction:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"the run holds {count} frames; there is no frame {index}")
        return read_prediction(frame_path(self.folder, index % count))

    def __iter__(self) -> Iterator[Prediction]:
        for index in range(len(self)):
            yield read_prediction(frame_path(self.folder, index))

    def trajectory(self) -> tum.Trajectory:
        """Poses of all frames.

        Raises:
            RunError: if the run holds no poses.
        """
        stamps, poses = [], []
        for index in range(len(self)):
            stamp, pose = read_pose(frame_path(self.folder, index))
            if pose is None:
                raise RunError("this run holds no poses; run again with the output 'pose'")
            stamps.append(stamp)
            poses.append(pose)
        return tum.stack(stamps, poses)

    def export(self, format: str, path: str | Path, **options: Any) -> Path:
        """Write the run in another format; see `ttt3r.export` for formats and their options.

        Returns:
            The path written.
        """
        # The one place where `stream` reaches up, so that a run can be exported where it is found.
        return importlib.import_module("ttt3r.export").export(self, format, path, **options)
