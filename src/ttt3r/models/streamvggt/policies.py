"""Cache policies: which frames a stream keeps looking at when it may not keep them all.

Cached keys and values know nothing of time, so frames may leave in any order. The first frame
always stays, because its camera is the world.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SettingError

# How alike the cached frames are, in the order in which they came; computed when called.
Similarity = Callable[[], Float[Tensor, "frames frames"]]


@runtime_checkable
class CachePolicy(Protocol):
    """Decides which frames stay. Implementations are frozen dataclasses."""

    name: ClassVar[str]

    @property
    def frames(self) -> int | None:
        """Most frames that are kept between steps; None for all."""
        ...

    def keep(self, count: int, similarity: Similarity) -> list[int]:
        """Return which of `count` frames stay, oldest first; asked when there are too many.

        Args:
            count: cached frames, more than `frames`; the last one is new.
            similarity: returns how alike the frames are.
        """
        ...


@dataclass(frozen=True)
class KeepAll(values.Value):
    """Keep every frame: memory and the time of a step grow with the stream, as published."""

    name: ClassVar[str] = "keep_all"

    @property
    def frames(self) -> None:
        """There is no limit."""
        return None

    def keep(self, count: int, similarity: Similarity) -> list[int]:
        """All of them."""
        return list(range(count))


@dataclass(frozen=True)
class Window(values.Value):
    """Keep the first frame and the latest ones.

    Args:
        frames: most frames that are kept, the first one included; at least 2.

    Raises:
        SettingError: if `frames` is below 2.
    """

    frames: int

    name: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_frames(self.frames)

    def keep(self, count: int, similarity: Similarity) -> list[int]:
        """The first, and the last `frames` − 1."""
        return [0, *range(count - self.frames + 1, count)]


@dataclass(frozen=True)
class Diverse(values.Value):
    """Keep the first frame, the latest one, and those that are least like any other.

    While there are too many frames, the two most similar ones are found and the older of them
    leaves; the first and the latest frame never do. A camera that stands still thus uses up no
    room, and views of places long left behind remain. How alike two frames are is measured on their
    cached keys, see `cache.frame_similarity`.

    Args:
        frames: most frames that are kept; at least 2.

    Raises:
        SettingError: if `frames` is below 2.
    """

    frames: int

    name: ClassVar[str] = "diverse"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_frames(self.frames)

    def keep(self, count: int, similarity: Similarity) -> list[int]:
        """Drop the older of the most similar pair until few enough are left."""
        alike = similarity().cpu().triu(diagonal=1)  # decided here, so that only this is waited for
        never = torch.ones_like(alike, dtype=torch.bool).tril()
        never[0, -1] = True  # neither of these two may leave
        alike = alike.masked_fill(never, -torch.inf)
        left = list(range(count))
        while len(left) > self.frames:
            older, newer = divmod(int(alike.argmax()), count)
            leaves = older or newer
            left.remove(leaves)
            alike[leaves], alike[:, leaves] = -torch.inf, -torch.inf
        return left


POLICIES = values.Registry("cache policy", [KeepAll, Window, Diverse], default=KeepAll())


def _check_frames(frames: int) -> None:
    if frames < 2:
        raise SettingError(
            f"a cache keeps at least 2 frames (the first and the latest), not {frames}"
        )
