"""NRGBD: rendered rooms with exact depth, made for Neural RGB-D Surface Reconstruction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, FileSequence, Item, Selection, Task, select
from ttt3r.evaluation.datasets.seven_scenes import read_near_depth
from ttt3r.evaluation.sequences import list_files, read_numbers

SCENES = (
    "breakfast_room",
    "complete_kitchen",
    "green_room",
    "grey_white_room",
    "kitchen",
    "morning_apartment",
    "staircase",
    "thin_geometry",
    "whiteroom",
)
FOCAL = 554.2562584220408  # pixels: 60 degrees over 640 columns
CENTER = (320.0, 240.0)
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # and back: the camera's y and z turn round


class Nrgbd(Dataset):
    """The nine rendered rooms of Neural RGB-D Surface Reconstruction (arXiv 2104.04532).

    The exact maps in `depth/` are read, not the noisy or filtered ones. A stride above half the
    number of images is lowered to that half, as published results did, so that every room gives at
    least two views. Frame i has the time i seconds, as no rate is known.

    Where a camera is unknown (nan), published results put it at the world's origin: the identity
    among the stored matrices. The "corrected" variant leaves it unknown.
    """

    name = "nrgbd"
    title = "NRGBD (Neural RGB-D Surface Reconstruction)"
    page = "https://github.com/dazinovic/neural-rgbd-surface-reconstruction"
    tree = """\
  ROOT/
    breakfast_room/ …       one folder per room
      images/img0.png …     640x480
      depth/depth0.png …    uint16 mm, 0 = unknown
      poses.txt             4 lines of 4 numbers per image: camera-to-world, OpenGL axes
                            (nan where unknown)
      focal.txt             optional: focal length in pixels"""
    tasks = ("recon", "pose")

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the nine rooms in the order of their names."""
        return SCENES

    def open(self, root: Path, sequence: str, selection: Selection) -> FileSequence:
        """Open a room."""
        folder = self.require(root / sequence)
        items = self._items(folder, selection.variant == "published")
        stride = max(1, min(selection.stride, len(items) // 2))
        chosen = select(items, replace(selection, stride=stride))
        for item in chosen:
            if item.depth is not None:
                self.require(item.depth)
        return FileSequence(
            sequence, chosen, read_near_depth, self._intrinsics(folder), error=self.error
        )

    def _items(self, folder: Path, identity_for_unknown: bool) -> list[Item]:
        """All images in the order of their numbers, which say little about that of their names."""
        images = {
            int(number): path
            for path in list_files(folder / "images", (".png",))
            if (number := path.stem.removeprefix("img")).isdecimal() and path.stem != number
        }
        if not images:
            raise self.error(f"{folder / 'images'} holds no images.")
        gaps = sorted(set(range(len(images))) - set(images))
        if gaps:
            raise self.error(f"{folder / 'images' / f'img{gaps[0]}.png'} does not exist.")
        poses = self._numbers(folder / "poses.txt", 4)
        if len(poses) != 4 * len(images):
            raise self.error(
                f"{folder / 'poses.txt'} has {len(poses)} lines for {len(images)} images, "
                "not 4 for each."
            )
        return [
            Item(
                images[i],
                float(i),
                _opencv_pose(pose, identity_for_unknown),
                folder / "depth" / f"depth{i}.png",
            )
            for i, pose in enumerate(poses.reshape(-1, 4, 4))
        ]

    def _intrinsics(self, folder: Path) -> Float64[np.ndarray, "3 3"]:
        focal = FOCAL
        if (folder / "focal.txt").exists():
            rows = self._numbers(folder / "focal.txt", 1)
            if len(rows) != 1 or not 0 < rows[0, 0] < np.inf:
                raise self.error(f"{folder / 'focal.txt'} is not one focal length in pixels.")
            focal = float(rows[0, 0])
        return np.array([[focal, 0.0, CENTER[0]], [0.0, focal, CENTER[1]], [0.0, 0.0, 1.0]])

    def _numbers(self, path: Path, columns: int) -> Float64[np.ndarray, "rows columns"]:
        try:
            return read_numbers(self.require(path), columns, hint="unpack the room again")
        except InputError as error:
            raise self.error(f"{error}.") from error


def _opencv_pose(
    stored: Float64[np.ndarray, "4 4"], identity_for_unknown: bool
) -> Float64[np.ndarray, "4 4"] | None:
    if not np.isfinite(stored).all():
        if not identity_for_unknown:
            return None
        stored = np.eye(4)
    return stored @ OPENCV_FROM_OPENGL
