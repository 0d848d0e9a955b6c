"""Tiny datasets in the formats of their owners. Images of number i have the colour i everywhere."""

from pathlib import Path

import numpy as np
from PIL import Image

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset

DRIVE = "2011_09_26_drive_0002_sync"
KITTI_DEPTH = f"val/{DRIVE}/proj_depth/groundtruth/image_02"
KITTI_RAW = f"2011_09_26/{DRIVE}/image_02/data"
KINECT_SIZE = (480, 640)


def write_image(path: Path, number: int, size=(4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), number, np.uint8)).save(path, compress_level=1)


def write_depth(path: Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint16)).save(path, compress_level=1)


def write_matrix(path: Path, matrix) -> None:
    np.savetxt(path, matrix, fmt="%.17g", delimiter="\t")


def some_pose(number: int) -> np.ndarray:
    """A camera that turns about y while it moves."""
    c, s = np.cos(0.1 * number), np.sin(0.1 * number)
    pose = np.eye(4)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = [0.1 * number, 0.02 * number**2, 0.3]
    return pose


def write_kitti(root: Path, maps=range(5, 12), images=range(14)) -> Path:
    """Depth of map i: i metres, but for one unknown pixel and one of the value 1."""
    for i in maps:
        values = np.full((4, 6), 256 * i)
        values[0, :2] = 0, 1
        write_depth(root / KITTI_DEPTH / f"{i:010d}.png", values)
    for i in images:
        write_image(root / KITTI_RAW / f"{i:010d}.png", i)
    return root


def write_seven_scenes(root: Path, sequence: str = "chess/seq-03", frames: int = 7) -> Path:
    """Depth of frame i: (1000 + i) mm in the depth camera; nothing is projected yet."""
    folder = root / sequence
    for i in range(frames):
        frame = folder / f"frame-{i:06d}"
        write_image(Path(f"{frame}.color.png"), i, KINECT_SIZE)
        write_depth(Path(f"{frame}.depth.png"), np.full(KINECT_SIZE, 1000 + i))
        write_matrix(Path(f"{frame}.pose.txt"), some_pose(i))
    return root


def write_nrgbd(root: Path, scene: str = "kitchen", frames: int = 12) -> Path:
    """Depth of frame i: (1000 + i) mm; poses are `some_pose`, in OpenGL axes."""
    folder = root / scene
    for i in range(frames):
        write_image(folder / "images" / f"img{i}.png", i)
        write_depth(folder / "depth" / f"depth{i}.png", np.full((4, 6), 1000 + i))
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    poses = np.concatenate([some_pose(i) @ flip for i in range(frames)])
    write_matrix(folder / "poses.txt", poses)
    return root


def shown(sequence) -> list[int]:
    """Numbers of the images that a sequence shows, read from their pixels."""
    return [int(frame.image[0, 0, 0]) for frame in sequence]


def assert_explains(error: InputError, dataset: Dataset, *parts: str) -> None:
    """The message names what is wrong, the expected folder and where to get it."""
    for part in (*parts, dataset.tree, dataset.page):
        assert part in str(error), (part, str(error))
