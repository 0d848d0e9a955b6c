"""Sequences of one's own, each a folder in the layout of `FolderSequence`."""

from collections.abc import Iterator
from pathlib import Path

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection, Task
from ttt3r.evaluation.sequences import (
    IMAGES,
    TREE,
    FolderSequence,
    TrueFrame,
    folder_name,
    list_files,
)


class Folders(Dataset):
    """Every subfolder of a folder that is a sequence with the truth a task takes.

    A folder that is a sequence itself counts as one that holds just this sequence. Whatever has no
    images in `rgb/` is passed over, and so is a sequence without the truth the task takes; broken
    sequences are errors. Both variants are the same.
    """

    name = "folder"
    title = "Folder of sequences"
    page = "recordings of your own"
    tree = TREE
    tasks = ("pose", "depth", "recon")

    @classmethod
    def error(cls, problem: str) -> InputError:
        """Return an error that states the problem and the expected folder."""
        return InputError(f"{problem}\nA sequence is a folder in this layout; {cls.tree}")

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return what lies in `root` and suits the task, in the order of the names."""
        self.require(root)
        found = [FolderSequence(path) for path in _candidates(root)]
        names = tuple(sequence.name for sequence in found if not _missing(sequence, task))
        if not names:
            raise self.error(f"{root} holds no sequence with the truth that the task {task} takes.")
        return names

    def open(self, root: Path, sequence: str, selection: Selection) -> "ChosenFrames":
        """Open a sequence of `root`."""
        known = {folder_name(path): path for path in _candidates(self.require(root))}
        if sequence not in known:
            raise self.error(f"{root} holds no sequence {sequence!r}.")
        folder = FolderSequence(known[sequence])
        missing = _missing(folder, selection.task)
        if missing:
            lacks = " and ".join(missing)
            raise self.error(f"{folder.path} lacks {lacks}, which {selection.task} takes.")
        frames = range(len(folder))[:: selection.stride][: selection.frames]
        return ChosenFrames(folder, frames, with_depth=selection.task != "pose")


class ChosenFrames:
    """Some frames of a folder; the others are not read.

    Args:
        folder: a sequence.
        frames: which of its frames.
        with_depth: whether depth maps are read.
    """

    def __init__(self, folder: FolderSequence, frames: range, with_depth: bool) -> None:
        self.name = folder.name
        self._folder, self._frames, self._with_depth = folder, frames, with_depth

    @property
    def digest(self) -> str:
        """What tells the folder from others of its name."""
        return self._folder.digest

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[TrueFrame]:
        for index in self._frames:
            yield self._folder.frame(index, with_depth=self._with_depth)


def _candidates(root: Path) -> list[Path]:
    """`root` if it has images of its own, otherwise its folders that have."""
    folders = [root] if list_files(root / "rgb", IMAGES) else sorted(root.glob("*/"))
    return [folder for folder in folders if list_files(folder / "rgb", IMAGES)]


def _missing(sequence: FolderSequence, task: Task) -> list[str]:
    """What a task takes and a sequence does not know."""
    known = {
        "poses.txt": sequence.has_poses or task == "depth",
        "depth/": sequence.has_depth or task == "pose",
        "intrinsics.txt": sequence.has_intrinsics or task != "recon",
    }
    return [what for what, there in known.items() if not there]
