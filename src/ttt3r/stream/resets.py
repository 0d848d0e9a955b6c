"""Resets: when a stream forgets on purpose and starts a new segment.

A recurrent state serves best near the length it was trained on. A reset ends a segment: the frame
that ends it is shown again to the fresh state, and `stitching` joins the two.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from ttt3r import values
from ttt3r.errors import SettingError


@runtime_checkable
class Reset(Protocol):
    """Decides where segments end. Implementations are frozen dataclasses."""

    name: ClassVar[str]

    def ends_segment(self, index: int) -> bool:
        """Whether the frame at `index` (from 0) is the last of its segment."""
        ...


@dataclass(frozen=True)
class Never(values.Value):
    """One segment, whatever the length."""

    name: ClassVar[str] = "never"

    def ends_segment(self, index: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Every(values.Value):
    """Segments of a fixed number of frames.

    Args:
        frames: frames per segment, at least 2.

    Raises:
        SettingError: if `frames` is not a whole number of at least 2.
    """

    frames: int

    name: ClassVar[str] = "every"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2:
            raise SettingError(f"a segment needs at least 2 frames, not {self.frames}")

    def ends_segment(self, index: int) -> bool:
        """Every `frames`-th frame."""
        return (index + 1) % self.frames == 0


REGISTRY = values.Registry("reset", [Never, Every], default=Never())


def parse(reset: Any = None) -> Reset:
    """Return a reset from None (never), a number of frames, its text, or as it is.

    Raises:
        SettingError: if it is not a reset.
    """
    if isinstance(reset, str) and reset.strip().isdecimal():
        reset = int(reset)
    return Every(reset) if type(reset) is int else REGISTRY.parse(reset)
