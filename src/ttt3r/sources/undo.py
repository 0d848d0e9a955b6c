"""From the pixels that a network saw back to those of the file: crop, scale and turns undone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from ttt3r.sources.arrange import Arrangement
from ttt3r.types import ImageTransform

Size = tuple[int, int]  # (width, height)
# EXIF orientation of files whose pixels are turned: quarter turns clockwise that make them upright.
TURNS = {1: 0, 6: 1, 3: 2, 8: 3}


@dataclass(frozen=True)
class OriginalPixels:
    """Where the pixels of a processed image lie in the image it was made from.

    Attributes:
        size: (width, height) of the original image.
        original_from_processed: affine matrix of homogeneous pixels, centres at integers.
        turns: quarter turns, clockwise, from the original image to the processed one.
        known: pinhole matrix of the original image if it was given.
    """

    size: Size
    original_from_processed: Float[np.ndarray, "3 3"]
    turns: int = 0
    known: Float[np.ndarray, "3 3"] | None = None

    @staticmethod
    def identity(size: Size) -> "OriginalPixels":
        """The processed image itself."""
        return OriginalPixels(size, np.eye(3))

    @staticmethod
    def of(transform: ImageTransform) -> "OriginalPixels":
        """The image that was resized and cropped: upright, and turned and cut as asked for."""
        matrix = np.linalg.inv(transform.processed_from_original)
        return OriginalPixels(transform.original_size, matrix)

    @property
    def original_from_processed_axes(self) -> Float[np.ndarray, "3 3"]:
        """Rotation between the axes of the two cameras, which share their z."""
        matrix = np.eye(3)
        for _ in range(self.turns):
            matrix = matrix @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        return matrix

    def intrinsics(self, processed: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
        """Pinhole matrix of the original image, centres at integers; the given one if known."""
        if self.known is not None:
            return self.known
        return self.original_from_processed @ processed @ self.original_from_processed_axes.T

    def world_from_camera(self, processed: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """Pose of the camera that took the original image; the same one, turned back."""
        pose = np.array(processed, dtype=np.float64)
        if self.turns == 0:
            return pose
        pose[:3, :3] = pose[:3, :3] @ self.original_from_processed_axes.T
        return pose

    def pixels(self, processed: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 2"]:
        """Positions (x, y) in the original image, centres at integers."""
        matrix = self.original_from_processed
        return (matrix[:2, :2] @ processed.T + matrix[:2, 2:]).T

    def spread(
        self, values: Shaped[np.ndarray, "height width"], outside: float = 0
    ) -> Shaped[np.ndarray, "new_height new_width"]:
        """A map of the processed image over the original one, by the nearest pixel.

        Args:
            values: one value per processed pixel.
            outside: for original pixels that were cut away.
        """
        width, height = self.size
        processed = np.linalg.inv(self.original_from_processed)
        x, y = np.arange(width), np.arange(height)
        odd = self.turns % 2
        # Turns are quarter turns, so columns and rows each depend on one coordinate alone.
        columns = processed[0, 1] * y if odd else processed[0, 0] * x
        rows = processed[1, 0] * x if odd else processed[1, 1] * y
        columns = np.floor(columns + processed[0, 2] + 0.5).astype(np.int64)
        rows = np.floor(rows + processed[1, 2] + 0.5).astype(np.int64)
        found = values.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
        found[(rows < 0) | (rows >= values.shape[0])] = outside
        found[:, (columns < 0) | (columns >= values.shape[1])] = outside
        return np.ascontiguousarray(found.T if odd else found)


def undo(
    transform: ImageTransform, size: Size, arranged: Sequence[Arrangement] = (), turns: int = 0
) -> OriginalPixels:
    """The file's own pixels, with all that was done to its image undone.

    Args:
        transform: how the network's image was made from the arranged one.
        size: (width, height) of the upright image of the source.
        arranged: how that was turned and cut, in order.
        turns: quarter turns, clockwise, that made the file's pixels upright.
    """
    stored = current = size if turns % 2 == 0 else (size[1], size[0])
    processed_from_stored, all_turns = np.eye(3), 0
    for step in (Arrangement(90 * turns), *arranged):
        matrix, current = step.pixels(current)
        processed_from_stored = matrix @ processed_from_stored
        all_turns += step.rotate // 90
    # Stored pixels that are not square were stretched before; the transform starts from them.
    stretch_x, stretch_y = (
        given / now for given, now in zip(transform.original_size, current, strict=True)
    )
    stretch = np.array(
        [
            [stretch_x, 0.0, 0.5 * stretch_x - 0.5],
            [0.0, stretch_y, 0.5 * stretch_y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    processed = transform.processed_from_original @ stretch @ processed_from_stored
    return OriginalPixels(stored, np.linalg.inv(processed), all_turns % 4)
