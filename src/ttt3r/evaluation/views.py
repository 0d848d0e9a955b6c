"""True frames at the size that a network is shown, and their pointmaps."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from PIL import Image as PillowImage

from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.sequences import TrueFrame
from ttt3r.geometry import camera, se3
from ttt3r.types import Image

SCALE_MARGIN = 1e-8  # so that rounding down never loses a pixel
SWAP_AXES = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class View:
    """A true frame at the size that a network is shown.

    Attributes:
        image: RGB.
        depth: metres, 0 where unknown.
        intrinsics: pinhole matrix, pixels.
        world_from_camera: true pose; None if unknown. A portrait frame is transposed, which makes
            this the product of its pose and a swap of the camera's x and y, a reflection.
    """

    image: Image
    depth: Float32[np.ndarray, "height width"]
    intrinsics: Float64[np.ndarray, "3 3"]
    world_from_camera: Float64[np.ndarray, "4 4"] | None


def unproject(
    depth: Float[np.ndarray, "height width"],
    intrinsics: Float[np.ndarray, "3 3"],
    world_from_camera: Float[np.ndarray, "4 4"],
) -> tuple[Float32[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Return the true pointmap of a view in the world, and where it is known.

    Args:
        depth: z in the camera's frame, metres; known where it is positive and finite.
        intrinsics: pinhole matrix, pixels.
        world_from_camera: pose.

    Returns:
        Points [height, width, 3], the camera's position where depth is unknown; and the mask.

    Raises:
        InputError: if the intrinsics or the pose are not finite.
    """
    if not (np.isfinite(intrinsics).all() and np.isfinite(world_from_camera).all()):
        raise InputError("the pose or the intrinsics are not finite; leave the frame out")
    valid = np.asarray((depth > 0.0) & np.isfinite(depth))
    known, matrix, pose = (
        torch.from_numpy(array.astype(np.float64))
        for array in (np.where(valid, depth, 0.0), intrinsics, world_from_camera)
    )
    return se3.apply(pose, camera.unproject(known, matrix)).float().numpy(), valid


def prepare_view(true: TrueFrame, size: tuple[int, int]) -> View:
    """Cut and resize a frame to a network's size, as the published evaluation does.

    The image is cut symmetrically about its rounded principal point, resized so that it covers
    `size`, and cut to it. The principal point follows in fractions of a pixel, whereas the last
    cut is at whole pixels, so the two may differ by up to half a pixel. Images are filtered
    (Lanczos, bicubic where they grow); of depth, the pixel at the rounded down position is taken.

    Args:
        true: a frame with depth and intrinsics. If its depth has another size, the image is
            first brought to that.
        size: (width, height) in pixels. If that is landscape, portrait frames are transposed.

    Raises:
        InputError: if depth or intrinsics are missing, or the principal point is not inside.
        SettingError: if `size` is not positive.
    """
    if min(size) < 1:
        raise SettingError(f"views of {size[0]}x{size[1]} pixels; both must be positive")
    view = _match_sizes(true)
    height, width = view.depth.shape
    if height > width and size[0] > size[1]:
        view = _transposed(view)
    return _resized(_centred(view), size)


def _match_sizes(true: TrueFrame) -> View:
    """Bring the image, and with it the intrinsics, to the size of the depth map."""
    if true.depth is None or true.intrinsics is None:
        raise InputError("a frame has no true depth or no intrinsics; reconstruction needs both.")
    height, width = true.depth.shape
    image, intrinsics = true.image, true.intrinsics.astype(np.float64)
    scale = width / image.shape[1], height / image.shape[0]
    if scale != (1.0, 1.0):
        image = _resize_image(image, (width, height))
        intrinsics = _scaled(intrinsics, scale)
    return View(image, true.depth, intrinsics, true.world_from_camera)


def _transposed(view: View) -> View:
    pose = view.world_from_camera
    if pose is not None:
        pose = pose.copy()
        pose[:3, :3] = pose[:3, :3] @ SWAP_AXES
    image, depth = view.image.swapaxes(0, 1), view.depth.T
    return View(image, depth, SWAP_AXES @ view.intrinsics @ SWAP_AXES, pose)


def _centred(view: View) -> View:
    """Cut so that the rounded principal point is in the middle."""
    height, width = view.depth.shape
    centre = view.intrinsics[:2, 2]
    if not np.isfinite(view.intrinsics).all() or not (view.intrinsics[[0, 1], [0, 1]] > 0.0).all():
        raise InputError("the intrinsics are not finite with positive focal lengths; check them.")
    u, v = (round(float(c)) for c in centre)
    if not (0 < u < width and 0 < v < height):
        raise InputError(
            f"the principal point ({centre[0]:.1f}, {centre[1]:.1f}) is not inside of the image of "
            f"{width}x{height} pixels. Are the intrinsics those of another size?"
        )
    half = min(u, width - u), min(v, height - v)
    return _cut(view, u - half[0], v - half[1], 2 * half[0], 2 * half[1])


def _cut(view: View, left: int, top: int, width: int, height: int) -> View:
    rows, columns = slice(top, top + height), slice(left, left + width)
    return View(
        view.image[rows, columns],
        view.depth[rows, columns],
        _shifted(view.intrinsics, -float(left), -float(top)),
        view.world_from_camera,
    )


def _resized(view: View, size: tuple[int, int]) -> View:
    """Resize so that `size` is covered, and cut the middle."""
    height, width = view.depth.shape
    scale = max(size[0] / width, size[1] / height) + SCALE_MARGIN
    resized = math.floor(width * scale), math.floor(height * scale)
    rows, columns = (
        np.minimum((np.arange(new) * (old / new)).astype(np.int64), old - 1)
        for old, new in ((height, resized[1]), (width, resized[0]))
    )
    surplus = [(old * scale - new) / 2.0 for old, new in zip((width, height), size, strict=True)]
    left, top = (round(value) for value in surplus)
    covering = View(
        _resize_image(view.image, resized),
        view.depth[rows[:, None], columns],
        _scaled(view.intrinsics, (scale, scale)),
        view.world_from_camera,
    )
    exact = _shifted(covering.intrinsics, -surplus[0], -surplus[1])
    return replace(_cut(covering, left, top, *size), intrinsics=exact)


def _resize_image(
    image: Image, size: tuple[int, int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    shrinks = size[0] <= image.shape[1]
    filter_ = PillowImage.Resampling.LANCZOS if shrinks else PillowImage.Resampling.BICUBIC
    return np.array(PillowImage.fromarray(np.ascontiguousarray(image)).resize(size, filter_))


def _scaled(
    intrinsics: Float64[np.ndarray, "3 3"], scale: tuple[float, float]
) -> Float64[np.ndarray, "3 3"]:
    """Follow an image that is resized; pixel centres are at integers."""
    shifted = _shifted(intrinsics, 0.5, 0.5)
    return _shifted(np.diag([*scale, 1.0]) @ shifted, -0.5, -0.5)


def _shifted(
    intrinsics: Float64[np.ndarray, "3 3"], right: float, down: float
) -> Float64[np.ndarray, "3 3"]:
    return intrinsics + np.array([[0.0, 0.0, right], [0.0, 0.0, down], [0.0, 0.0, 0.0]])
