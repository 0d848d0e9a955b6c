"""From a decoded picture of a video to upright RGB of 8 bits with square pixels."""

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image as PillowImage

from ttt3r.sources.colour import kind_of, table
from ttt3r.types import Image

WIDEST_PIXEL = 16  # width over height, or height over width; more is a mistake in the file


def upright_rgb(
    picture: VideoFrame, pixel_aspect: Fraction | None = None
) -> tuple[Image, tuple[int, int] | None]:
    """Convert a decoded picture to RGB, make its pixels square and turn it as the file asks.

    The shorter side of a pixel is stretched, so that no detail is lost. HDR and BT.2020 become SDR
    (see `ttt3r.sources.colour`). The file's display matrix is one of the eight flips and quarter
    turns; others are rounded to them.

    Args:
        picture: the decoded picture.
        pixel_aspect: width of a stored pixel over its height; None means 1.

    Returns:
        The image, and (width, height) of the upright picture in stored pixels if it was stretched.
    """
    image = picture.to_ndarray(format="rgb24")
    stored = size = image.shape[1], image.shape[0]
    if (kind := kind_of(picture)) is not None:
        image = np.asarray(PillowImage.fromarray(image).filter(table(kind)))
    if pixel_aspect and 1 / WIDEST_PIXEL <= pixel_aspect <= WIDEST_PIXEL:
        wide, high = max(pixel_aspect, 1), max(1 / pixel_aspect, 1)
        size = round(stored[0] * wide), round(stored[1] * high)
    if size != stored:
        stretched = PillowImage.fromarray(image).resize(size, PillowImage.Resampling.BICUBIC)
        image = np.asarray(stretched)
    (xx, yx), (xy, yy) = _display_matrix(picture)  # shown = [[xx, xy], [yx, yy]] @ stored
    turned = abs(xx) < abs(xy)
    if turned:
        image, xx, yy = image.transpose(1, 0, 2), xy, yx
    if xx < 0:
        image = image[:, ::-1]
    if yy < 0:
        image = image[::-1]
    # A copy, as the array may be a view of memory that the decoder owns.
    upright = np.array(image, dtype=np.uint8, order="C")
    return upright, None if size == stored else (stored[::-1] if turned else stored)


def _display_matrix(picture: VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        data = picture.side_data.get("DISPLAYMATRIX")  # pyright: ignore[reportAttributeAccessIssue]
    except ValueError:  # side data of a kind that PyAV does not know
        data = None
    if data is None:
        return (1, 0), (0, 1)
    matrix = np.frombuffer(bytes(data), dtype=np.int32)
    return (int(matrix[0]), int(matrix[1])), (int(matrix[3]), int(matrix[4]))
