"""The files of a COLMAP model, binary or text, written as a stream.

Their layout is that of https://colmap.github.io/format.html. Pixel centres are at half integers
there, and poses lead from the world to the camera.
"""

import contextlib
import math
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TextIO, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

PINHOLE = 1  # the model's number; its parameters are fx, fy, cx, cy
NO_POINT = -1
BUFFER = 2**18  # bytes
POINT2D = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])


class ColmapCamera(NamedTuple):
    """A pinhole camera; pixel centres at half integers."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


class ColmapImage(NamedTuple):
    """An image; numbers count from 1.

    `points` are the numbers of those seen at `pixels` (centres at half integers), -1 for none.
    """

    number: int
    world_from_camera: Float[np.ndarray, "4 4"]
    camera: int
    name: str
    pixels: Float[np.ndarray, "seen 2"]
    points: Int[np.ndarray, " seen"]

    @property
    def pose(self) -> list[float]:
        """Quaternion w x y z and translation, from the world to the camera."""
        rotation = self.world_from_camera[:3, :3].T
        return [
            *_quaternion(rotation),
            *(-rotation @ self.world_from_camera[:3, 3]).tolist(),
        ]


class ColmapPoints(NamedTuple):
    """Points; those that see them are listed point by point, `length` of each.

    Numbers of points and images count from 1, places in an image's list from 0.
    """

    number: Int[np.ndarray, " points"]
    world: Float[np.ndarray, "points 3"]
    colour: UInt8[np.ndarray, "points 3"]
    length: Int[np.ndarray, " points"]
    image: Int[np.ndarray, " seen"]
    place: Int[np.ndarray, " seen"]


@runtime_checkable
class Model(Protocol):
    """Takes what a model holds, in any order."""

    def camera(self, number: int, camera: ColmapCamera) -> None:
        """Add a camera."""
        ...

    def image(self, image: ColmapImage) -> None:
        """Add an image."""
        ...

    def points(self, points: ColmapPoints) -> None:
        """Add points."""
        ...


@contextlib.contextmanager
def binary_model(folder: Path) -> Iterator[Model]:
    """Write cameras.bin, images.bin and points3D.bin."""
    with contextlib.ExitStack() as stack:
        names = ("cameras.bin", "images.bin", "points3D.bin")
        model = _Binary(
            *(stack.enter_context((folder / name).open("wb", BUFFER)) for name in names)
        )
        yield model
        model.finish()


@contextlib.contextmanager
def text_model(folder: Path) -> Iterator[Model]:
    """Write cameras.txt, images.txt and points3D.txt."""
    with contextlib.ExitStack() as stack:
        names = ("cameras.txt", "images.txt", "points3D.txt")
        yield _Text(
            *(
                stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
                for name in names
            )
        )


class _Binary:
    """Each file begins with a count, which is filled in at the end."""

    def __init__(self, cameras: BinaryIO, images: BinaryIO, points: BinaryIO) -> None:
        self._files = cameras, images, points
        self._counts = [0, 0, 0]
        for file in self._files:
            file.write(struct.pack("<Q", 0))

    def camera(self, number: int, camera: ColmapCamera) -> None:
        """See `Model`."""
        self._files[0].write(struct.pack("<IiQQ4d", number, PINHOLE, *camera))
        self._counts[0] += 1

    def image(self, image: ColmapImage) -> None:
        """See `Model`."""
        seen = np.empty(len(image.points), POINT2D)
        seen["x"], seen["y"] = image.pixels.T
        seen["point"] = image.points
        head = struct.pack("<I7dI", image.number, *image.pose, image.camera)
        name = image.name.encode("utf-8") + b"\0"
        self._files[1].write(head + name + struct.pack("<Q", len(seen)))
        self._files[1].write(seen.data)
        self._counts[1] += 1

    def points(self, points: ColmapPoints) -> None:
        """See `Model`; points with as many images are alike, and are written together."""
        start = np.cumsum(points.length) - points.length
        for length in np.flatnonzero(np.bincount(points.length)):
            chosen = np.flatnonzero(points.length == length)
            rows = np.zeros(len(chosen), _point_with(int(length)))
            rows["number"], rows["world"] = points.number[chosen], points.world[chosen]
            rows["colour"], rows["length"] = points.colour[chosen], length
            places = start[chosen, None] + np.arange(length)
            rows["track"][..., 0] = points.image[places]
            rows["track"][..., 1] = points.place[places]
            self._files[2].write(rows.data)
        self._counts[2] += len(points.number)

    def finish(self) -> None:
        """Fill in the counts."""
        for file, count in zip(self._files, self._counts, strict=True):
            file.seek(0)
            file.write(struct.pack("<Q", count))


class _Text:
    """One line per camera and point, two per image."""

    def __init__(self, cameras: TextIO, images: TextIO, points: TextIO) -> None:
        self._cameras, self._images, self._points = cameras, images, points
        cameras.write("# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n")
        images.write(
            "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n"
            "# POINTS2D[] as (X, Y, POINT3D_ID)\n"
        )
        points.write("# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n")

    def camera(self, number: int, camera: ColmapCamera) -> None:
        """See `Model`."""
        self._cameras.write(f"{number} PINHOLE {_line(camera)}\n")

    def image(self, image: ColmapImage) -> None:
        """See `Model`."""
        seen = (
            f"{x!r} {y!r} {point}"
            for (x, y), point in zip(image.pixels.tolist(), image.points.tolist(), strict=True)
        )
        head = f"{image.number} {_line(image.pose)} {image.camera} {image.name}"
        self._images.write(f"{head}\n{' '.join(seen)}\n")

    def points(self, points: ColmapPoints) -> None:
        """See `Model`."""
        start = 0
        for row, length in enumerate(points.length.tolist()):
            track = np.stack([points.image, points.place], axis=1)[start : start + length]
            start += length
            place, colour = points.world[row].tolist(), points.colour[row].tolist()
            words = [int(points.number[row]), *place, *colour, 0, *track.flatten().tolist()]
            self._points.write(f"{_line(words)}\n")


@lru_cache
def _point_with(length: int) -> np.dtype[np.void]:
    """How a point that so many images see is written."""
    kind = [("number", "<u8"), ("world", "<f8", 3), ("colour", "u1", 3), ("error", "<f8")]
    return np.dtype([*kind, ("length", "<u8"), ("track", "<u4", (length, 2))])


def _quaternion(rotation: Float[np.ndarray, "3 3"]) -> list[float]:
    """As w x y z with w not below 0; `geometry.rotation.quaternion_from_matrix` takes far longer.

    The largest of the four numbers comes from the diagonal, the others by its help from sums and
    differences (Shepperd, "Quaternion from rotation matrix", 1978).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    trace = xx + yy + zz
    largest = max(trace, xx, yy, zz)
    if largest == trace:
        quaternion = [1 + trace, zy - yz, xz - zx, yx - xy]
    elif largest == xx:
        quaternion = [zy - yz, 1 + xx - yy - zz, yx + xy, zx + xz]
    elif largest == yy:
        quaternion = [xz - zx, yx + xy, 1 + yy - zz - xx, zy + yz]
    else:
        quaternion = [yx - xy, zx + xz, zy + yz, 1 + zz - xx - yy]
    length = math.copysign(math.hypot(*quaternion), quaternion[0])
    return [number / length for number in quaternion]


def _line(numbers: Sequence[int | float]) -> str:
    return " ".join(repr(number) for number in numbers)
