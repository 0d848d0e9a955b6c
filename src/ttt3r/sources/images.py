"""Reading one image file: upright RGB of 8 bits, whatever the file holds."""

import contextlib
import logging
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage
from PIL import ImageOps

from ttt3r.errors import InputError, MissingExtraError
from ttt3r.sources.files import FORMATS, is_heif
from ttt3r.types import Image

log = logging.getLogger(__name__)

Alpha = UInt8[np.ndarray, "height width"]
Levels = tuple[float, float]  # grey values that become black and white

# Phones take photographs of 200 megapixels; as RGB this limit is 1.5 GB.
MOST_PIXELS = 2**29
FULL_16_BIT, FULL_8_BIT = (0.0, 65535.0), (0.0, 255.0)
NARROW = 0.25  # a smaller part of the full range would look flat
OUTLIERS = 0.1  # percent of the values at either end that may lie beyond the levels
REDUCED, MASK = 1, 4  # bits of TIFF's tag 254: a smaller copy of another page; not a picture
NEW_SUBFILE_TYPE = 254


def read_pixels(path: Path, levels: Levels | None = None) -> tuple[Image, Alpha | None]:
    """Read an image file upright, as RGB and opacity.

    Args:
        path: the file.
        levels: the grey values that become black and white, for images of more than 8 bits; None
            takes those of this image, see `levels_of`.

    Returns:
        RGB, and the opacity of each pixel; None if all are opaque.

    Raises:
        InputError: if the file is damaged, too large, holds several images, or is not an image of
            an accepted format.
    """
    with opened(path) as image:
        count = len(page_numbers(image))
        if count > 1:
            raise InputError(
                f"it holds {count} images, and a folder or list takes one from each file; give the "
                "file itself to read them as a video, or save them as separate files"
            )
        image = ImageOps.exif_transpose(image)
        return to_rgb(image, levels or levels_of(image)), alpha_of(image)


def levels_of_file(path: Path) -> Levels | None:
    """As `levels_of`, of an image file.

    Raises:
        InputError: see `read_pixels`.
    """
    with opened(path) as image:
        return levels_of(image)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[PillowImage.Image]:
    """Open an image file by its content; see `open_image`.

    Raises:
        InputError: also instead of whatever is raised while the image is in use, with its reason.
    """
    try:
        with path.open("rb") as file, higher_limit(), open_image(file, path) as image:
            yield image
    except MissingExtraError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as an image ({reason})") from error


def open_image(file: BinaryIO, path: Path) -> PillowImage.Image:
    """Open an image by its content, whatever it is called.

    Pillow's own `open` would refuse large photographs by a limit that is global to the program.

    Raises:
        InputError: if it is not an image of an accepted format, or has too many pixels.
        MissingExtraError: if it is HEIC and no package is installed to read it.
    """
    formats = FORMATS
    if is_heif(path):
        enable_heic()
        formats = ("HEIF",)
    head = file.read(16)
    for name in formats:
        factory, accepts = PillowImage.OPEN.get(name, (None, None))
        if factory is None or (accepts is not None and accepts(head) is not True):
            continue
        file.seek(0)
        try:
            image = factory(file, str(path))
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # another format that begins alike
        pixels = image.width * image.height
        if pixels > MOST_PIXELS:
            raise InputError(
                f"it has {image.width}x{image.height} pixels, {pixels // 10**6} million, and at "
                f"most {MOST_PIXELS // 10**6} million are read; make it smaller"
            )
        return image
    raise InputError("cannot identify its format; it is damaged or is not an image")


_limit_lock = threading.Lock()
_limit_users: list[int | None] = []  # one entry per user; the first is what to restore


@contextlib.contextmanager
def higher_limit() -> Iterator[None]:
    """Raise Pillow's own limit of pixels to ours meanwhile; some of its readers check it."""
    with _limit_lock:
        _limit_users.append(PillowImage.MAX_IMAGE_PIXELS)
        PillowImage.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        yield
    finally:
        with _limit_lock:
            before = _limit_users[0]
            _limit_users.pop()
            if not _limit_users:
                PillowImage.MAX_IMAGE_PIXELS = before


def page_numbers(image: PillowImage.Image) -> list[int]:
    """Numbers of an image's frames or pages.

    The second picture of an MPO photograph, smaller copies and masks among the pages of a TIFF, and
    the still picture of an animated PNG that is not part of the animation are left out.
    """
    count = getattr(image, "n_frames", 1)
    if image.format == "MPO" or count == 1:
        return [0]
    if image.format == "TIFF":
        numbers = []
        for number in range(count):
            image.seek(number)
            kind = getattr(image, "tag_v2", {}).get(NEW_SUBFILE_TYPE, 0)
            if not kind & (REDUCED | MASK):
                numbers.append(number)
        image.seek(0)
        return numbers or [0]
    return list(range(int(getattr(image, "default_image", False)), count))


def to_rgb(image: PillowImage.Image, levels: Levels | None = None) -> Image:
    """Convert an image of any Pillow mode to an RGB array; alpha is dropped, not blended.

    Args:
        image: the image.
        levels: the grey values that become black and white, of images of more than 8 bits; None
            does what the published preparation does: all values from 255 are white.
    """
    if levels is not None and (values := _deep_values(image)) is not None:
        low, high = levels
        scaled = (np.nan_to_num(values, nan=low) - low) * (255 / ((high - low) or 1.0))
        grey = scaled.round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if "transparency" in image.info:  # Pillow would warn that it drops the palette's alpha
        image = image.copy()
        del image.info["transparency"]
    return np.array(image.convert("RGB"))


def alpha_of(image: PillowImage.Image) -> Alpha | None:
    """Opacity of each pixel; None if all are opaque."""
    if not image.has_transparency_data:
        return None
    alpha = np.array(image.convert("RGBA").getchannel("A"))
    return None if (alpha == 255).all() else alpha


def levels_of(image: PillowImage.Image) -> Levels | None:
    """The grey values that become black and white, of an image of more than 8 bits.

    They are the full range of 16 bits (of 8 bits, for floating point) if the image uses a quarter
    of it; otherwise its own range, without the outermost 0.1 % of the values.

    Returns:
        Black and white; None for ordinary images.
    """
    values = _deep_values(image)
    if values is None:
        return None
    finite = values[np.isfinite(values)]
    if not finite.size:
        return FULL_8_BIT
    full = FULL_8_BIT if image.mode == "F" else FULL_16_BIT
    least, most = float(finite.min()), float(finite.max())
    if full[0] <= least and most <= full[1] and most - least >= NARROW * full[1]:
        return full
    low, high = (float(v) for v in np.percentile(finite, (OUTLIERS, 100 - OUTLIERS)))
    if low < high:
        return low, high
    return (least, most) if least < most else full


def say_levels(name: str, levels: Levels) -> None:
    """Log a note if grey values are stretched by their own range."""
    if levels not in (FULL_16_BIT, FULL_8_BIT):
        log.info(
            "the grey values %g to %g of %s become black to white, in all images alike",
            *(*levels, name),
        )


def _deep_values(image: PillowImage.Image) -> np.ndarray | None:
    """Grey values of an image of 16 bits, 32 bits or floating point; None of other images."""
    if image.mode == "F":
        return np.asarray(image, np.float64)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.asarray(image.convert("I")).astype(np.float64)
    return None


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
