"""Keys and values of past frames, in buffers that states share without disturbing each other.

A buffer holds more frames than a state knows of. Whoever is first to take the next free slot writes
there in place; a state whose next slot was taken by another moves to a buffer of its own. What a
state knows of is therefore never written again, and forks, rewinds and looks without remembering
need no copies.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.models.base import State

SMALLEST = 4  # frames that a new buffer has room for


@dataclass(frozen=True)
class StreamVggtState(State):
    """All that StreamVGGT remembers of a batch of streams.

    Attributes:
        age: frames remembered since the stream began, those that have left the cache included.
        alive: cached frames that count; streams of a batch may differ in their number.
        cache: for each block across frames and each block of the camera head, the keys and values
            of cached frames, oldest first: [batch, heads, frames, tokens, channels]. Keys are
            normalised and rotated. A frame's tokens are its camera, its registers and its patches
            or, in the camera head, its camera at each iteration.
    """

    grows: ClassVar[frozenset[str]] = frozenset({"alive", "cache"})

    age: Int[Tensor, " batch"]
    alive: Bool[Tensor, "batch frames"]
    cache: Mapping[str, Tensor]


class Ledger:
    """How many slots of a buffer are taken, by whichever state."""

    def __init__(self, filled: int) -> None:
        self._filled, self._lock = filled, Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Ledger, (self._filled,)  # a copy goes with a copy of the buffer

    def claim(self, slot: int) -> bool:
        """Take a slot; False if it was taken before."""
        with self._lock:
            free = slot == self._filled
            self._filled += free
            return free


class FrameCache(Mapping[str, Tensor]):
    """The frames that one state knows of, by name, and the buffers that they lie in.

    Args:
        buffers: [batch, heads, capacity, tokens, channels] by name.
        frames: how many of the frames in them count.
        ledger: shared by all caches that share the buffers.
    """

    def __init__(self, buffers: Mapping[str, Tensor], frames: int, ledger: Ledger) -> None:
        self.buffers, self.frames, self.ledger = buffers, frames, ledger

    @classmethod
    def of(cls, cache: Mapping[str, Tensor]) -> "FrameCache":
        """Return `cache` itself, or tensors by name as a cache without room."""
        if isinstance(cache, cls):
            return cache
        frames = min(tensor.shape[2] for tensor in cache.values())
        return cls(cache, frames, Ledger(frames))

    def __getitem__(self, name: str) -> Tensor:
        return self.buffers[name][:, :, : self.frames]

    def __iter__(self) -> Iterator[str]:
        return iter(self.buffers)

    def __len__(self) -> int:
        return len(self.buffers)

    def claim(self) -> bool:
        """Take the slot after the last frame; False if there is none, or it was taken."""
        room = self.frames < min(buffer.shape[2] for buffer in self.buffers.values())
        return room and self.ledger.claim(self.frames)

    def longer(self) -> "FrameCache":
        """Return the cache that also knows of the slot that was claimed."""
        return FrameCache(self.buffers, self.frames + 1, self.ledger)

    def moved(
        self, rows: Sequence[Sequence[int]], most: int | None, tokens: Mapping[str, int]
    ) -> "FrameCache":
        """Copy chosen frames into new buffers with room for at least one more.

        Args:
            rows: frames of each stream of the batch that are copied, in this order; streams with
                fewer frames than others are filled up with zeros.
            most: frames that will ever be needed; None for no limit.
            tokens: tokens of a frame, by name.
        """
        count = max(len(row) for row in rows)
        capacity = max(SMALLEST, 2 * count)
        if most is not None:
            capacity = max(count + 1, min(capacity, most + 1))
        buffers = {}
        for name, old in self.items():
            batch, heads, _, _, channels = old.shape
            new = old.new_zeros(batch, heads, capacity, tokens[name], channels)
            for sample, row in enumerate(rows):
                if row:
                    index = torch.tensor(row, device=old.device)
                    new[sample, :, : len(row)] = old[sample].index_select(1, index)
            buffers[name] = new
        return FrameCache(buffers, count, Ledger(count))


class Writer:
    """Puts a frame after those of a cache, one name at a time.

    Args:
        cache: the frames before; its next slot is claimed if `remember`.
        remember: False to leave the cache's buffers alone.
    """

    def __init__(self, cache: FrameCache, remember: bool) -> None:
        self._cache, self._remember = cache, remember
        self._own: dict[str, Tensor] = {}

    def add(
        self, name: str, entry: Float[Tensor, "batch heads tokens channels"]
    ) -> Float[Tensor, "batch heads frames tokens channels"]:
        """Add all tokens of the frame and return them after those of the frames before."""
        past = self._cache.frames
        if self._remember:
            buffer = self._cache.buffers[name]
            buffer[:, :, past] = entry
            return buffer[:, :, : past + 1]
        return (
            torch.cat((self._cache[name], entry[:, :, None]), dim=2) if past else entry[:, :, None]
        )

    def add_token(
        self, name: str, token: int, entry: Float[Tensor, "batch heads 1 channels"]
    ) -> Float[Tensor, "batch heads frames tokens channels"]:
        """Add one token of the frame and return all tokens; those not yet added are undefined."""
        if not self._remember and name not in self._own:
            self._own[name] = F.pad(self._cache[name], (0, 0, 0, 0, 0, 1))
        past = self._cache.frames
        buffer = self._cache.buffers[name] if self._remember else self._own[name]
        buffer[:, :, past, token] = entry[:, :, 0]
        return buffer[:, :, : past + 1]


def alive_rows(alive: Bool[Tensor, "batch frames"]) -> list[list[int]]:
    """Return which frames count, for each stream."""
    return [[i for i, counts in enumerate(row) if counts] for row in alive.tolist()]


def rows_alive(rows: Sequence[Sequence[int]], device: torch.device) -> Bool[Tensor, "batch frames"]:
    """Return which frames count after `FrameCache.moved`."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return torch.arange(max(len(row) for row in rows), device=device) < lengths[:, None]


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
