"""Sequences of images whose depth and camera path are known, frame by frame."""

import hashlib
import os
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8
from PIL import Image as PillowImage

from ttt3r.errors import InputError
from ttt3r.types import Image

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
        alpha: opacity of each pixel, 0 to 255; None where all pixels are opaque.
    """

    image: Image
    timestamp: float
    depth: Float[np.ndarray, "depth_height depth_width"] | None = None
    world_from_camera: Float64[np.ndarray, "4 4"] | None = None
    intrinsics: Float[np.ndarray, "3 3"] | None = None
    alpha: UInt8[np.ndarray, "height width"] | None = None


@dataclass(frozen=True)
class Item:
    """Where one frame lies on disk.

    Attributes:
        image: file of the image.
        timestamp: seconds, from an origin of the sequence's own.
        world_from_camera: true pose; None if unknown.
        depth: file of the true depth; None if there is none or the task takes none.
        intrinsics: pinhole matrix, pixels; None if unknown or the same for the whole dataset.
    """

    image: Path
    timestamp: float
    world_from_camera: Float64[np.ndarray, "4 4"] | None = None
    depth: Path | None = None
    intrinsics: Float64[np.ndarray, "3 3"] | None = None


class Sequence:
    """Frames in temporal order. Iterating reads them one by one, and may be done again.

    Args:
        name: what reports call it.
        items: one per frame, such as `Item`.
        read: turns an item into a frame; raises InputError if it cannot.
    """

    def __init__(self, name: str, items: Items[Any], read: Callable[[Any], TrueFrame]) -> None:
        self.name, self.items, self.read = name, items, read

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[TrueFrame]:
        return map(self.read, self.items)

    def first(self, frames: int) -> "Sequence":
        """Return the sequence of the first frames."""
        return Sequence(self.name, self.items[:frames], self.read)

    @property
    def digest(self) -> str:
        """What tells it from other sequences of its name: names and sizes of files, and poses.

        Files are not read, and the sizes of some only are looked up. Empty without files.
        """
        items = [item for item in self.items if isinstance(item, Item)]
        files = [path for item in items for path in (item.image, item.depth) if path is not None]
        if not files:
            return ""
        digest = hashlib.sha256(b"\n".join(os.fsencode(path.name) for path in files))
        for path in files[:: max(1, len(files) // SIZES_THAT_COUNT)]:
            digest.update(str(path.stat().st_size if path.exists() else None).encode())
        for array in (a for item in items for a in (item.world_from_camera, item.intrinsics)):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def known(pose: Float[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"] | None:
    """Return a pose in float64; None if it is not finite."""
    return pose.astype(np.float64) if np.isfinite(pose).all() else None


def read_depth(
    path: Path, unit: float = MILLIMETRE, dtype: type[np.floating] = np.float32
) -> Float[np.ndarray, "height width"]:
    """Read a depth map of 16 bits per pixel, in metres.

    Args:
        path: a PNG file.
        unit: metres per step of its values.
        dtype: of the result.

    Raises:
        InputError: if the file cannot be read, or is not such a map.
    """
    try:
        with PillowImage.open(path, formats=("PNG",)) as picture:
            values = np.array(picture)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise InputError(f"{path} cannot be read as a depth map: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "ui" or values.dtype.itemsize < 2:
        raise InputError(f"{path} is not a depth map of 16 bits per pixel in a PNG file")
    return (values * np.float64(unit)).astype(dtype)
