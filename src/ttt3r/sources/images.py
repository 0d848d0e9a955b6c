"""Frames from image files: a folder, a glob pattern or a list.

Files of a folder or pattern come in natural order (img2 before img10). If all their names are
decimal numbers that increase, as in the TUM data sets (1311868164.3631.png), these are the
timestamps in seconds; otherwise frame i has the time i / fps.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from ttt3r.errors import InputError, MissingExtraError
from ttt3r.sources.base import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Selection, checked_skip, select
from ttt3r.types import Frame, Image

# What may be decoded whatever a file is called; Pillow knows formats that start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
HEIC_SUFFIXES = (".heic", ".heif")
DECIMAL_NUMBER = re.compile(r"\d+\.\d+")


class ImageSource:
    """Frames from image files in the given order.

    Args:
        paths: the files, at least one.
        path: the folder, pattern or file they were found by; None for a list.
        selection: which of them to take.
        fps: frames per second if the file names are no timestamps.

    Raises:
        InputError: if the selection is empty.
        MissingExtraError: if there are HEIC files and no package to read them.
    """

    def __init__(
        self, paths: Sequence[Path], path: str | None, selection: Selection, fps: float
    ) -> None:
        if any(file.suffix.lower() in HEIC_SUFFIXES for file in paths):
            enable_heic()
        self._path = path
        self._paths = paths
        self._selection = selection
        self._fps = fps
        times = _times_in_names(paths) or [number / fps for number in range(len(paths))]
        name = path or "the list of images"
        self._taken = list(select(zip(times, paths, strict=True), selection, 0, name))

    @property
    def length(self) -> int:
        """Exact number of frames."""
        return len(self._taken)

    def describe(self) -> dict[str, Any]:
        """Identity (number of files, first and last name) and settings."""
        return {
            "kind": "images",
            "path": self._path,
            "files": len(self._paths),
            "first": self._paths[0].name,
            "last": self._paths[-1].name,
            "fps": self._fps,
            **self._selection.describe(),
        }

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the selected frames; files that are left out are not opened. See `Source.frames`.

        Raises:
            InputError: at a file that cannot be read.
        """
        for index, seconds, path in self._taken[checked_skip(start) :]:
            try:
                image = read_image(path)
            except InputError as error:
                raise InputError(
                    f"{error}. The {index} frames before it were read. Replace the file by an "
                    "intact copy or remove it, then resume the run"
                ) from error.__cause__
            yield Frame(image, index, seconds, name=path.name)


def natural_key(name: str) -> list[Any]:
    """Sort key that compares runs of digits as numbers: img2 < img10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if position % 2 else part for position, part in enumerate(parts)] + [name]


def image_files(folder: Path) -> list[Path]:
    """Return the images in `folder` (not in its subfolders) in order; hidden files are left out.

    Raises:
        InputError: if there is none.
    """
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from None
    images = _sorted_images(entries)
    if images:
        return images
    wanted = f"accepted are {' '.join(IMAGE_SUFFIXES)}"
    if not entries:
        raise InputError(f"the folder {folder} is empty; put images into it ({wanted})")
    hint = "check the path"
    if videos := sorted(path.name for path in entries if path.suffix.lower() in VIDEO_SUFFIXES):
        hint = f"to read a video, give its own path, {folder / videos[0]}"
    elif folders := sorted(path.name for path in entries if path.is_dir()):
        hint = f"subfolders are not searched: give one of them, such as {folder / folders[0]}"
    raise InputError(f"the folder {folder} holds no images ({wanted}); {hint}")


def matching_images(pattern: Path) -> list[Path]:
    """Return the images that match a glob pattern (`**` spans folders) in order.

    Raises:
        InputError: if there is none.
    """
    # Path.glob would take neither an absolute pattern nor leave hidden files out.
    entries = [Path(match) for match in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207
    images = _sorted_images(entries)
    if not images:
        found = f"the {len(entries)} matches of {pattern} are" if entries else f"{pattern} matches"
        raise InputError(
            f"{found} no images (accepted are {' '.join(IMAGE_SUFFIXES)}); check the pattern, and "
            "quote it so that the shell does not expand it"
        )
    return images


def _sorted_images(entries: list[Path]) -> list[Path]:
    images = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if all(DECIMAL_NUMBER.fullmatch(path.stem) for path in images):
        return sorted(images, key=lambda path: float(path.stem))
    return sorted(images, key=lambda path: natural_key(path.as_posix()))


def _times_in_names(paths: Sequence[Path]) -> list[float] | None:
    """Timestamps in seconds if every name is a decimal number and they strictly increase."""
    if not all(DECIMAL_NUMBER.fullmatch(path.stem) for path in paths):
        return None
    times = [float(path.stem) for path in paths]
    increase = all(before < after for before, after in pairwise(times))
    return times if increase else None


def read_image(path: Path) -> Image:
    """Read an image file upright, as RGB. 16-bit grey is scaled to 8 bits.

    Raises:
        InputError: if the file is damaged, too large, or no image of an accepted format.
    """
    formats = (*FORMATS, "HEIF") if path.suffix.lower() in HEIC_SUFFIXES else FORMATS
    try:
        with PillowImage.open(path, formats=formats) as image:
            limit = PillowImage.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise PillowImage.DecompressionBombError
            return to_rgb(ImageOps.exif_transpose(image), sixteen_bit="scale")
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise InputError(
            f"{path} has more than {PillowImage.MAX_IMAGE_PIXELS} pixels, which a damaged or "
            "malicious file may claim; if it is real, make it smaller"
        ) from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as an image ({reason})") from error


def to_rgb(
    image: PillowImage.Image, sixteen_bit: Literal["saturate", "scale"] = "saturate"
) -> Image:
    """Convert an image of any Pillow mode to an RGB array; alpha is dropped, not blended.

    Args:
        image: the image.
        sixteen_bit: what becomes of grey values beyond 8 bits (modes I and I;16). "saturate" is
            what the published preparation does: all values from 255 are white. "scale" divides
            by 257, which keeps the picture; files are read so.
    """
    if sixteen_bit == "scale" and (image.mode == "I" or image.mode.startswith("I;16")):
        values = np.asarray(image.convert("I")).astype(np.int64)
        grey = ((values + 128) // 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if "transparency" in image.info:  # Pillow would warn that it drops the palette's alpha
        image = image.copy()
        del image.info["transparency"]
    return np.array(image.convert("RGB"))


def enable_heic() -> None:
    """Teach Pillow to read HEIC files.

    Raises:
        MissingExtraError: if pillow-heif is not installed.
    """
    try:
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("pillow-heif", "heic", "Reading HEIC images") from None
    register_heif_opener()
