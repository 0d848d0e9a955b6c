"""What each thread of a run does when, as a trace to look at.

Nothing is recorded, and next to nothing computed, unless `recording` is at work. The file is in the
trace event format, which https://ui.perfetto.dev and ``chrome://tracing`` show. Spans say what the
program does; a GPU works through what it was asked for in its own time.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeVar

from ttt3r.errors import SettingError
from ttt3r.files import new_whole, user_path

T = TypeVar("T")

_NOTHING = contextlib.nullcontext()
_recorder: "_Recorder | None" = None  # of the process: spans come from several threads


def span(name: str) -> AbstractContextManager[None]:
    """Return a context whose time belongs to `name`, if a trace is recorded."""
    return _NOTHING if _recorder is None else _recorder.span(name)


def timed(name: str, items: Iterable[T]) -> Iterator[T]:
    """Yield the same items; the time that each takes to come belongs to `name`."""
    iterator = iter(items)
    while True:
        with span(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextlib.contextmanager
def recording(path: str | Path) -> Iterator[None]:
    """Record the spans of all threads into a file, which is there once the context has ended.

    Args:
        path: JSON file to write; an older one is replaced.

    Raises:
        SettingError: if it cannot be written, or a trace is already recorded.
    """
    global _recorder
    path = user_path(path)
    if _recorder is not None:
        raise SettingError("a profile is recorded already; end that one first")
    if path.is_dir():
        raise SettingError(f"the profile {path} is a folder; name a file, such as trace.json")
    with contextlib.ExitStack() as stack:
        try:
            whole = stack.enter_context(new_whole(path))
            file = stack.enter_context(whole.open("w", encoding="utf-8", newline="\n"))
        except OSError as error:
            raise SettingError(
                f"cannot write the profile {path}: {error.strerror or error}. Choose a file in a "
                "folder that is there and can be written."
            ) from error
        _recorder = _Recorder(file)
        try:
            yield
        finally:
            recorder, _recorder = _recorder, None
            recorder.end()


class _Recorder:
    """Writes spans as they end, so that memory does not grow."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._lock = file, threading.Lock()
        self._process, self._began = os.getpid(), time.perf_counter_ns()
        self._threads: set[int] = set()
        self._between, self._ended = "", False
        file.write('{"displayTimeUnit": "ms", "traceEvents": [')

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Record how long a block takes."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            self._note(name, start, time.perf_counter_ns())

    def end(self) -> None:
        """Complete the file; what ends later is not recorded."""
        with self._lock:
            self._ended = True
            self._file.write("\n]}\n")

    def _note(self, name: str, start: int, end: int) -> None:
        thread = threading.current_thread()
        number = thread.native_id or 0
        event: dict[str, Any] = {"name": name, "ph": "X", "pid": self._process, "tid": number}
        event |= {"ts": (start - self._began) / 1e3, "dur": (end - start) / 1e3}  # microseconds
        with self._lock:
            if self._ended:
                return
            if number not in self._threads:
                self._threads.add(number)
                named = {"name": "thread_name", "ph": "M", "pid": self._process, "tid": number}
                self._write(named | {"args": {"name": thread.name}})
            self._write(event)

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(f"{self._between}\n{json.dumps(event)}")
        self._between = ","
