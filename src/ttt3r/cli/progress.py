"""Progress of a run on the standard error output: a bar on a terminal, else a line at times."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ttt3r.cli.command import duration_text
from ttt3r.files import bytes_text

LINE_SECONDS = 5.0

Update = Callable[[int], None]
"""Called with the number of frames done so far, those of an earlier attempt included."""


@contextlib.contextmanager
def progress(
    total: int | None,
    start: int,
    memory: Callable[[], str],
    *,
    quiet: bool = False,
    brief: bool = False,
) -> Iterator[Update]:
    """Show how far a run is.

    Args:
        total: expected number of frames, which may be wrong; None if unknown.
        start: frames done by an earlier attempt.
        memory: says how much memory is in use.
        quiet: show nothing.
        brief: show nothing of what is over within seconds, where there is no terminal.
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
            if lines.began_printing or not brief:
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

    @property
    def began_printing(self) -> bool:
        """Whether a line was printed."""
        return self._shown != self._start

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
        if self._total is not None and self._start < self._done < self._total:
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


@contextlib.contextmanager
def transfer() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show how far downloads and conversions are: bars on a terminal, else a line at each end.

    What it yields is called with what is done, and the bytes so far and of all of it.
    """
    if sys.stderr.isatty():
        with _transfer_bars() as update:
            yield update
        return
    lines = TransferLines()
    try:
        yield lines.update
    finally:
        lines.finish()


class TransferLines:
    """Prints one line for each thing that is done, when it ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._label, self._start, self._done, self._began = "", 0, 0, clock()

    def update(self, label: str, done: int, total: int | None) -> None:
        """Note progress; a new label ends what was done before."""
        if label != self._label:
            self.finish()
            self._label, self._start, self._began = label, done, self._clock()
        self._done = done

    def finish(self) -> None:
        """Print where it ended."""
        if not self._label:
            return
        seconds = max(self._clock() - self._began, 1e-9)
        rate = bytes_text(round(max(self._done - self._start, 0) / seconds))
        words = (f"{self._label}: {bytes_text(self._done)}", duration_text(seconds), f"{rate}/s")
        print(", ".join(words), file=sys.stderr, flush=True)
        self._label = ""


@contextlib.contextmanager
def _transfer_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with contextlib.ExitStack() as stack:
        shown = Progress(*columns, console=Console(stderr=True), redirect_stdout=False)

        def update(label: str, done: int, total: int | None) -> None:
            if not tasks:  # not before: a question may be asked first
                stack.enter_context(shown)
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total, completed=done)
            shown.update(tasks[label], completed=done, total=total)

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
    """Memory of this process, in bytes; its peak on systems that tell nothing else."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        pass
    else:
        return pages * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
