"""Progress of a run on the standard error output: a bar on a terminal, else a line at times."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ttt3r.cli.command import bytes_text, duration_text

LINE_SECONDS = 5.0

Update = Callable[[int], None]
"""Called with the number of frames done so far, those of an earlier attempt included."""


@contextlib.contextmanager
def progress(
    total: int | None, start: int, memory: Callable[[], str], *, quiet: bool = False
) -> Iterator[Update]:
    """Show how far a run is.

    Args:
        total: expected number of frames, which may be wrong; None if unknown.
        start: frames done by an earlier attempt.
        memory: says how much memory is in use.
        quiet: show nothing.
    """
    if quiet:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(total, start, memory) as update:
            yield update
    else:
        lines = Lines(total, start, memory)
        try:
            yield lines.update
        finally:
            lines.finish()


class Lines:
    """Prints a line every few seconds, and one at the end."""

    def __init__(
        self,
        total: int | None,
        start: int,
        memory: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._start = self._done = self._shown = start
        self._memory = memory
        self._clock = clock
        self._began = self._last = clock()

    def update(self, done: int) -> None:
        """Note progress, and print it if the last line is old enough."""
        self._done = done
        if self._clock() - self._last >= LINE_SECONDS:
            self._print()

    def finish(self) -> None:
        """Print where it ended, unless the last line said so."""
        if self._done != self._shown:
            self._total = None
            self._print()

    def _print(self) -> None:
        self._last, self._shown = self._clock(), self._done
        rate = (self._done - self._start) / max(self._last - self._began, 1e-9)
        words = [f"{self._done} frames", f"{rate:.1f} fps"]
        if self._total is not None and self._done < self._total:
            words[0] = f"{self._done} of {self._total} frames"
            words.append(f"{duration_text((self._total - self._done) / rate)} left")
        print(", ".join([*words, self._memory()]), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(total: int | None, start: int, memory: Callable[[], str]) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    began = time.monotonic()
    columns = (
        TextColumn("{task.completed} of {task.fields[expected]} frames"),
        BarColumn(),
        TextColumn("{task.fields[rate]:.1f} fps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[memory]}"),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as shown:
        task = shown.add_task(
            "", total=total, completed=start, expected=total or "?", rate=0.0, memory=memory()
        )

        def update(done: int) -> None:
            rate = (done - start) / max(time.monotonic() - began, 1e-9)
            expected = None if total is None else max(total, done)
            shown.update(
                task,
                completed=done,
                total=expected,
                expected=expected or "?",
                rate=rate,
                memory=memory(),
            )

        yield update


def memory_text(device: str = "cpu") -> str:
    """Memory of this process, and what PyTorch holds on the device if it is a CUDA device."""
    size = resident_bytes()
    parts = [] if size is None else [f"{bytes_text(size)} memory"]
    if device.startswith("cuda"):
        import torch

        parts.append(f"{bytes_text(torch.cuda.memory_reserved(device))} on {device}")
    return ", ".join(parts)


def resident_bytes() -> int | None:
    """Memory of this process, in bytes; the peak where the present value is not to be had."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        pass
    else:
        import resource

        return pages * resource.getpagesize()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
