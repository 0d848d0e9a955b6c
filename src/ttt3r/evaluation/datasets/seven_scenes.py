"""7-Scenes: small indoor scenes, recorded with a hand-held Kinect and tracked by fusing its depth.

The depth and the colour camera are not registered: depth maps and poses are those of the depth
camera, images are those of the colour camera, 2.6 cm beside it.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.sequences import Item, known, read_depth
from ttt3r.evaluation.text import list_files, read_lines, read_matrix, require

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
    elsewhere the owners' `frame-*.depth.png` is projected while it is read. Time is counted at 30
    frames per second.

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
    names = tuple(
        f"{scene}/seq-{number:02d}" for scene, all_ in TEST_SEQUENCES.items() for number in all_
    )
    intrinsics = COLOR_INTRINSICS

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the selected frames of a sequence such as "chess/seq-03"."""
        folder = root / name
        packed = folder.with_name(f"{folder.name}.zip")
        if packed.is_file() and not folder.is_dir():
            raise InputError(f"{packed} is still packed; unpack it")
        require(folder)
        if name in self.names:
            _check_split(folder.parent / "TestSplit.txt", name)
        count = sum(path.name.endswith(".color.png") for path in list_files(folder, (".png",)))
        if not count:
            raise InputError(f"{folder} holds no images")
        items = []
        for i in selection.pick(range(count)):
            frame = folder / f"frame-{i:06d}"
            projected = Path(f"{frame}.depth.proj.png")
            depth = projected if projected.exists() else Path(f"{frame}.depth.png")
            image = require(Path(f"{frame}.color.png"))
            pose = known(read_matrix(Path(f"{frame}.pose.txt")))
            if pose is not None and selection.variant == "corrected":
                pose = pose @ np.linalg.inv(COLOR_FROM_DEPTH)
            items.append(Item(image, i / RATE, pose, depth))
        return items

    def read_depth(self, path: Path) -> Float[np.ndarray, "height width"]:
        """Read a depth map in the colour camera; one of the depth camera is projected into it.

        Args:
            path: named `*.depth.proj.png` or `*.depth.png`.
        """
        depth = read_near_depth(path)
        if depth.shape != SIZE:
            raise InputError(
                f"{path} has {depth.shape[1]}x{depth.shape[0]} pixels instead of "
                f"{SIZE[1]}x{SIZE[0]}, for which the cameras of 7-Scenes are known; use the maps "
                "as distributed"
            )
        if path.name.endswith(".depth.proj.png"):
            return depth
        return _near(project_depth(depth, DEPTH_INTRINSICS, COLOR_INTRINSICS, COLOR_FROM_DEPTH))


def _check_split(path: Path, name: str) -> None:
    if not path.is_file():
        return
    lines = " ".join(read_lines(path)).split()
    numbers = [re.fullmatch(r"sequence(\d+)", line) for line in lines]
    listed = [f"seq-{int(number[1]):02d}" for number in numbers if number]
    if len(listed) < len(lines):
        raise InputError(f"{path} has lines that name no sequence, such as sequence1")
    if Path(name).name not in listed:
        raise InputError(f"{path} does not list {name}, which published tables contain")


def read_near_depth(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a depth map in millimetres; what is nearer than 1 mm or farther than 10 m is unknown.

    Raises:
        InputError: if the file cannot be read, or is not such a map.
    """
    return _near(read_depth(path))


def _near(depth: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    return np.where((depth >= NEAREST) & (depth <= FARTHEST), depth, np.float32(0.0))


def project_depth(
    depth: Float32[np.ndarray, "height width"],
    source: Float64[np.ndarray, "3 3"],
    target: Float64[np.ndarray, "3 3"],
    target_from_source: Float64[np.ndarray, "4 4"],
) -> Float32[np.ndarray, "height width"]:
    """Move the points of a depth map into another camera of the same image size.

    A pixel u of depth z holds the point X = z K_s⁻¹ [u, 1]ᵀ of the source camera. With
    [p, w]ᵀ = K_t (R X + t), the target camera sees it at depth w in the pixel nearest to p / w. Of
    several points that meet in one pixel the nearest one stays. Nothing is filled in between:
    what the source camera did not see remains unknown.

    Args:
        depth: z in the source camera's frame, metres; what is not positive and finite is unknown.
        source: pinhole matrix of the depth map, pixels, centres at integers.
        target: pinhole matrix of the result.
        target_from_source: rigid transform of points, metres.

    Returns:
        z in the target camera's frame, metres, 0 where unknown.
    """
    height, width = depth.shape
    v, u = np.nonzero((depth > 0) & np.isfinite(depth))
    z = depth[v, u].astype(np.float64)
    linear = target @ target_from_source[:3, :3] @ np.linalg.inv(source)
    shift = target @ target_from_source[:3, 3]
    x, y, w = (z * (a * u + b * v + c) + t for (a, b, c), t in zip(linear, shift, strict=True))
    ahead = w > 0  # before the camera, not behind it
    x, y, w = x[ahead], y[ahead], w[ahead]
    column, row = np.floor(x / w + 0.5), np.floor(y / w + 0.5)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixel = (row[inside] * width + column[inside]).astype(np.int64)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, pixel, w[inside])
    nearest[np.isinf(nearest)] = 0.0
    return nearest.reshape(height, width).astype(np.float32)
