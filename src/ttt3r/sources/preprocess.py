"""Bring an image to the size that a network was trained on, and remember how.

The published preparation: resize so that the longer side is `size`, then cut the centre so that
both sides are multiples of the patch. At size 224 the shorter side becomes 224 and a square is cut.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.preprocess_vggt import LARGEST_ASPECT, fit_to_width
from ttt3r.types import Frame, Image, ImagePolicy, ImageTransform

SQUARE_SIZE = 224


def prepare(
    image: Image, policy: ImagePolicy, *, crop: bool = True
) -> tuple[UInt8[np.ndarray, "new_height new_width 3"], ImageTransform]:
    """Resize and crop an image by the policy of a set of weights.

    Args:
        image: upright RGB.
        policy: the size, patch and treatment of square images.
        crop: False squeezes the image to the size it would be cropped to, as the published
            evaluation of video depth does, so that no pixel is lost.

    Returns:
        The new image, and how its pixels come from those of `image`.

    Raises:
        InputError: if the image is so narrow that no whole patch would be left.
    """
    height, width = image.shape[:2]
    transform = fit(width, height, policy)
    if transform == ImageTransform.identity(width, height):
        return image, transform
    picture = PillowImage.fromarray(image)
    shrinks = max(width, height) > max(transform.resized_size) and not policy.by_width
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


def prepare_frame(frame: Frame, policy: ImagePolicy, *, crop: bool = True) -> Frame:
    """Prepare a frame's image; intrinsics follow it, and `transform` says how it was made.

    Raises:
        InputError: if the image is too narrow.
        SettingError: if the frame was prepared before, for another size.
    """
    image, transform = prepare(frame.image, policy, crop=crop)
    if frame.transform is not None:
        if image is frame.image:
            return frame
        raise SettingError(
            f"frame {frame.index} was already resized, to {frame.image.shape[1]}x"
            f"{frame.image.shape[0]} pixels, which the policy of these weights (size "
            f"{policy.size}) does not keep; prepare the original frame"
        )
    intrinsics = frame.intrinsics
    if intrinsics is not None:
        intrinsics = transform.processed_from_original @ intrinsics
    return replace(frame, image=image, intrinsics=intrinsics, transform=transform)


def fit(width: int, height: int, policy: ImagePolicy) -> ImageTransform:
    """Return how an image of this size is resized and cropped; all in pixels.

    Raises:
        InputError: if the image is so narrow that no whole patch would be left.
        SettingError: if the policy's size is below its patch.
    """
    if policy.by_width:
        return fit_to_width(width, height, policy.size, policy.patch)
    size, patch = policy.size, policy.patch
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
        if resized[0] == resized[1] and not policy.square_ok:
            new_height = max(patch, 3 * new_width // 4 // patch * patch)
    left, top = resized[0] // 2 - new_width // 2, resized[1] // 2 - new_height // 2
    return ImageTransform((width, height), resized, (left, top, new_width, new_height))
