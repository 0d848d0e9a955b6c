"""7-Scenes: small indoor scenes, recorded with a hand-held Kinect and tracked by fusing its depth.

The depth and the colour camera are not registered: depth maps and poses are those of the depth
camera, images are those of the colour camera, 2.6 cm beside it.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, FileSequence, Item, Selection, Task, select
from ttt3r.evaluation.datasets.depth_projection import project_depth
from ttt3r.evaluation.sequences import list_files, read_depth, read_numbers

TEST_SEQUENCES = {
    "chess": (3, 5),
    "fire": (3, 4),
    "heads": (1,),
    "office": (2, 6, 7, 9),
    "pumpkin": (1, 7),
    "redkitchen": (3, 4, 6, 12, 14),
    "stairs": (1, 4),
}
SIZE = (480, 640)  # height and width of all images and maps
RATE = 30.0  # frames per second
COLOR_INTRINSICS = np.array([[525.0, 0.0, 320.0], [0.0, 525.0, 240.0], [0.0, 0.0, 1.0]])
DEPTH_INTRINSICS = np.array([[585.0, 0.0, 320.0], [0.0, 585.0, 240.0], [0.0, 0.0, 1.0]])
# The owners give none. This is that of another Kinect (LIRIS), which the field has agreed on.
COLOR_FROM_DEPTH = np.array(
    [
        [0.99996518, 0.00267651, -0.00790410, -0.02555894],
        [-0.00274093, 0.99996303, -0.00815045, 0.00010110],
        [0.00788199, 0.00817183, 0.99993555, 0.00203183],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
NEAREST, FARTHEST = 1e-3, 10.0  # metres; depth outside is unknown


class SevenScenes(Dataset):
    """The 18 test sequences of 7-Scenes, 500 or 1000 frames each.

    Depth in the colour camera is read from `frame-*.depth.proj.png` where somebody prepared it;
    elsewhere the owners' `frame-*.depth.png` is projected while it is read.

    Poses are published as if they were the colour camera's. The "corrected" variant moves them
    there, world_from_color = world_from_depth · (color_from_depth)⁻¹, so that the truth no longer
    contains an offset of 2.6 cm and 0.7° from the camera that took the images. Both variants take
    the same frames.

    A `TestSplit.txt` that leaves out one of the 18 sequences is an error, since the folders are
    then not what published tables call by these names. Without that file nothing is checked.
    """

    name = "7scenes"
    title = "7-Scenes"
    page = "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/"
    tree = """\
  ROOT/
    chess/ fire/ heads/ office/ pumpkin/ redkitchen/ stairs/
      TestSplit.txt         optional: sequence3 …, one per line
      seq-03/ …             unpacked, with
        frame-000000.color.png …        640x480
        frame-000000.pose.txt …         4x4 matrix of the depth camera, camera-to-world
        frame-000000.depth.png …        uint16 mm of the depth camera, 65535 = unknown
        frame-000000.depth.proj.png …   optional, read instead: the same in the colour camera"""
    tasks = ("recon", "pose")

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the 18 test sequences."""
        return tuple(
            f"{scene}/seq-{number:02d}"
            for scene, numbers in TEST_SEQUENCES.items()
            for number in numbers
        )

    def open(self, root: Path, sequence: str, selection: Selection) -> FileSequence:
        """Open a sequence, such as "chess/seq-03"; time is counted at 30 frames per second."""
        folder = root / sequence
        packed = folder.with_name(f"{folder.name}.zip")
        if packed.is_file() and not folder.is_dir():
            raise self.error(f"{packed} is still packed; unpack it.")
        self.require(folder)
        self._check_split(root, sequence)
        count = sum(path.name.endswith(".color.png") for path in list_files(folder, (".png",)))
        if not count:
            raise self.error(f"{folder} holds no images.")
        frames = [folder / f"frame-{i:06d}" for i in range(count)]
        items = [Item(Path(f"{frame}.color.png"), i / RATE) for i, frame in enumerate(frames)]
        chosen = [
            self._with_truth(item, str(item.image).removesuffix(".color.png"), selection)
            for item in select(items, selection)
        ]
        return FileSequence(sequence, chosen, read_color_depth, COLOR_INTRINSICS, error=self.error)

    def _with_truth(self, item: Item, frame: str, selection: Selection) -> Item:
        self.require(item.image)
        pose = self._read_pose(Path(f"{frame}.pose.txt"), selection)
        if selection.task == "pose":
            return replace(item, world_from_camera=pose)
        projected = Path(f"{frame}.depth.proj.png")
        depth = projected if projected.exists() else self.require(Path(f"{frame}.depth.png"))
        return replace(item, world_from_camera=pose, depth=depth)

    def _read_pose(self, path: Path, selection: Selection) -> Float64[np.ndarray, "4 4"] | None:
        try:
            pose = read_numbers(self.require(path), 4, hint="unpack the sequence again")
        except InputError as error:
            raise self.error(f"{error}.") from error
        if pose.shape != (4, 4):
            raise self.error(f"{path} has {len(pose)} lines of numbers instead of 4.")
        if not np.isfinite(pose).all():
            return None
        if selection.variant == "corrected":
            return pose @ np.linalg.inv(COLOR_FROM_DEPTH)
        return pose

    def _check_split(self, root: Path, sequence: str) -> None:
        path = (root / sequence).parent / "TestSplit.txt"
        if not path.is_file() or sequence not in self.sequences(root, "recon"):
            return
        try:
            lines = path.read_text("utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(f"{path} cannot be read: {error}.") from error
        numbers = [re.fullmatch(r"sequence(\d+)", line) for line in lines]
        listed = [f"seq-{int(number[1]):02d}" for number in numbers if number]
        if len(listed) < len(lines):
            raise self.error(f"{path} has lines that name no sequence, such as sequence1.")
        if Path(sequence).name not in listed:
            raise self.error(f"{path} does not list {sequence}, which published tables contain.")


def read_near_depth(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a depth map in millimetres; what is nearer than 1 mm or farther than 10 m is unknown.

    Raises:
        InputError: if it cannot be read, or is no such map.
    """
    return _near(read_depth(path))


def read_color_depth(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a depth map in the colour camera; one of the depth camera is projected into it.

    Args:
        path: named `*.depth.proj.png` or `*.depth.png`.

    Raises:
        InputError: if it cannot be read, or is no such map.
    """
    depth = read_near_depth(path)
    if depth.shape != SIZE:
        raise InputError(
            f"{path} has {depth.shape[1]}x{depth.shape[0]} pixels instead of {SIZE[1]}x{SIZE[0]}, "
            "for which the cameras of 7-Scenes are known; use the maps as distributed"
        )
    if path.name.endswith(".depth.proj.png"):
        return depth
    return _near(project_depth(depth, DEPTH_INTRINSICS, COLOR_INTRINSICS, COLOR_FROM_DEPTH))


def _near(depth: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    return np.where((depth >= NEAREST) & (depth <= FARTHEST), depth, np.float32(0.0))
