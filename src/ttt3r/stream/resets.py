"""Resets: when a stream forgets on purpose and starts a new segment.

A recurrent state serves best near the length it was trained on. A reset ends a segment: its last
frame, or last few, are shown again to the fresh state, and `stitching` joins the two.

`Never` and `Every` know beforehand where segments end; `watching` has those that look.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.stream.watching import Drift, Keyframes, Watching, check_overlap


@runtime_checkable
class Planned(Protocol):
    """Decides by the number of frames where segments end; implemented by frozen dataclasses."""

    name: ClassVar[str]

    @property
    def overlap(self) -> int:
        """How many frames two segments share."""
        ...

    def ends_segment(self, index: int) -> bool:
        """Whether the frame at `index` (from 0) is the last of its segment."""
        ...


Reset = Planned | Watching


@dataclass(frozen=True)
class Never(values.Value):
    """One segment, whatever the length."""

    name: ClassVar[str] = "never"

    @property
    def overlap(self) -> int:
        """There is nothing to share a frame with."""
        return 1

    def ends_segment(self, index: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Every(values.Value):
    """Segments of a fixed number of frames.

    Args:
        frames: frames per segment, at least 2.
        overlap: how many frames two segments share: the last ones of the older are shown to the
            younger first.

    Raises:
        SettingError: if `frames` is not a whole number of at least 2, or `overlap` not one from 1
            to `frames`.
    """

    frames: int
    overlap: int = 1

    name: ClassVar[str] = "every"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2:
            raise SettingError(f"a segment needs at least 2 frames, not {self.frames}")
        check_overlap(self.overlap, self.frames)

    def ends_segment(self, index: int) -> bool:
        """Every `frames`-th frame."""
        return (index + 1) % self.frames == 0


REGISTRY = values.Registry("reset", [Never, Every, Keyframes, Drift], default=Never())


def may_be_shared(reset: Reset, index: int) -> bool:
    """Whether the frame at `index` may be one that two segments share."""
    if isinstance(reset, Watching):
        return True
    return any(reset.ends_segment(index + later) for later in range(reset.overlap))


def parse(reset: Any = None) -> Reset:
    """Return a reset from None (never), a number of frames, its text, or as it is.

    Raises:
        SettingError: if it is not a reset.
    """
    if isinstance(reset, str) and reset.strip().isdecimal():
        reset = int(reset)
    return Every(reset) if type(reset) is int else REGISTRY.parse(reset)
