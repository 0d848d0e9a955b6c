"""What a stream collects, in buffers that its states share without disturbing each other.

A state is a value: what it says never changes. Copying all that was collected for every frame would
be slow, so states share buffers that have room for more. Each state knows its own slots of them. A
new entry is written in place to a slot that no living state knows; if there is none, the entries
move to larger buffers. Forks, rewinds and looks without remembering thus need no copies, and a
stream that drops an entry for each one it takes goes round in buffers of one size.
"""

from collections.abc import Iterator, Mapping, Sequence
from threading import RLock
from weakref import ref

import torch
from jaxtyping import Int
from torch import Tensor

SMALLEST = 4  # entries that new buffers have room for
Sizes = Mapping[str, Sequence[int]]


def index_tensor(numbers: Sequence[int], device: torch.device) -> Int[Tensor, " numbers"]:
    """Return numbers as an index on a device, without waiting for what is queued there."""
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)


class _Buffers:
    """Tensors with room for entries along an axis, and who knows which slots of them."""

    def __init__(self, tensors: Mapping[str, Tensor], axis: int) -> None:
        self.tensors, self.axis = dict(tensors), axis
        self.capacity = min(tensor.shape[axis] for tensor in tensors.values())
        self.lock = RLock()
        self._holders: list[ref[Entries]] = []

    def hold(self, entries: "Entries") -> None:
        """Note who knows slots."""
        with self.lock:
            self._holders = [holder for holder in self._holders if holder() is not None]
            self._holders.append(ref(entries))

    def free(self) -> int | None:
        """The first slot that nobody knows; None if there is none."""
        known: set[int] = set()
        for holder in self._holders:
            if (entries := holder()) is not None:
                known.update(entries.slots)
        return next((slot for slot in range(self.capacity) if slot not in known), None)


class Entries(Mapping[str, Tensor]):
    """The entries that one state knows of, oldest first, by name.

    Args:
        buffers: where they lie.
        slots: of the entries in the buffers, oldest first.

    Attributes:
        slots: see above.
        span: number of slots up to the last that is known.
    """

    def __init__(self, buffers: _Buffers, slots: Sequence[int]) -> None:
        self._buffers, self.slots = buffers, tuple(slots)
        self.span = max(self.slots, default=-1) + 1
        buffers.hold(self)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], axis: int) -> "Entries":
        """Return `tensors` if they are entries, else as entries along `axis` without more room."""
        if isinstance(tensors, cls):
            return tensors
        buffers = _Buffers(tensors, axis)
        return cls(buffers, range(buffers.capacity))

    def __reduce__(self) -> tuple[object, ...]:
        return Entries.of, (dict(self), self._buffers.axis)

    def __getitem__(self, name: str) -> Tensor:
        """A copy of all entries of a name, oldest first."""
        return self.read(name).clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._buffers.tensors)

    def __len__(self) -> int:
        return len(self._buffers.tensors)

    @property
    def count(self) -> int:
        """How many entries there are."""
        return len(self.slots)

    @property
    def device(self) -> torch.device:
        """Where the buffers lie."""
        return next(iter(self._buffers.tensors.values())).device

    @property
    def nbytes(self) -> int:
        """Bytes of the entries, without the room for more."""
        whole = sum(tensor.nbytes for tensor in self._buffers.tensors.values())
        return whole * self.count // max(self._buffers.capacity, 1)

    def buffer(self, name: str) -> Tensor:
        """The slots of a name, known or not, up to the last known one."""
        return self._buffers.tensors[name].narrow(self._buffers.axis, 0, self.span)

    def read(self, name: str) -> Tensor:
        """All entries of a name, oldest first; they may change when this object is gone."""
        buffer = self.buffer(name)
        if self.slots == tuple(range(self.count)):
            return buffer
        return buffer.index_select(self._buffers.axis, index_tensor(self.slots, buffer.device))

    def take(self) -> "Entries | None":
        """Return the entries with one more slot, which may be written; None if none is free."""
        with self._buffers.lock:
            slot = self._buffers.free()
            return None if slot is None else Entries(self._buffers, (*self.slots, slot))

    def keep(self, chosen: Sequence[int]) -> "Entries":
        """Return only the entries of these numbers, in this order; nothing is copied."""
        return Entries(self._buffers, [self.slots[index] for index in chosen])

    def moved(
        self, rows: Sequence[Sequence[int]], most: int | None, sizes: Sizes | None = None
    ) -> "Entries":
        """Copy chosen entries into new buffers with room for at least one more.

        Args:
            rows: numbers of the entries of each stream of the batch, in order; streams with fewer
                than others are filled up with zeros.
            most: entries that will ever be kept; None for no limit.
            sizes: of the axes after that of the entries, by name; None for those there are. Only
                without entries may they change.
        """
        count, axis = max(len(row) for row in rows), self._buffers.axis
        capacity = max(SMALLEST, 2 * count)
        if most is not None:
            capacity = max(count + 1, min(capacity, most + 1))
        tensors = {}
        for name in self:
            old = self.read(name)
            inner = old.shape[axis + 1 :] if sizes is None else sizes[name]
            new = old.new_zeros(*old.shape[:axis], capacity, *inner)
            for sample, row in enumerate(rows):
                if row:
                    chosen = old[sample].index_select(axis - 1, index_tensor(row, old.device))
                    new[sample].narrow(axis - 1, 0, len(row)).copy_(chosen)
            tensors[name] = new
        return Entries(_Buffers(tensors, axis), range(count))
