"""MPI Sintel: scenes of an animated film, whose cameras and depth are known exactly."""

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection, Task
from ttt3r.evaluation.sequences import Item
from ttt3r.evaluation.text import list_files, require

# The cameras of the other scenes stand still or move along a straight line.
POSE_SEQUENCES = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4"),
    *("market_2", "market_5", "market_6", "shaman_3"),
    *("sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
FRAMES_PER_SECOND = 24.0
TAG = struct.pack("<f", 202021.25)  # begins every file of numbers
CAMERA_BYTES = len(TAG) + (9 + 12) * 8


class Sintel(Dataset):
    """The training scenes in their final rendering: 23 for depth, 14 of them for camera poses.

    Depth is what the files hold, in metres; the sky is hundreds of metres away, so scores take a
    greatest depth. Poses are the inverses of the stored world-to-camera matrices, and every frame
    has its own intrinsics. Image i, from 0, has the time i / 24 s. Both variants are the same.
    """

    name = "sintel"
    title = "MPI Sintel (training)"
    page = "http://sintel.is.tue.mpg.de"
    tree = """\
  ROOT/training/
    final/alley_1/frame_0001.png …            from MPI-Sintel-training_images
    depth/alley_1/frame_0001.dpt …            from MPI-Sintel-depth-training
    camdata_left/alley_1/frame_0001.cam …     from MPI-Sintel-depth-training"""
    tasks = ("pose", "depth")
    names = (
        *("alley_1", "alley_2", "ambush_2", "ambush_4", "ambush_5", "ambush_6", "ambush_7"),
        *("bamboo_1", "bamboo_2", "bandage_1", "bandage_2", "cave_2", "cave_4"),
        *("market_2", "market_5", "market_6", "mountain_1", "shaman_2", "shaman_3"),
        *("sleeping_1", "sleeping_2", "temple_2", "temple_3"),
    )

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the names of the 14 scenes for "pose", of all 23 otherwise."""
        return POSE_SEQUENCES if task == "pose" else self.names

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the selected frames of a scene, whether or not published tables contain it."""
        training = require(root / "training")
        images = list_files(require(training / "final" / name), (".png",))
        if not images:
            raise InputError(f"{training / 'final' / name} has no images")
        with_pose, with_depth = selection.task != "depth", selection.task != "pose"
        cameras, depths = training / "camdata_left" / name, training / "depth" / name
        for folder, suffix, taken in ((cameras, ".cam", with_pose), (depths, ".dpt", with_depth)):
            if taken:
                _check_partners(images, require(folder), suffix)
        items = []
        for i, image in selection.pick(list(enumerate(images))):
            camera = cameras / f"{image.stem}.cam"
            matrix, pose = read_camera(camera) if with_pose else (None, None)
            depth = depths / f"{image.stem}.dpt" if with_depth else None
            items.append(Item(image, i / FRAMES_PER_SECOND, pose, depth, matrix))
        return items

    def read_depth(self, path: Path) -> Float[np.ndarray, "height width"]:
        """See `read_depth` of this module."""
        return read_depth(path)


def _check_partners(images: list[Path], folder: Path, suffix: str) -> None:
    """Check that a folder has a file with the name of every image, and no other."""
    files = list_files(folder, (suffix,))
    if [path.stem for path in files] != [path.stem for path in images]:
        raise InputError(
            f"{folder} has {len(files)} files for the {len(images)} images in "
            f"{images[0].parent}, or their names do not match"
        )


def read_camera(path: Path) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "4 4"]]:
    """Read a camera file of Sintel: a tag, K (3 x 3) and camera-from-world (3 x 4), as doubles.

    Returns:
        The pinhole matrix, pixels with centres at integers, and ``world_from_camera``, metres.

    Raises:
        InputError: if the file cannot be read, or is not such a file.
    """
    content = _read_tagged(path)
    if len(content) != CAMERA_BYTES:
        raise InputError(f"{path} has {len(content)} bytes, and a camera file {CAMERA_BYTES}")
    numbers = np.frombuffer(content, "<f8", offset=len(TAG)).astype(np.float64)
    camera_from_world = np.vstack([numbers[9:].reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
    if not np.isfinite(numbers).all() or np.linalg.matrix_rank(camera_from_world) < 4:
        raise InputError(f"{path} holds no camera: its pose cannot be inverted")
    return numbers[:9].reshape(3, 3), np.linalg.inv(camera_from_world)


def read_depth(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a depth file of Sintel, metres: a tag, width and height as int32, then float32 by rows.

    Raises:
        InputError: if the file cannot be read, or is not such a file.
    """
    content = _read_tagged(path)
    header = len(TAG) + 8
    if len(content) < header:
        raise InputError(f"{path} ends within its header")
    width, height = struct.unpack_from("<ii", content, len(TAG))
    if min(width, height) < 1 or len(content) != header + 4 * width * height:
        raise InputError(f"{path} has {len(content)} bytes, not those of {width}x{height} depths")
    values = np.frombuffer(content, "<f4", offset=header)
    return values.reshape(height, width).astype(np.float32)


def _read_tagged(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not content.startswith(TAG):
        raise InputError(f"{path} does not begin with the tag of Sintel's files")
    return content
