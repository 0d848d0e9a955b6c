"""Processes that train one network together, each on its own share of every batch."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.multiprocessing.spawn import spawn


@runtime_checkable
class Team(Protocol):
    """Who else is training, and how to agree with them."""

    rank: int
    """Number of this process, from 0."""
    size: int
    """How many there are."""

    def mean(self, values: Tensor) -> None:
        """Replace `values` by their mean over the team, in place."""
        ...

    def share(self, values: Tensor, owner: int) -> None:
        """Replace `values` by those of one process, in place."""
        ...

    def collect(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """What all processes hold under different names, together; only the first one gets it."""
        ...


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def mean(self, values: Tensor) -> None:
        """Leave the values as they are."""

    def share(self, values: Tensor, owner: int) -> None:
        """Leave the values as they are."""

    def collect(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the values as they are."""
        return values


class Several:
    """One of several processes, joined by `torch.distributed`."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def mean(self, values: Tensor) -> None:
        """See `Team`."""
        distributed.all_reduce(values)
        values /= self.size

    def share(self, values: Tensor, owner: int) -> None:
        """See `Team`."""
        distributed.broadcast(values, owner)

    def collect(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Team`."""
        first = self.rank == 0
        gathered: list[Any] | None = [None] * self.size if first else None
        distributed.gather_object(values, gathered)
        return {name: value for each in gathered or [] for name, value in each.items()}


Work = Callable[[Team], None]


def run_together(work: Work, size: int) -> None:
    """Call `work` in `size` processes on this machine, and return when all have returned.

    Args:
        work: can be pickled; gets its team.
        size: how many; 1 calls it in this process.

    Raises:
        Exception: what `work` raised in one of them; the others are stopped.
    """
    if size == 1:
        work(Alone())
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_member, (work, size, port), nprocs=size)


def _member(rank: int, work: Work, size: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)  # the products are small: processes outrun threads within a product
    torch.set_flush_denormal(True)
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    try:
        with suppress(KeyboardInterrupt):  # the first process says so for all
            work(Several())
    finally:
        distributed.destroy_process_group()
