"""Programs that a test starts, watches and stops."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 240.0  # seconds; a machine that does other work is many times slower


@contextmanager
def started(command: list[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A running program, which does not outlive the test, however that ends."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing if the program has ended


def wait_until(
    condition: Callable[[], Any], process: "subprocess.Popen[str] | None" = None
) -> None:
    """Return once something is true.

    Ask for a file only if the program makes it whole at once: a file that is being written exists
    before anything is in it.

    Raises:
        AssertionError: if the program ends before, or nothing comes of the wait.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, "the program ended before"
        assert time.monotonic() < deadline, "nothing came of the wait"
        time.sleep(0.01)
