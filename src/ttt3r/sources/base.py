"""What a source of frames is, and which of its frames are taken.

A source can be read any number of times (a one-shot iterator excepted) and always gives the same
frames, so that a run can stop and later continue with `frames(start=already_done)`.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from ttt3r.errors import InputError, SettingError
from ttt3r.types import Frame
from ttt3r.values import check_fields

T = TypeVar("T")

DEFAULT_FPS = 30.0  # of images that carry no time of their own

# Times that differ by less are the same: float64 seconds since 1970 are no finer than 0.2 µs.
TIME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Selection:
    """Which frames of a stream are taken: those in [start, end), and of these every stride-th.

    Attributes:
        stride: 1 takes every frame, 2 every other one, and so on.
        start: seconds after the first frame of the stream; None means from the first frame.
        end: seconds after the first frame, exclusive; None means to the last frame.

    Raises:
        SettingError: if a value makes no sense.
    """

    stride: int = 1
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            is_time = isinstance(value, int | float) and math.isfinite(value) and value >= 0
            if value is not None and not is_time:
                raise SettingError(f"{name} must be a time in seconds, 0 or more, not {value!r}")
        check_fields(self)
        if self.stride < 1:
            raise SettingError(f"stride must be at least 1, not {self.stride}")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise SettingError(
                f"end ({self.end} s) must lie after start ({self.start or 0.0} s); "
                "both are seconds after the first frame"
            )

    @property
    def everything(self) -> bool:
        """Whether no frame is left out."""
        return self == Selection()

    def describe(self) -> dict[str, Any]:
        """JSON-able settings, for a run manifest."""
        return {"stride": self.stride, "start": self.start, "end": self.end}


@runtime_checkable
class Source(Protocol):
    """A stream of frames that can be described and read from any position."""

    @property
    def length(self) -> int | None:
        """How many frames `frames()` yields; an estimate for videos, None if unknown."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-able identity and settings: equal for two sources that give the same frames.

        An entry "inputs", if there is one, lists what each frame is made from as text. A run keeps
        that list in a file of its own, and compares it when it is resumed.
        """
        ...

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the frames; `Frame.index` counts them from 0.

        Args:
            start: leave out this many frames that would be yielded first; the first frame to come
                has this index.

        Raises:
            InputError: at the frame that cannot be read, after all frames before it.
        """
        ...


def select(
    timed: Iterable[tuple[float, T]], selection: Selection, skip: int, name: str
) -> Iterator[tuple[int, float, T]]:
    """Pick the selected items from (seconds, item) pairs; yield (index, seconds, item).

    Args:
        timed: items with their time, in temporal order.
        selection: what to pick.
        skip: leave out this many of the picked items; indices count them nevertheless.
        name: what the stream is called in messages.

    Raises:
        SettingError: if `skip` is negative.
        InputError: if the selection is empty.
    """
    checked_skip(skip)
    first = last = None
    inside = 0
    for seconds, item in timed:
        first = seconds if first is None else first
        last = seconds - first
        if selection.end is not None and last > selection.end - TIME_TOLERANCE:
            break
        if selection.start is not None and last < selection.start - TIME_TOLERANCE:
            continue
        index, rest = divmod(inside, selection.stride)
        inside += 1
        if rest == 0 and index >= skip:
            yield index, seconds, item
    if last is None:
        raise InputError(f"{name} holds no frame; check that it was copied completely")
    if inside == 0:
        end = "its end" if selection.end is None else f"{selection.end:g} s"
        raise InputError(
            f"{name} has no frame between {selection.start or 0.0:g} s and {end}; the last frame "
            f"read lies at {last:.3f} s. Choose other values of start and end"
        )


def checked_skip(skip: int) -> int:
    """Return the number of frames to skip, or raise a SettingError if it is negative."""
    if skip < 0:
        raise SettingError(f"the frame to start from must be 0 or more, not {skip}")
    return skip
