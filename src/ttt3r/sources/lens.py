"""Frames of a camera whose intrinsics are known, without the distortion of its lens."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ttt3r.errors import SettingError
from ttt3r.sources.base import Source
from ttt3r.sources.intrinsics import Intrinsics, Size
from ttt3r.types import Frame, Image

log = logging.getLogger(__name__)

STEPS = 4096  # radii at which the lens is asked whether it still spreads
NOTED = 0.005  # share of empty pixels that is worth a note


class Calibrated:
    """The frames of another source, with known intrinsics.

    Where the lens distorts, images are undistorted: the camera keeps its focal lengths and its
    principal point, and a pixel takes its colour from where the lens has moved it, between the four
    pixels there. What the lens did not see becomes black.

    Args:
        source: where the frames come from, neither turned nor cut.
        intrinsics: of all its images.

    Attributes:
        source: where the frames come from.
        intrinsics: of all its images.

    Raises:
        SettingError: if the source's frames are already turned or cut.
    """

    def __init__(self, source: Source, intrinsics: Intrinsics) -> None:
        if source.describe().get("arranged") or source.describe().get("intrinsics"):
            raise SettingError(
                "intrinsics hold for the original images: give them where the source is opened, "
                "once"
            )
        self.source, self.intrinsics = source, intrinsics
        self._undistortion: Undistortion | None = None

    @property
    def length(self) -> int | None:
        """That of the source."""
        return self.source.length

    def describe(self) -> dict[str, Any]:
        """The source's description, and the intrinsics."""
        return {**self.source.describe(), "intrinsics": self.intrinsics.describe()}

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the undistorted frames; see `Source.frames`.

        Raises:
            InputError: where the source raises it, or at an image of another size.
            SettingError: at a frame that has intrinsics of its own.
        """
        for frame in self.source.frames(start):
            yield self._apply(frame)

    def _apply(self, frame: Frame) -> Frame:
        if frame.intrinsics is not None or frame.transform is not None:
            raise SettingError(
                f"frame {frame.index} has intrinsics of its own, or was already resized; leave the "
                "intrinsics of the source out"
            )
        height, width = frame.image.shape[:2]
        size = (width, height)
        self.intrinsics.check(frame.stored_size or size, frame.name or f"frame {frame.index}")
        matrix = self.intrinsics.matrix
        if frame.stored_size is not None:  # stored pixels are not square, and were stretched
            matrix = _stretched(frame.stored_size, size) @ matrix
        if not self.intrinsics.distorts:
            return replace(frame, intrinsics=matrix)
        if self._undistortion is None or self._undistortion.size != size:
            self._undistortion = Undistortion(self.intrinsics, matrix, size)
        alpha = frame.alpha
        if alpha is not None:
            alpha = self._undistortion(np.repeat(alpha[..., None], 3, axis=2))[..., 0]
        image = self._undistortion(frame.image)
        return replace(frame, image=image, alpha=alpha, intrinsics=matrix)


class Undistortion:
    """Takes the distortion out of images of one size.

    Args:
        intrinsics: of the camera; its focal lengths and principal point do not count.
        matrix: pinhole matrix of the images, distorted and undistorted.
        size: (width, height) of the images.

    Attributes:
        size: of the images.
        empty: share of undistorted pixels that the lens did not see.
    """

    def __init__(
        self, intrinsics: Intrinsics, matrix: Float[np.ndarray, "3 3"], size: Size
    ) -> None:
        self.size = size
        places, outside = _places(intrinsics, matrix, size)
        self._outside = outside
        # grid_sample wants -1 and 1 for the centres of the outermost pixels
        sides = torch.tensor([max(side - 1, 1) for side in size], dtype=torch.float64)
        self._grid = (2 * places / sides - 1).float()[None]
        self.empty = float(outside.double().mean())
        if self.empty > NOTED:
            log.info(
                "%.1f %% of each undistorted image was not seen by the lens and is black",
                100 * self.empty,
            )

    def __call__(self, image: Image) -> Image:
        """Return the undistorted image."""
        channels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        sampled = functional.grid_sample(
            channels, self._grid, mode="bilinear", padding_mode="border", align_corners=True
        )[0]
        sampled.masked_fill_(self._outside, 0.0)
        return sampled.round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _places(
    intrinsics: Intrinsics, matrix: Float[np.ndarray, "3 3"], size: Size
) -> tuple[Float[Tensor, "height width 2"], Tensor]:
    """Where the lens shows each undistorted pixel (x, y), and which it did not see."""
    width, height = size
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    x, y = (u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1]
    shown_x, shown_y = intrinsics.distorted(x, y)
    places = np.stack(
        [shown_x * matrix[0, 0] + matrix[0, 2], shown_y * matrix[1, 1] + matrix[1, 2]], axis=-1
    )
    inside = (places >= -0.5).all(-1) & (places <= (width - 0.5, height - 0.5)).all(-1)
    inside &= np.hypot(x, y) < _largest_radius(intrinsics, float(np.hypot(x, y).max()))
    return torch.from_numpy(places), torch.from_numpy(~inside)


def _largest_radius(intrinsics: Intrinsics, needed: float) -> float:
    """Up to where the polynomial of the lens rises; beyond, it would show the inside again."""
    radii = np.linspace(0.0, needed, STEPS)
    shown, _ = intrinsics.distorted(radii, np.zeros(STEPS))
    falls = np.flatnonzero(np.diff(shown) <= 0)
    return float(radii[falls[0]]) if len(falls) else np.inf


def _stretched(stored: Size, size: Size) -> Float[np.ndarray, "3 3"]:
    """Matrix from stored pixels to those of the stretched image, centres at integers."""
    x, y = size[0] / stored[0], size[1] / stored[1]
    return np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])
