"""The freiburg3 recordings of TUM RGB-D in which people sit at a desk or walk around it."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.sequences import Item, known
from ttt3r.evaluation.text import read_rows, read_tum, require

MOST_APART = 0.02  # seconds between an image and its pose


class TumDynamics(Dataset):
    """Eight recordings with moving people; the camera's path is known from motion capture.

    An image belongs to the pose that `associate_one_to_one` gives it, and images without one are
    left out; stride and number of frames count what remains. A frame's time is the stamp of its
    pose, as in the trajectory files that published results were scored with. Both variants are the
    same. The intrinsics are the owners' calibration of the colour camera of freiburg3, whose images
    they have undistorted.
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
    names = tuple(
        f"{people}_{camera}"
        for people in ("sitting", "walking")
        for camera in ("static", "xyz", "halfsphere", "rpy")
    )
    prefix = "rgbd_dataset_freiburg3_"
    intrinsics = np.array([[535.4, 0.0, 320.1], [0.0, 539.2, 247.6], [0.0, 0.0, 1.0]])

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the images of a recording such as "walking_xyz" that have a pose."""
        folder = require(root / f"{self.prefix}{name}")
        stamps, files = _read_images(folder / "rgb.txt")
        of_poses, poses = read_tum(folder / "groundtruth.txt")
        pairs = associate_one_to_one(stamps, of_poses)
        if not pairs:
            raise InputError(
                f"{folder} has no image with a pose less than {MOST_APART} s away "
                f"({len(files)} images, {len(poses)} poses)"
            )
        return [
            Item(folder / files[i], float(of_poses[j]), known(poses[j]))
            for i, j in selection.pick(pairs)
        ]


def _read_images(path: Path) -> tuple[Float64[np.ndarray, " images"], list[str]]:
    """Read the stamps (seconds) and file names that a list of images holds."""
    stamps, files = [], []
    for number, words in read_rows(path):
        try:
            stamp, file = words
            stamps.append(float(stamp))
        except ValueError:
            raise InputError(f"line {number} of {path} is not a stamp and a file") from None
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
