"""Bonn RGB-D Dynamic: people and balloons before a hand-held depth camera."""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ttt3r.evaluation.datasets.base import Dataset, FileSequence, Item, Selection, Task, select
from ttt3r.evaluation.sequences import list_files, read_depth, read_numbers

PREFIX = "rgbd_bonn_"
ABOVE = "rgbd_bonn_dataset"  # the folder in the archive of all recordings
SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
SKIPPED = 30  # images before the first one shown
MOST_APART = 0.02  # seconds between an image and its depth map
DEPTH_UNIT = 1.0 / 5000.0  # metres
# The owners' calibration of the colour camera, to which they have registered the depth. Their
# images are not undistorted, and neither are they here.
INTRINSICS = np.array([[542.822841, 0.0, 315.593520], [0.0, 542.576870, 237.756098], [0, 0, 1.0]])


class Bonn(Dataset):
    """Five recordings for depth, from their 31st image on.

    "published" pairs the i-th image with the i-th depth map, as published results did. The two
    streams drop images on their own, so pairs drift apart; the sequence ends where the shortest of
    both streams and of the lines in groundtruth.txt ends. "corrected" pairs an image with the depth
    map whose stamp is nearest and leaves out images for which none is within 0.02 s.

    Camera poses are not offered: groundtruth.txt holds the poses of the markers on the camera, with
    the axes of the motion capture. They become the camera's by a calibration on the owners' page,
    which is not applied here because its result has not been checked.
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

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the names of five recordings, without what their folders all begin with."""
        return SEQUENCES

    def open(self, root: Path, sequence: str, selection: Selection) -> FileSequence:
        """Open a recording by its short name ("balloon2") or the name of its folder.

        Raises:
            InputError: if it is missing, incomplete or damaged; the message shows `tree` and
                `page`.
        """
        name = sequence.removeprefix(PREFIX)
        above = self.require(root) / ABOVE
        folder = self.require((above if above.is_dir() else root) / f"{PREFIX}{name}")
        images = list_files(self.require(folder / "rgb"), (".png",))
        depths = list_files(self.require(folder / "depth"), (".png",))
        if selection.variant == "published":
            poses = self._count_poses(self.require(folder / "groundtruth.txt"))
            count = min(len(images), len(depths), poses)
            pairs = list(zip(images[SKIPPED:count], depths[SKIPPED:count], strict=True))
        else:
            pairs = self._nearest(images[SKIPPED:], depths)
        if not pairs:
            raise self.error(
                f"{folder} has {len(images)} images and {len(depths)} depth maps, of which no pair "
                f"remains after the first {SKIPPED}."
            )
        items = [Item(image, self._stamp(image), depth=depth) for image, depth in pairs]
        chosen = select(items, selection)
        return FileSequence(
            name,
            chosen,
            partial(read_depth, unit=DEPTH_UNIT, dtype=np.float64),
            INTRINSICS,
            self.error,
        )

    def _count_poses(self, path: Path) -> int:
        hint = str(self.error("the file is damaged."))
        return len(read_numbers(path, columns=8, hint=hint))

    def _nearest(self, images: list[Path], depths: list[Path]) -> list[tuple[Path, Path]]:
        stamps = np.array([self._stamp(path) for path in depths], dtype=np.float64)
        pairs = []
        for image in images:
            j = nearest(self._stamp(image), stamps)
            if j is not None:
                pairs.append((image, depths[j]))
        return pairs

    def _stamp(self, path: Path) -> float:
        """Return the time in seconds that a file is named by."""
        try:
            return float(path.stem)
        except ValueError:
            raise self.error(f"{path} is not named by a time stamp; take it away.") from None


def nearest(
    stamp: float, stamps: Float64[np.ndarray, " stamps"], most_apart: float = MOST_APART
) -> int | None:
    """Return the position of the nearest stamp, the first of equals; None if none is near.

    Args:
        stamp: seconds.
        stamps: seconds, in any order.
        most_apart: seconds between them at most.
    """
    if not len(stamps):
        return None
    apart = np.abs(stamps - stamp)
    j = int(apart.argmin())
    return j if apart[j] <= most_apart else None
