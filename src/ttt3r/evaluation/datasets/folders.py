"""Sequences of one's own, each a folder in the layout that `Folders.tree` shows."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection, Task
from ttt3r.evaluation.sequences import Item, TrueFrame, known
from ttt3r.evaluation.text import list_files, read_numbers, read_tum, require
from ttt3r.files import as_text
from ttt3r.sources.files import natural_key, visible

IMAGES = (".jpg", ".jpeg", ".png")
# What a task takes beside images.
TAKES: dict[Task, tuple[str, ...]] = {
    "pose": ("poses.txt",),
    "depth": ("depth/",),
    "recon": ("poses.txt", "depth/", "intrinsics.txt"),
}


class Folders(Dataset):
    """Every subfolder of a folder that is a sequence with the truth a task takes.

    A folder that is a sequence itself counts as one that holds just this sequence. Whatever has no
    images in `rgb/` is passed over, and so is a sequence without the files of the truth that the
    task takes. Without time stamps, frame i has the time i seconds. Both variants are the same.
    """

    name = "folder"
    title = "Folder of sequences"
    page = "recordings of your own"
    tree = """\
expected:
  FOLDER/
    rgb/000000.jpg …        one image per frame (jpg or png), in the order of their names
    depth/000000.png …      optional, one per image with the same stem: uint16 mm, 0 = unknown
    poses.txt               optional, one line per image: stamp tx ty tz qx qy qz qw
                            (camera-to-world, OpenCV axes; nan where unknown; # is a comment)
    intrinsics.txt          optional, one line: fx fy cx cy (pixels, centres at integers)"""
    tasks = ("pose", "depth", "recon")

    @classmethod
    def error(cls, problem: str) -> InputError:
        """Return an error that states the problem and the expected folder."""
        return InputError(f"{problem}\nA sequence is a folder in this layout; {cls.tree}")

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return what lies in `root` and suits the task, in the order of the names."""
        with self._explained():
            found = _sequences_in(require(root))
            names = tuple(name for name, path in found.items() if not _missing(path, task))
            if not names:
                raise InputError(
                    f"{root} holds no sequence with the truth that the task {task} takes"
                )
        return names

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the selected frames of a sequence of `root`."""
        found = _sequences_in(root)
        if name not in found:
            raise InputError(f"{root} holds no sequence {name!r}")
        folder = found[name]
        missing = _missing(folder, selection.task)
        if missing:
            raise InputError(
                f"{folder} lacks {' and '.join(missing)}, which {selection.task} takes"
            )
        images = list_files(folder / "rgb", IMAGES)
        depths = list_files(folder / "depth", (".png",)) if selection.task != "pose" else []
        if depths and [path.stem for path in depths] != [path.stem for path in images]:
            raise InputError(
                f"{folder} has {len(images)} images in rgb/ and {len(depths)} maps in "
                "depth/, whose names do not match"
            )
        stamps, poses = _read_poses(folder / "poses.txt", len(images))
        intrinsics = _read_intrinsics(folder / "intrinsics.txt")
        return [
            Item(
                images[i],
                float(stamps[i]),
                known(poses[i]),
                depths[i] if depths else None,
                intrinsics,
            )
            for i in selection.pick(range(len(images)))
        ]

    def frame(self, item: Item) -> TrueFrame:
        """Read a frame, whose depth map must have the size of its image."""
        frame = super().frame(item)
        if frame.depth is not None and frame.depth.shape != frame.image.shape[:2]:
            sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (frame.depth, frame.image)]
            raise self.error(
                f"{item.depth} has {sizes[0]} pixels and its image {sizes[1]}; "
                "bring both to one size."
            )
        return frame


def _sequences_in(root: Path) -> dict[str, Path]:
    """Return `root` if it has images of its own, otherwise its folders that have, by name.

    A link to a folder has a name of its own.
    """
    inside = sorted(visible(root.glob("*/")), key=lambda path: natural_key(path.name))
    folders = [root] if list_files(root / "rgb", IMAGES) else inside
    return {
        as_text(Path(os.path.abspath(folder)).name): folder  # noqa: PTH100 (`resolve` would follow links)
        for folder in folders
        if list_files(folder / "rgb", IMAGES)
    }


def _missing(folder: Path, task: Task) -> list[str]:
    """Return what a task takes and a sequence does not have."""

    def there(name: str) -> bool:
        return bool(list_files(folder / name, (".png",))) or (folder / name).is_file()

    return [name for name in TAKES[task] if not there(name)]


def _read_poses(
    path: Path, count: int
) -> tuple[Float64[np.ndarray, " frames"], Float64[np.ndarray, "frames 4 4"]]:
    """Return stamps and poses; the latter are not finite where unknown."""
    if not path.is_file():
        return np.arange(count, dtype=np.float64), np.full((count, 4, 4), np.nan)
    stamps, poses = read_tum(path)
    if len(poses) != count:
        raise InputError(f"{path} has {len(poses)} poses for {count} images")
    return np.where(np.isfinite(stamps), stamps, np.arange(count)), poses


def _read_intrinsics(path: Path) -> Float64[np.ndarray, "3 3"] | None:
    if not path.is_file():
        return None
    rows = read_numbers(path, 4)
    if len(rows) != 1:
        raise InputError(f"{path} has {len(rows)} lines of numbers instead of one")
    fx, fy, cx, cy = rows[0]
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
