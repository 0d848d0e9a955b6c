"""Bonn RGB-D Dynamic: people and balloons before a hand-held depth camera."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.sequences import Item, read_depth
from ttt3r.evaluation.text import list_files, read_tum, require

SKIPPED = 30  # images before the first one shown
MOST_APART = 0.02  # seconds between an image and its depth map
DEPTH_UNIT = 1.0 / 5000.0  # metres


class Bonn(Dataset):
    """Five recordings for depth, from their 31st image on.

    "published" pairs the i-th image with the i-th depth map, as published results did. The two
    streams drop images on their own, so pairs drift apart; the sequence ends where the shortest of
    both streams and of the lines in groundtruth.txt ends. "corrected" pairs an image with the depth
    map whose stamp is nearest and leaves out images for which none is within 0.02 s.

    Camera poses are not offered: groundtruth.txt holds the poses of the markers on the camera, with
    the axes of the motion capture. They become the camera's by a calibration on the owners' page,
    which is not applied here because its result has not been checked.

    The intrinsics are the owners' calibration of the colour camera, to which they have registered
    the depth. Their images are not undistorted, and neither are they here.
    """

    name = "bonn"
    title = "Bonn RGB-D Dynamic"
    page = "https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset/"
    tree = """\
  ROOT/                      or ROOT/rgbd_bonn_dataset/
    rgbd_bonn_{balloon2,crowd2,crowd3,person_tracking2,synchronous}/
      rgb/<stamp>.png
      depth/<stamp>.png      16 bits, 1/5000 m
      groundtruth.txt        stamp tx ty tz qx qy qz qw"""
    tasks = ("depth",)
    names = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
    prefix = "rgbd_bonn_"
    above = "rgbd_bonn_dataset"
    intrinsics = np.array(
        [[542.822841, 0.0, 315.593520], [0.0, 542.576870, 237.756098], [0.0, 0.0, 1.0]]
    )

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the pairs of images and depth maps of a recording such as "balloon2"."""
        folder = require(root / f"{self.prefix}{name}")
        images = list_files(require(folder / "rgb"), (".png",))
        depths = list_files(require(folder / "depth"), (".png",))
        if selection.variant == "published":
            count = min(len(images), len(depths), len(read_tum(folder / "groundtruth.txt")[0]))
            pairs = list(zip(images[SKIPPED:count], depths[SKIPPED:count], strict=True))
        else:
            stamps = np.array([_stamp(path) for path in depths], dtype=np.float64)
            found = [(image, nearest(_stamp(image), stamps)) for image in images[SKIPPED:]]
            pairs = [(image, depths[j]) for image, j in found if j is not None]
        if not pairs:
            raise InputError(
                f"{folder} has {len(images)} images and {len(depths)} depth maps, of which no pair "
                f"remains after the first {SKIPPED}"
            )
        return [Item(image, _stamp(image), depth=depth) for image, depth in selection.pick(pairs)]

    def read_depth(self, path: Path) -> Float[np.ndarray, "height width"]:
        """Read a depth map in float64, in which published results were scored."""
        return read_depth(path, DEPTH_UNIT, np.float64)


def _stamp(path: Path) -> float:
    """Return the time in seconds that a file is named by."""
    try:
        return float(path.stem)
    except ValueError:
        raise InputError(f"{path} is not named by a time stamp; take it away") from None


def nearest(
    stamp: float, stamps: Float64[np.ndarray, " stamps"], most_apart: float = MOST_APART
) -> int | None:
    """Return the position of the nearest stamp, the first of equals; None if none is near.

    Args:
        stamp: seconds.
        stamps: seconds, in any order.
        most_apart: seconds between them at most.
    """
    apart = np.abs(stamps - stamp)
    j = int(apart.argmin()) if len(stamps) else 0
    return j if len(stamps) and apart[j] <= most_apart else None
