"""Reset policies: when a stream forgets on purpose and starts a new segment.

A recurrent state serves best near the length it was trained on. A reset ends a segment: the frame
that ends it is shown again to the fresh state, and `stitching` joins the two.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from ttt3r import values
from ttt3r.errors import SettingError


@runtime_checkable
class ResetPolicy(Protocol):
    """Decides where segments end. Implementations are frozen dataclasses."""

    name: ClassVar[str]

    def ends_segment(self, index: int) -> bool:
        """Whether the frame at `index` (from 0) is the last of its segment."""
        ...


@dataclass(frozen=True)
class Never:
    """One segment, whatever the length."""

    name: ClassVar[str] = "never"

    def ends_segment(self, index: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Every:
    """Segments of a fixed number of frames.

    Args:
        frames: frames per segment, at least 2.

    Raises:
        SettingError: if `frames` is below 2.
    """

    frames: int

    name: ClassVar[str] = "every"

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise SettingError(f"a segment needs at least 2 frames, not {self.frames}")

    def ends_segment(self, index: int) -> bool:
        """Every `frames`-th frame."""
        return (index + 1) % self.frames == 0


REGISTRY: dict[str, type] = {"never": Never, "every": Every}


def parse(policy: "str | int | ResetPolicy | None") -> ResetPolicy:
    """Return a policy from None (never), a number of frames, its text, or as it is.

    Raises:
        SettingError: if it names no policy.
    """
    if policy is None:
        return Never()
    if isinstance(policy, str) and policy.strip().isdecimal():
        policy = int(policy)
    if isinstance(policy, int):
        return Every(policy)
    return values.from_text(policy, REGISTRY, "reset policy") if isinstance(policy, str) else policy
