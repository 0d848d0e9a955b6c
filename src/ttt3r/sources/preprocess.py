"""Bring an image to the size that a network was trained on, and remember how.

The published preparation: resize so that the longer side is `size`, then cut the centre so that
both sides are multiples of the patch. At size 224 the shorter side becomes 224 and a square is cut.

VGGT's preparation differs: images become `size` wide, and the height is rounded to a multiple of
the patch, which may stretch the image by up to half a patch. Portraits lose rows. What is
transparent becomes white.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage

from ttt3r.errors import InputError, SettingError
from ttt3r.types import Frame, Image, ImageTransform, Preparation

SQUARE_SIZE = 224
LARGEST_ASPECT = 64  # beyond it images would become gigantic strips


def prepare(
    image: Image, preparation: Preparation, *, crop: bool = True
) -> tuple[UInt8[np.ndarray, "new_height new_width 3"], ImageTransform]:
    """Resize and crop an image by the preparation of a set of weights.

    Args:
        image: upright RGB.
        preparation: the size, patch and treatment of square images.
        crop: False squeezes the image to the size it would be cropped to, as the published
            evaluation of video depth does, so that no pixel is lost.

    Returns:
        The new image, and how its pixels come from those of `image`.

    Raises:
        InputError: if the image is so narrow that no whole patch would be left.
    """
    height, width = image.shape[:2]
    transform = fit(width, height, preparation)
    if transform == ImageTransform.identity(width, height):
        return image, transform
    picture = PillowImage.fromarray(image)
    shrinks = max(width, height) > max(transform.resized_size) and not preparation.by_width
    filter_ = PillowImage.Resampling.LANCZOS if shrinks else PillowImage.Resampling.BICUBIC
    picture = picture.resize(transform.resized_size, filter_)
    left, top, new_width, new_height = transform.crop
    if crop:
        picture = picture.crop((left, top, left + new_width, top + new_height))
    else:
        size = (new_width, new_height)
        picture = picture.resize(size, PillowImage.Resampling.LANCZOS)
        transform = ImageTransform((width, height), size, (0, 0, *size))
    return np.array(picture), transform


def prepare_frame(frame: Frame, preparation: Preparation, *, crop: bool = True) -> Frame:
    """Prepare a frame's image; intrinsics follow it, and `transform` says how it was made.

    Raises:
        InputError: if the image is too narrow.
        SettingError: if the frame was prepared before, for another size.
    """
    image = frame.image
    if preparation.by_width and frame.alpha is not None:
        image = on_white(image, frame.alpha)
    image, transform = prepare(image, preparation, crop=crop)
    if frame.transform is not None:
        if image is frame.image:
            return frame
        raise SettingError(
            f"frame {frame.index} was already resized, to {frame.image.shape[1]}x"
            f"{frame.image.shape[0]} pixels, which the preparation of these weights (size "
            f"{preparation.size}) does not keep; prepare the original frame"
        )
    intrinsics = frame.intrinsics
    if intrinsics is not None:
        intrinsics = transform.processed_from_original @ intrinsics
    if frame.stored_size is not None:  # one stretch after another is one stretch
        transform = replace(transform, original_size=frame.stored_size)
    return replace(frame, image=image, intrinsics=intrinsics, transform=transform, alpha=None)


def on_white(image: Image, alpha: UInt8[np.ndarray, "height width"]) -> Image:
    """Return an image blended onto white by its opacity, as VGGT's published loader does."""
    picture = PillowImage.fromarray(np.dstack([image, alpha]))
    white = PillowImage.new("RGBA", picture.size, (255,) * 4)
    return np.array(PillowImage.alpha_composite(white, picture).convert("RGB"))


def fit(width: int, height: int, preparation: Preparation) -> ImageTransform:
    """Return how an image of this size is resized and cropped; all in pixels.

    Raises:
        InputError: if the image is so narrow that no whole patch would be left.
        SettingError: if the preparation's size is below its patch.
    """
    if preparation.by_width:
        return _fit_to_width(width, height, preparation.size, preparation.patch)
    size, patch = preparation.size, preparation.patch
    if not 1 <= patch <= size:
        raise SettingError(f"the image size ({size}) must be at least the patch ({patch})")
    longest = max(width, height)
    square_rule = size == SQUARE_SIZE
    target = round(size * max(width / height, height / width)) if square_rule else size
    resized = (round(width * target / longest), round(height * target / longest))
    if min(resized) < patch or longest > LARGEST_ASPECT * min(width, height):
        raise InputError(
            f"an image of {width}x{height} pixels is too narrow for size {size}: its shorter side "
            f"would become {min(width, height) * size / longest:.1f} pixels and must be at least "
            f"{patch}. Crop the image, or cut it into pieces"
        )
    if square_rule:
        new_width = new_height = min(resized) // 2 * 2
    else:
        new_width, new_height = (side // patch * patch for side in resized)
        if resized[0] == resized[1] and not preparation.square_ok:
            new_height = max(patch, 3 * new_width // 4 // patch * patch)
    left, top = resized[0] // 2 - new_width // 2, resized[1] // 2 - new_height // 2
    return ImageTransform((width, height), resized, (left, top, new_width, new_height))


def _fit_to_width(width: int, height: int, size: int, patch: int) -> ImageTransform:
    """As `fit`, for images that become `size` wide and at most as high."""
    if patch < 1 or size < patch or size % patch:
        raise SettingError(f"the size ({size}) must be a multiple of the patch ({patch})")
    new_height = patch * round(height * size / width / patch) if width else 0
    if new_height < patch or max(width, height) > LARGEST_ASPECT * min(width, height):
        raise InputError(
            f"an image of {width}x{height} pixels is too narrow for size {size}: not one patch "
            f"of {patch} pixels would be left, or thousands. Crop the image, or cut it into pieces"
        )
    kept = min(new_height, size)
    crop = (0, (new_height - kept) // 2, size, kept)
    return ImageTransform((width, height), (size, new_height), crop)
