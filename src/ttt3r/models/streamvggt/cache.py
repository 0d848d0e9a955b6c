"""Keys and values of past frames, and how the tokens of a new frame join them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.models.base import State
from ttt3r.models.growing import Entries

FRAMES = 2  # axis of a cached tensor


@dataclass(frozen=True)
class StreamVggtState(State):
    """All that StreamVGGT remembers of a batch of streams.

    Attributes:
        age: frames remembered since the stream began, those that have left the cache included;
            on the CPU.
        alive: cached frames that count, on the CPU; streams of a batch may differ in their number.
        cache: for each block across frames and each block of the camera head, the keys and values
            of cached frames, oldest first: [batch, heads, frames, tokens, channels]. Keys are
            normalised and rotated. A frame's tokens are its camera, its registers and its patches
            or, in the camera head, its camera at each iteration.
    """

    grows: ClassVar[frozenset[str]] = frozenset({"alive", "cache"})
    on_host: ClassVar[frozenset[str]] = frozenset({"age", "alive"})

    age: Int[Tensor, " batch"]
    alive: Bool[Tensor, "batch frames"]
    cache: Mapping[str, Tensor]


class Writer:
    """Puts a frame among those of a cache, one name at a time.

    What it returns lies in the order of the buffers; attention does not mind.

    Args:
        past: the frames before.
        taken: the same with a slot for the new frame; None to leave the buffers alone.
    """

    def __init__(self, past: Entries, taken: Entries | None) -> None:
        self._past, self._taken = past, taken
        self._own: dict[str, Tensor] = {}
        # The slot of the new frame, and how many slots are read.
        self.slot = past.count if taken is None else taken.slots[-1]
        self.span = past.count + 1 if taken is None else taken.span

    def visible(self, alive: Bool[Tensor, "batch frames"]) -> Bool[Tensor, "batch slots"] | None:
        """Slots that count: those of frames that are `alive`, and the new one; None if all do.

        The result lies where the cache does.
        """
        slots = range(self.span) if self._taken is None else self._taken.slots
        if len(slots) == self.span and bool(alive.all()):
            return None  # without a mask the kernels are faster
        mask = alive.new_zeros(len(alive), self.span)
        mask[:, list(slots)] = F.pad(alive, (0, 1), value=True)
        return mask.to(self._past.device, non_blocking=True)

    def add(
        self, name: str, entry: Float[Tensor, "batch heads tokens channels"]
    ) -> Float[Tensor, "batch heads slots tokens channels"]:
        """Add all tokens of the frame and return those of all slots."""
        room = self._room(name)
        room[:, :, self.slot] = entry
        return room

    def add_token(
        self, name: str, token: int, entry: Float[Tensor, "batch heads 1 channels"]
    ) -> Float[Tensor, "batch heads slots tokens channels"]:
        """Add one token of the frame and return all tokens; those not yet added are undefined."""
        room = self._own[name] = self._own[name] if name in self._own else self._room(name)
        room[:, :, self.slot, token] = entry[:, :, 0]
        return room

    def _room(self, name: str) -> Float[Tensor, "batch heads slots tokens channels"]:
        if self._taken is not None:
            return self._taken.buffer(name)
        return F.pad(self._past.read(name), (0, 0, 0, 0, 0, 1))


def alive_rows(alive: Bool[Tensor, "batch frames"]) -> list[list[int]]:
    """Return which frames count, for each stream."""
    return [[i for i, counts in enumerate(row) if counts] for row in alive.tolist()]


def rows_alive(rows: Sequence[Sequence[int]]) -> Bool[Tensor, "batch frames"]:
    """Return which frames count after `Entries.moved`, on the CPU."""
    lengths = torch.tensor([len(row) for row in rows])
    return torch.arange(max(len(row) for row in rows)) < lengths[:, None]


def frame_similarity(
    keys: Sequence[Float[Tensor, "heads frames tokens channels"]],
) -> Float[Tensor, "frames frames"]:
    """Return how alike frames are: the mean cosine between keys of the same token.

    Args:
        keys: of camera and register tokens, for each block across frames. These tokens stand for
            the whole frame, and lie at position zero, so that their keys are not rotated.
    """
    directions = [F.normalize(block.float(), dim=-1).transpose(0, 1) for block in keys]
    products = [x.flatten(1) @ x.flatten(1).mT / (x.shape[1] * x.shape[2]) for x in directions]
    return torch.stack(products).mean(0)
