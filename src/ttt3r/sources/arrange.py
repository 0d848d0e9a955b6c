"""Frames turned by quarter turns and cropped to an aspect, before they are prepared.

For cameras that were held sideways and say nothing of it, and for networks that were trained on
landscape images only.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.base import Source
from ttt3r.types import Frame
from ttt3r.values import check_fields

_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,6})?)"
# Axes of a camera, and directions in the image, after a clockwise quarter turn.
_QUARTER_TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_ASPECT = re.compile(f"{_NUMBER}:{_NUMBER}")


@dataclass(frozen=True)
class Arrangement:
    """How every image of a stream is turned, and then cropped.

    Attributes:
        rotate: degrees by which images are turned clockwise: 0, 90, 180 or 270.
        crop: "WIDTH:HEIGHT", the aspect of the largest centred rectangle to keep of the turned
            image; its other side is truncated to whole pixels. None keeps everything.

    Raises:
        SettingError: if a value makes no sense.
    """

    rotate: int = 0
    crop: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rotate not in (0, 90, 180, 270):
            raise SettingError(
                f"rotate must be 0, 90, 180 or 270 degrees clockwise, not {self.rotate}"
            )
        if self.crop is not None:
            _aspect(self.crop)

    def describe(self) -> list[str]:
        """What is done, in order; empty if nothing is. "8:6" reads like "4:3"."""
        steps = [f"rotate {self.rotate}"] if self.rotate else []
        if self.crop is not None:
            width, height = _aspect(self.crop).as_integer_ratio()
            steps.append(f"crop {width}:{height}")
        return steps

    @staticmethod
    def parse(steps: Sequence[str]) -> "list[Arrangement]":
        """Read what `describe` gives, and `Arranged.describe` lists.

        Raises:
            SettingError: if a step is not known.
        """
        arrangements = []
        for step in steps:
            verb, _, value = step.partition(" ")
            if verb == "rotate" and value.isdecimal():
                arrangements.append(Arrangement(rotate=int(value)))
            elif verb == "crop":
                arrangements.append(Arrangement(crop=value))
            else:
                raise SettingError(f"this version of ttt3r cannot turn or cut by {step!r}")
        return arrangements

    def pixels(self, size: tuple[int, int]) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        """Where pixels go.

        Args:
            size: (width, height) of an image.

        Returns:
            Matrix from its homogeneous pixels to those of the arranged image, and that one's size.
        """
        matrix, (width, height) = np.eye(3), size
        for _ in range(self.rotate // 90):
            matrix = _QUARTER_TURN @ matrix + np.array(
                [[0.0, 0.0, height - 1.0], [0.0] * 3, [0.0] * 3]
            )
            width, height = height, width
        if self.crop is not None:
            left, top, width, height = _centred(width, height, _aspect(self.crop))
            matrix = matrix - np.array([[0.0, 0.0, left], [0.0, 0.0, top], [0.0] * 3])
        return matrix, (width, height)

    def apply(self, frame: Frame) -> Frame:
        """Turn and crop a frame; intrinsics follow it.

        The camera turns with its image, so the intrinsics keep their usual form. A cropped frame
        no longer knows its size in stored pixels; its pixels are square.

        Raises:
            InputError: if nothing is left of the image.
            SettingError: if the frame was already prepared for a network.
        """
        if frame.transform is not None:
            raise SettingError(
                f"frame {frame.index} was already resized, to {frame.image.shape[1]}x"
                f"{frame.image.shape[0]} pixels; frames are turned and cropped before that: give "
                "the original frame"
            )
        turns = self.rotate // 90
        intrinsics = frame.intrinsics
        if intrinsics is not None:
            size = frame.image.shape[:2]
            for turn in range(turns):
                intrinsics = _quarter_turned(intrinsics, height=size[turn % 2])
        image, alpha, stored = np.rot90(frame.image, -turns), frame.alpha, frame.stored_size
        alpha = None if alpha is None else np.rot90(alpha, -turns)
        if stored is not None and turns % 2:
            stored = stored[::-1]
        if self.crop is not None:
            left, top, width, height = _centred(image.shape[1], image.shape[0], _aspect(self.crop))
            if not (width and height):
                raise InputError(
                    f"a crop to {self.crop} leaves nothing of {frame.name or 'a frame'}, which "
                    f"has {image.shape[1]}x{image.shape[0]} pixels; give an aspect that is nearer "
                    "to the image's"
                )
            kept = slice(top, top + height), slice(left, left + width)
            image, alpha, stored = image[kept], None if alpha is None else alpha[kept], None
            if intrinsics is not None:
                intrinsics = intrinsics - np.array([[0.0, 0.0, left], [0.0, 0.0, top], [0.0] * 3])
        return replace(
            frame,
            image=np.ascontiguousarray(image),
            intrinsics=intrinsics,
            alpha=None if alpha is None else np.ascontiguousarray(alpha),
            stored_size=stored,
        )


class Arranged:
    """The frames of another source, turned and cropped.

    What is computed from them refers to the turned and cropped image: `Prediction.transform`
    starts from it, and poses are those of a camera that was turned along.

    Args:
        source: where the frames come from.
        arrangement: what is done to each.
    """

    def __init__(self, source: Source, arrangement: Arrangement) -> None:
        self._source = source
        self._arrangement = arrangement

    @property
    def length(self) -> int | None:
        """That of the source."""
        return self._source.length

    def describe(self) -> dict[str, Any]:
        """The source's description, and under "arranged" what is done to its images, in order."""
        description = self._source.describe()
        earlier = description.get("arranged", [])
        return {**description, "arranged": [*earlier, *self._arrangement.describe()]}

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the turned and cropped frames; see `Source.frames`.

        Raises:
            InputError: where the source raises it, or at an image of which the crop leaves nothing.
            SettingError: at a frame that was already prepared for a network.
        """
        for frame in self._source.frames(start):
            yield self._arrangement.apply(frame)


def _centred(width: int, height: int, aspect: Fraction) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the largest centred crop of this aspect; a side may be 0."""
    new_width, new_height = min(width, int(height * aspect)), min(height, int(width / aspect))
    return (width - new_width) // 2, (height - new_height) // 2, new_width, new_height


def _aspect(crop: str) -> Fraction:
    """Width over height.

    Raises:
        SettingError: if the text is not WIDTH:HEIGHT.
    """
    match = _ASPECT.fullmatch(crop)
    width, height = map(Fraction, match.groups()) if match else (Fraction(0), Fraction(0))
    if not (width and height):
        raise SettingError(
            "crop must be WIDTH:HEIGHT, two positive numbers such as 4:3, 1:1 or 16:9, not "
            f"{crop!r}"
        )
    return width / height


def _quarter_turned(intrinsics: Float[np.ndarray, "3 3"], height: int) -> Float[np.ndarray, "3 3"]:
    """Pinhole matrix after a clockwise quarter turn of an image of this height.

    The pixel (x, y) goes to (height - 1 - y, x), and the camera's axes turn alike.
    """
    axes = _QUARTER_TURN
    pixels = axes + np.array([[0.0, 0.0, height - 1.0], [0.0] * 3, [0.0] * 3])
    return pixels @ intrinsics @ axes.T
