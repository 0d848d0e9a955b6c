"""Encoding and writing files in threads, while the next frames are looked at."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

THREADS, WAITING = 2, 4


class Behind:
    """Calls that run in threads, in any order; made by `behind`."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._waiting: deque[Future[object]] = deque()

    def do(self, call: Callable[[], object]) -> None:
        """Run a call in a thread; if `WAITING` are under way, wait for the oldest of them first.

        Raises:
            Exception: what an earlier call raised.
        """
        if len(self._waiting) == WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(call))

    def finish(self) -> None:
        """Wait for all calls.

        Raises:
            Exception: what one of them raised.
        """
        while self._waiting:
            self._waiting.popleft().result()


@contextlib.contextmanager
def behind() -> Iterator[Behind]:
    """Run calls in a few threads; when it ends, all of them are done.

    If it ends by an error or by Ctrl-C, calls that have not begun are dropped, and none runs on.

    Raises:
        Exception: what a call raised.
    """
    pool = ThreadPoolExecutor(THREADS, "ttt3r-export")
    try:
        calls = Behind(pool)
        yield calls
        calls.finish()
    finally:
        pool.shutdown(cancel_futures=True)
