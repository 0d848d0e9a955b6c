"""The freiburg3 recordings of TUM RGB-D in which people sit at a desk or walk around it."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from ttt3r.evaluation.datasets.base import Dataset, FileSequence, Item, Selection, Task, select
from ttt3r.evaluation.sequences import read_numbers
from ttt3r.geometry import se3

PREFIX = "rgbd_dataset_freiburg3_"
SEQUENCES = tuple(
    f"{people}_{camera}"
    for people in ("sitting", "walking")
    for camera in ("static", "xyz", "halfsphere", "rpy")
)
MOST_APART = 0.02  # seconds between an image and its pose
# The owners' calibration of the colour camera of freiburg3, whose images they have undistorted.
INTRINSICS = np.array([[535.4, 0.0, 320.1], [0.0, 539.2, 247.6], [0.0, 0.0, 1.0]])


class TumDynamics(Dataset):
    """Eight recordings with moving people; the camera's path is known from motion capture.

    An image belongs to the pose that `associate_one_to_one` gives it, and images without one are
    left out; stride and number of frames count what remains. A frame's time is the stamp of its
    pose, as in the trajectory files that published results were scored with. Both variants are the
    same.
    """

    name = "tum-dynamics"
    title = "TUM RGB-D (freiburg3, dynamic objects)"
    page = "https://cvg.cit.tum.de/data/datasets/rgbd-dataset/download"
    tree = """\
  ROOT/
    rgbd_dataset_freiburg3_{sitting,walking}_{static,xyz,halfsphere,rpy}/
      rgb.txt            stamp and file of each image
      rgb/*.png
      groundtruth.txt    stamp tx ty tz qx qy qz qw"""
    tasks = ("pose",)

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the names of the eight recordings, without what their folders all begin with."""
        return SEQUENCES

    def open(self, root: Path, sequence: str, selection: Selection) -> FileSequence:
        """Open a recording by its short name ("walking_xyz") or the name of its folder.

        Raises:
            InputError: if it is missing, incomplete or damaged; the message shows `tree` and
                `page`.
        """
        name = sequence.removeprefix(PREFIX)
        folder = self.require(self.require(root) / f"{PREFIX}{name}")
        stamps, files = self._read_images(self.require(folder / "rgb.txt"))
        rows = read_numbers(
            self.require(folder / "groundtruth.txt"),
            columns=8,
            hint=str(self.error("the file is damaged.")),
        )
        poses = se3.pose_from_encoding(torch.from_numpy(rows[:, [1, 2, 3, 7, 4, 5, 6]])).numpy()
        items = [
            Item(
                image=folder / files[i],
                timestamp=float(rows[j, 0]),
                world_from_camera=poses[j] if np.isfinite(poses[j]).all() else None,
            )
            for i, j in associate_one_to_one(stamps, rows[:, 0])
        ]
        if not items:
            raise self.error(
                f"{folder} has no image with a pose less than {MOST_APART} s away "
                f"({len(files)} images, {len(rows)} poses)."
            )
        chosen = select(items, selection)
        for item in chosen:
            self.require(item.image)
        return FileSequence(name, chosen, intrinsics=INTRINSICS, error=self.error)

    def _read_images(self, path: Path) -> tuple[Float64[np.ndarray, " images"], list[str]]:
        """Read the stamps (seconds) and file names that a list of images holds."""
        stamps, files = [], []
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                stamp, file = words
                stamps.append(float(stamp))
            except ValueError:
                raise self.error(f"line {number} of {path} is not a stamp and a file.") from None
            files.append(file)
        return np.array(stamps, dtype=np.float64), files


def associate_one_to_one(
    images: Float64[np.ndarray, " images"],
    poses: Float64[np.ndarray, " poses"],
    most_apart: float = MOST_APART,
) -> list[tuple[int, int]]:
    """Pair two lists of stamps one to one, the closest pair first.

    Of all pairs less than `most_apart` away from each other, the closest is taken; its two stamps
    are gone, and so on. Between equally close pairs the earlier image decides, then the earlier
    pose. This is how the dataset's owners associate their lists.

    Args:
        images: stamps, seconds, in any order.
        poses: stamps, seconds, in any order.
        most_apart: seconds; pairs exactly as far apart as this are not made.

    Returns:
        (position in `images`, position in `poses`), in the order of the image stamps.
    """
    apart = np.abs(images[:, None] - poses)
    candidates = np.argwhere(apart < most_apart)
    image, pose = candidates.T
    closest_first = np.lexsort((poses[pose], images[image], apart[image, pose]))
    paired_images: set[int] = set()
    paired_poses: set[int] = set()
    pairs = []
    for i, j in candidates[closest_first].tolist():
        if i not in paired_images and j not in paired_poses:
            paired_images.add(i)
            paired_poses.add(j)
            pairs.append((i, j))
    return sorted(pairs, key=lambda pair: images[pair[0]])
