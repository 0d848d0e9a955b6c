"""The published image preparation of VGGT, which keeps more of an image than `preprocess` does.

Images become `size` pixels wide, and portraits lose rows; or they are fitted into a square and
filled up with white. Both round the other side to a multiple of the patch, which may stretch the
image by up to half a patch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.images import to_rgb
from ttt3r.types import Image, ImageTransform

SIZE, PATCH, WHITE = 518, 14, 255
LARGEST_ASPECT = 64  # beyond it images would become gigantic strips

Prepared = UInt8[np.ndarray, "new_height new_width 3"]


def on_white(image: PillowImage.Image) -> Image:
    """Return an image of any Pillow mode as RGB; what is transparent becomes white."""
    if not image.has_transparency_data:
        return to_rgb(image)
    image = image.convert("RGBA")
    white = PillowImage.new("RGBA", image.size, (WHITE,) * 4)
    return to_rgb(PillowImage.alpha_composite(white, image))


def crop_to_width(
    image: Image, size: int = SIZE, patch: int = PATCH
) -> tuple[Prepared, ImageTransform]:
    """Make an image `size` pixels wide and cut rows beyond `size` from top and bottom.

    Args:
        image: upright RGB.
        size: new width in pixels, a multiple of `patch`.
        patch: the new height is a multiple of this.

    Returns:
        The new image, and how its pixels come from those of `image`.

    Raises:
        InputError: if the image is too narrow in either direction.
        SettingError: if `size` is no multiple of `patch`.
    """
    transform = fit_to_width(*_size(image), size, patch)
    _, top, _, height = transform.crop
    return _resize(image, transform.resized_size)[top : top + height], transform


def fit_to_width(width: int, height: int, size: int, patch: int) -> ImageTransform:
    """Return how `crop_to_width` brings an image of this size to its own.

    Raises:
        InputError, SettingError: as `crop_to_width`.
    """
    resized = _resized_size((width, height), (size, None), patch)
    kept = min(resized[1], size)
    return ImageTransform((width, height), resized, (0, (resized[1] - kept) // 2, size, kept))


def pad_to_square(
    image: Image, size: int = SIZE, patch: int = PATCH
) -> tuple[Prepared, ImageTransform]:
    """Make the longer side `size` pixels long and fill the shorter one up with white.

    Args:
        image: upright RGB.
        size: side of the square in pixels, a multiple of `patch`.
        patch: the shorter side of the resized image is a multiple of this.

    Returns:
        The square, and how its pixels come from those of `image`; the origin of the crop is
        negative where white was added before the image.

    Raises:
        InputError: if the image is too narrow in either direction.
        SettingError: if `size` is no multiple of `patch`.
    """
    width, height = _size(image)
    wanted = (size, None) if width >= height else (None, size)
    new_size = _resized_size((width, height), wanted, patch)
    left, top = ((size - side) // 2 for side in new_size)
    transform = ImageTransform((width, height), new_size, (-left, -top, size, size))
    return _pad(_resize(image, new_size), (size, size)), transform


def stack_padded(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
) -> UInt8[np.ndarray, "images height width 3"]:
    """Stack images of different sizes, each in the middle of a white one of the largest sides.

    Raises:
        InputError: if there are no images.
    """
    if not images:
        raise InputError("there are no images to stack; pass at least one")
    size = (max(image.shape[1] for image in images), max(image.shape[0] for image in images))
    return np.stack([_pad(image, size) for image in images])


def _size(image: Image) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _resized_size(
    sides: tuple[int, int], wanted: tuple[int | None, int | None], patch: int
) -> tuple[int, int]:
    """Return (width, height) with one side as wanted; the other, None, is whole patches."""
    width, height = sides
    if not height or not width:
        raise InputError("an image without pixels cannot be resized; check how it was read")
    given = next(side for side in wanted if side is not None)
    if patch < 1 or given < patch or given % patch:
        raise SettingError(f"the size ({given}) must be a multiple of the patch ({patch})")
    new_size = (
        wanted[0] or patch * round(width * given / height / patch),
        wanted[1] or patch * round(height * given / width / patch),
    )
    if min(new_size) < patch or max(width, height) > LARGEST_ASPECT * min(width, height):
        raise InputError(
            f"an image of {width}x{height} pixels is too narrow for size {given}: not one patch "
            f"of {patch} pixels would be left, or thousands. Crop the image, or cut it into pieces"
        )
    return new_size


def _resize(image: Image, size: tuple[int, int]) -> Prepared:
    return np.array(PillowImage.fromarray(image).resize(size, PillowImage.Resampling.BICUBIC))


def _pad(image: Image, size: tuple[int, int]) -> Prepared:
    """Put an image into the middle of a white one of (width, height)."""
    padded = np.full((size[1], size[0], 3), WHITE, np.uint8)
    left, top = ((whole - side) // 2 for whole, side in zip(size, _size(image), strict=True))
    padded[top : top + image.shape[0], left : left + image.shape[1]] = image
    return padded
