"""Turns functions of numbers and arrays into machine code when they are first called.

A module that uses these decorators needs numba as soon as it is imported, so others import it where
they need it.
"""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ttt3r.errors import MissingExtraError

# No lock of the interpreter is held, so that threads run side by side. Divisions by zero give what
# the processor gives. Nothing may be reordered, so that results do not depend on the code around.
OPTIONS = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable) -> Callable:
    """Compile a function for calls from other compiled ones.

    Raises:
        MissingExtraError: if numba is not installed.
    """
    return _njit()(**OPTIONS)(inspect.unwrap(function))  # what wraps it, such as checks of types


def entry(function: Callable) -> Callable:
    """Compile a function for calls from Python; the machine code is kept on disk.

    Numba finds out that its file changed, but not that others did whose kernels it calls. So the
    function has to be a closure over `sources_digest()`, which is part of the key of what is kept.

    Raises:
        MissingExtraError: if numba is not installed.
    """
    plain = inspect.unwrap(function)
    try:
        return _njit()(**OPTIONS, cache=True)(plain)
    except RuntimeError:  # no folder that can be written to
        return _njit()(**OPTIONS)(plain)


def sources_digest() -> str:
    """A name for the present content of all modules whose numbers are compiled."""
    here = Path(__file__).parent
    constants = [here.parent / name for name in ("solids.py", "textures.py")]
    digest = hashlib.sha256()
    for path in [*sorted(here.glob("*.py")), *constants]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _njit() -> Any:
    try:
        from numba import njit
    except ImportError as error:
        raise MissingExtraError("numba", "training", "the fast renderer") from error
    return njit
