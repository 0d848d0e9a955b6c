"""What goes to the terminal besides results: errors, warnings and notes, one form for all."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

PACKAGE = "ttt3r"
WEIGHTS = "ttt3r.weights"  # its notes tell the licence, which is always shown
SOURCES = "ttt3r.sources"  # its notes tell how the input was read


def print_error(error: Exception) -> None:
    """Print an error that the user can fix."""
    print(f"error: {error}", file=sys.stderr)


def print_warning(text: object) -> None:
    """Print a warning."""
    print(f"warning: {text}", file=sys.stderr)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Show the package's log and Python's warnings on the standard error output meanwhile."""
    package, handler = logging.getLogger(PACKAGE), _Handler()
    noting = [logging.getLogger(name) for name in (WEIGHTS, SOURCES)]
    levels = [logger.level for logger in noting]
    package.addHandler(handler)
    for logger in noting:
        logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        package.removeHandler(handler)
        for logger, level in zip(noting, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def without_licence_notice() -> Iterator[None]:
    """Leave out what loading weights says, where the user did not ask for weights."""
    weights = logging.getLogger(WEIGHTS)
    level = weights.level
    weights.setLevel(logging.ERROR)
    try:
        yield
    finally:
        weights.setLevel(level)


class _Handler(logging.Handler):
    """Prints through `sys.stderr` as it is now, so that a progress bar can move out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.levelno >= logging.WARNING:
                print_warning(record.getMessage())
            elif record.name == WEIGHTS or record.name.startswith(f"{SOURCES}."):
                print(f"note: {record.getMessage()}", file=sys.stderr)
        except Exception:
            self.handleError(record)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print_warning(message)
