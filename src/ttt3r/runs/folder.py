"""Where a run is written, and what may be there already."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ttt3r.errors import RunError, SettingError
from ttt3r.files import has_text_name, lock, user_path
from ttt3r.runs import reader as run
from ttt3r.runs.manifest import MANIFEST, read_manifest
from ttt3r.runs.placement import PLACEMENT
from ttt3r.runs.segment_file import SEGMENTS
from ttt3r.values import check_fields

# What a run holds beside its manifest, which goes last.
OWN_FILES = (run.SESSION, run.TRAJECTORY, run.INPUTS, run.SUMMARY, run.TRACE, PLACEMENT)
# What a run calls its frames, and their unfinished files.
SEGMENT_FILE = re.compile(r"\d{3,}\.safetensors|\.\d{3,}\.safetensors\.\d+\.tmp")
FRAME_FILE = re.compile(r"\d{6,}\.safetensors|\.\d{6,}\.safetensors\.\d+\.tmp")


@dataclass(frozen=True)
class RunFolder:
    """Where a run is to be written, and how.

    Args:
        path: the folder; created if absent. `~` stands for the home folder.
        resume: go on with the run that is there; a missing one is started.
        overwrite: replace the run that is there.
        checkpoint_every: frames between two checkpoints; a killed run goes on from the last one.

    Raises:
        SettingError: if the settings contradict each other.
    """

    path: str | Path
    resume: bool = False
    overwrite: bool = False
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        check_fields(self)
        if self.checkpoint_every < 1:
            raise SettingError(f"checkpoint_every must be at least 1, not {self.checkpoint_every}")
        if self.resume and self.overwrite:
            raise SettingError("choose either --resume or --overwrite")

    @property
    def folder(self) -> Path:
        """The folder itself."""
        return user_path(self.path)

    @property
    def frames(self) -> Path:
        """The folder of frame files."""
        return self.folder / run.FRAMES

    @property
    def has_frames(self) -> bool:
        """Whether a frame is there."""
        return any(self.frames.glob("*.safetensors"))

    def check(self) -> None:
        """Check, without changing anything, that a run may be written here.

        A run that stopped before its first frame does not count: there is nothing to lose.

        Raises:
            RunError: if it holds another run, or something else.
        """
        folder, frames = self.folder, self.frames
        if not has_text_name(folder):
            raise RunError(
                f"the name {str(folder)!r} is not valid UTF-8, which frame files need; choose "
                "another output folder"
            )
        if not folder.exists():
            return
        if not folder.is_dir():
            raise RunError(f"{folder} is a file; choose another output folder")
        known = (folder / MANIFEST).exists()
        if not known and any(path.name != run.LOCK for path in folder.iterdir()):
            raise RunError(
                f"{folder} holds other files and no run; choose an empty or new output folder"
            )
        if known:
            read_manifest(folder)  # it may be another program's
        if known and self.overwrite and frames.is_dir():
            others = [path.name for path in frames.iterdir() if not FRAME_FILE.fullmatch(path.name)]
            if others:
                raise RunError(
                    f"{frames} holds files that are not frames of a run ({', '.join(others[:5])}); "
                    "move them away, or choose another output folder"
                )
        if known and self.has_frames and not (self.resume or self.overwrite):
            raise RunError(
                f"{folder} already holds a run; add --resume to continue it, --overwrite to "
                "replace it, or choose another output folder"
            )

    def clear(self) -> None:
        """Delete a run's own files and nothing else; a link to a folder of frames stays."""
        for path in self.frames.iterdir() if self.frames.is_dir() else ():
            if FRAME_FILE.fullmatch(path.name):
                path.unlink()
        for name in (*OWN_FILES, MANIFEST):
            (self.folder / name).unlink(missing_ok=True)
        segments = self.folder / SEGMENTS
        for path in segments.iterdir() if segments.is_dir() else ():
            if SEGMENT_FILE.fullmatch(path.name):
                path.unlink()

    def hold(self) -> BinaryIO:
        """Hold the folder against a second writer; the system lets go if the process dies.

        Raises:
            RunError: if another program holds it, or another part of this one.
        """
        held = lock(self.folder / run.LOCK)
        if held is None:
            raise RunError(
                f"a program is still writing the run in {self.folder}; try again when it is done"
            )
        return held
