"""NRGBD: rendered rooms with exact depth, made for Neural RGB-D Surface Reconstruction."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.datasets.seven_scenes import read_near_depth
from ttt3r.evaluation.sequences import Item
from ttt3r.evaluation.text import list_files, read_numbers, require

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
    names = (
        *("breakfast_room", "complete_kitchen", "green_room", "grey_white_room", "kitchen"),
        *("morning_apartment", "staircase", "thin_geometry", "whiteroom"),
    )

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the images of a room in the order of their numbers."""
        folder = require(root / name)
        images = _images(folder / "images")
        poses = read_numbers(folder / "poses.txt", 4)
        if len(poses) != 4 * len(images):
            raise InputError(
                f"{folder / 'poses.txt'} has {len(poses)} lines for {len(images)} images, not 4 "
                "for each"
            )
        intrinsics = _intrinsics(folder / "focal.txt")
        published = selection.variant == "published"
        items = [
            Item(
                images[i],
                float(i),
                _opencv_pose(pose, identity_for_unknown=published),
                folder / "depth" / f"depth{i}.png",
                intrinsics,
            )
            for i, pose in enumerate(poses.reshape(-1, 4, 4))
        ]
        stride = max(1, min(selection.stride, len(items) // 2))
        return list(replace(selection, stride=stride).pick(items))

    def read_depth(self, path: Path) -> Float[np.ndarray, "height width"]:
        """Read a depth map as those of 7-Scenes are read."""
        return read_near_depth(path)


def _images(folder: Path) -> dict[int, Path]:
    """Return all images by their numbers, which begin at 0 and have no gap."""
    images = {
        int(number): path
        for path in list_files(folder, (".png",))
        if (number := path.stem.removeprefix("img")).isdecimal() and path.stem != number
    }
    if not images:
        raise InputError(f"{folder} holds no images")
    for number in range(len(images)):
        if number not in images:
            raise InputError(f"{folder / f'img{number}.png'} does not exist")
    return images


def _intrinsics(path: Path) -> Float64[np.ndarray, "3 3"]:
    focal = FOCAL
    if path.exists():
        rows = read_numbers(path, 1)
        if len(rows) != 1 or not 0 < rows[0, 0] < np.inf:
            raise InputError(f"{path} is not one focal length in pixels")
        focal = float(rows[0, 0])
    return np.array([[focal, 0.0, CENTER[0]], [0.0, focal, CENTER[1]], [0.0, 0.0, 1.0]])


def _opencv_pose(
    stored: Float64[np.ndarray, "4 4"], *, identity_for_unknown: bool
) -> Float64[np.ndarray, "4 4"] | None:
    if not np.isfinite(stored).all():
        if not identity_for_unknown:
            return None
        stored = np.eye(4)
    return stored @ OPENCV_FROM_OPENGL
