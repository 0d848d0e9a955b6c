"""Tiny recordings in the formats in which the owners of the RGB-D datasets distribute theirs."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 6, 8
START = 1341846313.5  # seconds since 1970, as in real lists


def write_image(path: Path, value: int) -> None:
    """An image of one grey, so that a test can tell which one it got."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(path)


def write_depth(path: Path, value: int) -> None:
    """A depth map of one value, unknown in its first pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.full((HEIGHT, WIDTH), value, np.uint16)
    steps[0, 0] = 0
    Image.fromarray(steps).save(path)


def tum_pose(i: int) -> tuple[float, ...]:
    """tx ty tz qx qy qz qw of a camera that moves and turns about y, by 0.2 rad a row."""
    half = 0.1 * i
    return (1.0 * i, 0.5 * i, -1.0 * i, 0.0, float(np.sin(half)), 0.0, float(np.cos(half)))


def write_trajectory(path: Path, stamps: Iterable[float]) -> None:
    lines = ["# ground truth trajectory", "# file: 'x.bag'", "# timestamp tx ty tz qx qy qz qw"]
    for i, stamp in enumerate(stamps):
        lines.append(f"{stamp:.4f} " + " ".join(f"{n:.9f}" for n in tum_pose(i)))
    path.write_text("\n".join(lines) + "\n")


def write_list(path: Path, what: str, folder: str, names: Iterable[str]) -> None:
    lines = [f"# {what}", "# file: 'x.bag'", "# timestamp filename"]
    lines += [f"{name} {folder}/{name}.png" for name in names]
    path.write_text("\n".join(lines) + "\n")


def write_tum(folder: Path, images: Sequence[float], poses: Sequence[float]) -> Path:
    """A TUM recording with images (grey i) and poses at these seconds after `START`."""
    names = [f"{START + second:.6f}" for second in images]
    for i, name in enumerate(names):
        write_image(folder / "rgb" / f"{name}.png", i)
        (folder / "depth").mkdir(exist_ok=True)
        (folder / "depth" / f"{name}.png").write_bytes(b"not to be opened")
    write_list(folder / "rgb.txt", "color images", "rgb", names)
    write_list(folder / "depth.txt", "depth maps", "depth", names)
    write_trajectory(folder / "groundtruth.txt", [START + second for second in poses])
    return folder


def write_scannet(folder: Path, frames: int, lost: tuple[int, ...] = ()) -> Path:
    """A scene as reader.py exports it; pose i is the translation (i, i / 2, -i)."""
    for name in ("pose", "depth", "intrinsic"):
        (folder / name).mkdir(parents=True)
    for i in range(frames):
        write_image(folder / "color" / f"{i}.jpg", i)
        (folder / "depth" / f"{i}.png").write_bytes(b"not to be opened")
        pose = np.eye(4)
        pose[:3, 3] = i, i / 2, -i
        if i in lost:
            pose[:] = -np.inf
        np.savetxt(folder / "pose" / f"{i}.txt", pose, fmt="%f")
    return folder


def sintel_camera(i: int) -> tuple[np.ndarray, np.ndarray]:
    """K and camera-from-world (3 x 4) of a camera that zooms, moves and turns about y."""
    c, s = np.cos(0.2 * i), np.sin(0.2 * i)
    matrix = np.array([[688.0 + i, 0, 511.5], [0, 688.0 + i, 217.5], [0, 0, 1]])
    return matrix, np.array([[c, 0, s, 0.1 * i], [0, 1, 0, 0.2], [-s, 0, c, 0.3 * i**2]])


def write_sintel(root: Path, scene: str, frames: int) -> Path:
    """A scene of the training set whose depth (i + 1/2 m) is far away in the first pixel."""
    training = root / "training"
    for name in ("depth", "camdata_left"):
        (training / name / scene).mkdir(parents=True)
    tag = struct.pack("<f", 202021.25)
    for i in range(frames):
        name = f"frame_{i + 1:04d}"
        write_image(training / "final" / scene / f"{name}.png", i)
        write_image(training / "clean" / scene / f"{name}.png", 255)
        depth = np.full((HEIGHT, WIDTH), i + 0.5, "<f4")
        depth[0, 0] = 1e4
        size = struct.pack("<ii", WIDTH, HEIGHT)
        (training / "depth" / scene / f"{name}.dpt").write_bytes(tag + size + depth.tobytes())
        numbers = np.concatenate([part.ravel() for part in sintel_camera(i)]).astype("<f8")
        (training / "camdata_left" / scene / f"{name}.cam").write_bytes(tag + numbers.tobytes())
    return root


def write_bonn(
    folder: Path, images: Sequence[float], depths: Sequence[float], poses: int = 200
) -> Path:
    """A Bonn recording with images (grey i) and depth maps (i + 1 mm) at these seconds."""
    for what, write, seconds in (("rgb", write_image, images), ("depth", write_depth, depths)):
        (folder / what).mkdir(parents=True)
        names = [f"{START + second:.5f}" for second in seconds]
        for i, name in enumerate(names):
            write(folder / what / f"{name}.png", i if what == "rgb" else 5 * (i + 1))
        write_list(folder / f"{what}.txt", what, what, names)
    write_trajectory(folder / "groundtruth.txt", [START + i / 100 for i in range(poses)])
    return folder
