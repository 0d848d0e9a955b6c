"""Run an iterator ahead in a thread, so that decoding and computing overlap."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

from ttt3r.errors import SettingError

T = TypeVar("T")

POLL_SECONDS = 0.5  # how often a waiting consumer lets Ctrl-C in, where a lock would not
JOIN_SECONDS = 2.0


def prefetch(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """Yield the same items in the same order, computed ahead in a background thread.

    The thread starts with the first item asked for. An exception of `items` is raised here, after
    the items before it. Closing or dropping the generator stops the thread after the item it is
    working on, and closes `items`; a thread stuck in `items` does not keep the program alive.

    Args:
        items: what to compute ahead; it is iterated in the thread only.
        depth: how many items may wait at a time, the one being computed included.

    Raises:
        SettingError: if `depth` is below 1.
    """
    if depth < 1:
        raise SettingError(f"the prefetch depth must be at least 1, not {depth}")
    return _consume(items, depth)


def _consume(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    slots = threading.Semaphore(depth)
    stop = threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, ready, slots, stop), name="ttt3r-prefetch", daemon=True
    )
    thread.start()
    try:
        while True:
            try:
                kind, value = ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value
            slots.release()
            yield value
            del value
    finally:
        stop.set()
        slots.release()
        # The garbage collector may run this in the very thread it stops.
        if thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)


def _produce(
    items: Iterable[Any],
    ready: "queue.SimpleQueue[tuple[str, Any]]",
    slots: threading.Semaphore,
    stop: threading.Event,
) -> None:
    end: tuple[str, Any] = ("end", None)
    iterator: Iterator[Any] | None = None
    try:
        iterator = iter(items)
        while True:
            slots.acquire()
            if stop.is_set():
                break
            try:
                item = next(iterator)
            except StopIteration:
                break
            ready.put(("item", item))
            del item
    except BaseException as error:
        end = ("error", error)
    finally:
        close = getattr(iterator, "close", None)
        try:
            if callable(close):
                close()
        finally:
            ready.put(end)
