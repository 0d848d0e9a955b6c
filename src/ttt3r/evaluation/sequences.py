"""Image sequences whose depth and camera path are known, frame by frame."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image as PillowImage

from ttt3r.errors import InputError
from ttt3r.geometry import se3
from ttt3r.sources.images import read_image
from ttt3r.types import Image

TREE = """\
expected:
  FOLDER/
    rgb/000000.jpg …        one image per frame (jpg or png), in the order of their names
    depth/000000.png …      optional, one per image with the same stem: uint16 mm, 0 = unknown
    poses.txt               optional, one line per image: stamp tx ty tz qx qy qz qw
                            (camera-to-world, OpenCV axes; nan where unknown; # is a comment)
    intrinsics.txt          optional, one line: fx fy cx cy (pixels, centres at integers)"""
IMAGES = (".jpg", ".jpeg", ".png")
MILLIMETRE = 1e-3
SIZES_THAT_COUNT = 16  # of files, when two sequences are told apart


@dataclass(frozen=True)
class TrueFrame:
    """One image and what is known of it.

    Attributes:
        image: RGB.
        timestamp: seconds, from an origin of the sequence's own.
        depth: z in the camera's frame, metres, 0 where unknown; None if nothing is known. Its size
            may differ from the image's.
        world_from_camera: pose in the sequence's own world; None if unknown.
        intrinsics: pinhole matrix of `image`, pixels; None if unknown.
    """

    image: Image
    timestamp: float
    depth: Float[np.ndarray, "depth_height depth_width"] | None = None
    world_from_camera: Float64[np.ndarray, "4 4"] | None = None
    intrinsics: Float[np.ndarray, "3 3"] | None = None


@runtime_checkable
class Sequence(Protocol):
    """Frames in temporal order; iterating reads them one by one, and may be done again."""

    @property
    def name(self) -> str:
        """What to call it in reports."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[TrueFrame]: ...


def content_digest(
    files: Iterable[Path | None], arrays: Iterable[Float[np.ndarray, "..."] | None]
) -> str:
    """Return what tells a sequence from others of its name, without reading its files.

    Args:
        files: of its frames; their names count, and the sizes of some.
        arrays: known beforehand: poses, intrinsics.
    """
    found = [path for path in files if path is not None]
    digest = hashlib.sha256("\n".join(path.name for path in found).encode())
    for path in found[:: max(1, len(found) // SIZES_THAT_COUNT)]:
        digest.update(str(path.stat().st_size if path.exists() else None).encode())
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class ArraySequence:
    """A short sequence that is in memory.

    Args:
        name: what to call it.
        image: RGB.
        depth: metres, 0 where unknown; None if nothing is known.
        world_from_camera: poses; one that is not finite is unknown. None if none is known.
        intrinsics: pinhole matrices, pixels; None if unknown.

    Frame i has the time i seconds.
    """

    def __init__(
        self,
        name: str,
        image: UInt8[np.ndarray, "frames height width 3"],
        depth: Float[np.ndarray, "frames height width"] | None = None,
        world_from_camera: Float[np.ndarray, "frames 4 4"] | None = None,
        intrinsics: Float[np.ndarray, "frames 3 3"] | None = None,
    ) -> None:
        self.name = name
        self._image, self._depth = image, depth
        self._poses, self._intrinsics = world_from_camera, intrinsics

    def __len__(self) -> int:
        return len(self._image)

    def __iter__(self) -> Iterator[TrueFrame]:
        for i, image in enumerate(self._image):
            yield TrueFrame(
                image=image,
                timestamp=float(i),
                depth=None if self._depth is None else self._depth[i].astype(np.float32),
                world_from_camera=None if self._poses is None else _known(self._poses[i]),
                intrinsics=None if self._intrinsics is None else self._intrinsics[i],
            )


class First:
    """The first frames of another sequence.

    Args:
        sequence: any.
        frames: how many at most.
    """

    def __init__(self, sequence: Sequence, frames: int) -> None:
        self._sequence, self._frames = sequence, frames
        self.name = sequence.name

    def __len__(self) -> int:
        return min(self._frames, len(self._sequence))

    def __iter__(self) -> Iterator[TrueFrame]:
        return islice(iter(self._sequence), self._frames)


class FolderSequence:
    """A sequence on disk, in the layout that `TREE` shows; images are read when their turn comes.

    Without time stamps, frame i has the time i seconds.

    Args:
        path: the folder.

    Raises:
        InputError: if files are missing, do not match in number or name, or cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = folder_name(self.path)
        self._images = list_files(self.path / "rgb", IMAGES)
        if not self._images:
            raise InputError(f"{self.path} has no images in rgb/; {TREE}")
        self._depths = list_files(self.path / "depth", (".png",))
        if self._depths and [p.stem for p in self._depths] != [p.stem for p in self._images]:
            raise InputError(
                f"{self.path} has {len(self._images)} images in rgb/ and {len(self._depths)} maps "
                f"in depth/, whose names do not match; {TREE}"
            )
        self._stamps, self._poses = self._read_poses()
        self._intrinsics = self._read_intrinsics()

    @property
    def has_depth(self) -> bool:
        """Whether there are depth maps."""
        return bool(self._depths)

    @property
    def has_poses(self) -> bool:
        """Whether any pose is known."""
        return any(pose is not None for pose in self._poses)

    @property
    def has_intrinsics(self) -> bool:
        """Whether the pinhole matrix is known."""
        return self._intrinsics is not None

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[TrueFrame]:
        for index in range(len(self)):
            yield self.frame(index)

    @property
    def digest(self) -> str:
        """What tells this sequence from others of its name; see `content_digest`."""
        return content_digest([*self._images, *self._depths], [*self._poses, self._intrinsics])

    def frame(self, index: int, *, with_depth: bool = True) -> TrueFrame:
        """Read one frame.

        Args:
            index: which.
            with_depth: whether its depth map is read, if there is one.

        Raises:
            InputError: if a file cannot be read, or the depth map has another size than the image.
        """
        image = read_image(self._images[index])
        depth = None
        if self._depths and with_depth:
            depth = read_depth(self._depths[index])
            if depth.shape != image.shape[:2]:
                raise InputError(
                    f"{self._depths[index]} has {depth.shape[1]}x{depth.shape[0]} pixels and its "
                    f"image {image.shape[1]}x{image.shape[0]}; bring both to one size"
                )
        return TrueFrame(image, self._stamps[index], depth, self._poses[index], self._intrinsics)

    def _read_poses(self) -> tuple[list[float], list[Float64[np.ndarray, "4 4"] | None]]:
        path, count = self.path / "poses.txt", len(self._images)
        if not path.is_file():
            return [float(i) for i in range(count)], [None] * count
        rows = read_numbers(path, 8)
        if len(rows) != count:
            raise InputError(f"{path} has {len(rows)} poses for {count} images; {TREE}")
        encoding = torch.from_numpy(rows[:, [1, 2, 3, 7, 4, 5, 6]])
        poses = se3.pose_from_encoding(encoding).numpy()  # NaN for a quaternion of zeros
        stamps = np.where(np.isfinite(rows[:, 0]), rows[:, 0], np.arange(count))
        return stamps.tolist(), [_known(pose) for pose in poses]

    def _read_intrinsics(self) -> Float64[np.ndarray, "3 3"] | None:
        path = self.path / "intrinsics.txt"
        if not path.is_file():
            return None
        rows = read_numbers(path, 4)
        if len(rows) != 1:
            raise InputError(f"{path} has {len(rows)} lines of numbers instead of one; {TREE}")
        fx, fy, cx, cy = rows[0]
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def folder_name(path: Path) -> str:
    """Return what a folder is called; a link to it has a name of its own."""
    return Path(os.path.abspath(path)).name  # noqa: PTH100 (`resolve` would follow links)


def _known(pose: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"] | None:
    return pose.astype(np.float64) if np.isfinite(pose).all() else None


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files with these endings in the order of their names; none without a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)


def read_numbers(
    path: Path, columns: int, hint: str = TREE
) -> Float64[np.ndarray, "rows {columns}"]:
    """Read the lines of numbers of a text file; what follows a # is left out.

    Args:
        path: the file.
        columns: how many numbers each line has.
        hint: what the error message says at its end.

    Raises:
        InputError: if it cannot be read, or a line is something else.
    """
    rows = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != columns:
            raise InputError(f"line {number} of {path} is not {columns} numbers; {hint}")
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def read_depth(
    path: Path, unit: float = MILLIMETRE, dtype: type[np.floating] = np.float32
) -> Float[np.ndarray, "height width"]:
    """Read a depth map of 16 bits per pixel, in metres.

    Args:
        path: a PNG file.
        unit: metres per step of its values.
        dtype: of the result.

    Raises:
        InputError: if it cannot be read, or is no such map.
    """
    try:
        with PillowImage.open(path, formats=("PNG",)) as picture:
            values = np.array(picture)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise InputError(f"{path} cannot be read as a depth map: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.dtype.itemsize < 2:
        raise InputError(f"{path} is no depth map of 16 bits per pixel, as a PNG file holds it")
    return (values * np.float64(unit)).astype(dtype)
