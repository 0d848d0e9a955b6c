"""Frames from memory: any iterable of arrays or Frames, such as a camera loop or a test."""

import math
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from typing import Any

import numpy as np

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.base import DEFAULT_FPS, Selection, select
from ttt3r.types import Frame

NAME = "the iterable of frames"


class ArraySource:
    """Frames from an iterable of uint8 arrays [height, width, 3] (RGB) or of Frames.

    Arrays get the time index / fps; Frames keep theirs, which must increase.

    Args:
        items: where the frames come from; an iterator can be read only once.
        selection: which frames to take.
        fps: frames per second of arrays; None means 30.
    """

    def __init__(self, items: Iterable[Any], selection: Selection, fps: float | None) -> None:
        self._items = items
        self._selection = selection
        self._fps_given = fps is not None
        self._fps = fps or DEFAULT_FPS
        self._consumed = False

    @property
    def length(self) -> int | None:
        """Number of frames if the iterable has a length and all times are taken."""
        whole = self._selection.start is None and self._selection.end is None
        if not whole or not isinstance(self._items, Sized):
            return None
        return math.ceil(len(self._items) / self._selection.stride)

    def describe(self) -> dict[str, Any]:
        """Settings; frames in memory have no identity that could be checked."""
        count = len(self._items) if isinstance(self._items, Sized) else None
        settings = self._selection.describe()
        return {"kind": "frames", "path": None, "files": count, "fps": self._fps, **settings}

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the selected frames; see `Source.frames`.

        Raises:
            InputError: if an item is not an RGB image or a time does not increase, or if a one-shot
                iterator is read again.
            SettingError: at a Frame if `fps` was given, since a Frame has a time.
        """
        iterator = iter(self._items)
        if iterator is self._items:
            if self._consumed:
                raise InputError(
                    "the frames come from an iterator that was already read; pass a list, or open "
                    "a new source"
                )
            self._consumed = True
        for index, seconds, frame in select(self._timed(iterator), self._selection, start, NAME):
            # Copies: frames are read ahead, and the caller may fill the same arrays again.
            alpha = None if frame.alpha is None else frame.alpha.copy()
            matrix = None if frame.intrinsics is None else frame.intrinsics.copy()
            image = frame.image.copy()
            own = replace(frame, image=image, alpha=alpha, intrinsics=matrix)
            yield replace(own, index=index, timestamp=seconds)

    def _timed(self, items: Iterable[Any]) -> Iterator[tuple[float, Frame]]:
        previous = -math.inf
        for number, item in enumerate(items):
            if isinstance(item, Frame):
                _check_image(item.image, number)
                if self._fps_given:
                    raise SettingError(
                        f"frame {number} has a time of its own, so fps ({self._fps:g}) would "
                        "change nothing: leave it out"
                    )
                frame, seconds = item, float(item.timestamp)
            else:
                _check_image(item, number)
                frame, seconds = Frame(item, name=f"frame {number}"), number / self._fps
            if seconds <= previous:
                raise InputError(
                    f"frame {number} has the timestamp {seconds} s after {previous} s; timestamps "
                    "must increase (pass plain arrays to have them made from fps)"
                )
            previous = seconds
            yield seconds, frame


def _check_image(image: Any, number: int) -> None:
    if not isinstance(image, np.ndarray):
        found = f"a {type(image).__name__}"
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        found = f"an array of {image.dtype} with shape {list(image.shape)}"
    else:
        return
    raise InputError(
        f"frame {number} is {found}; give NumPy arrays of uint8 with shape [height, width, 3], RGB"
    )
