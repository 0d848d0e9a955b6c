"""Writing files so that a reader never sees half of one, and two writers never meet."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def lock(path: Path) -> BinaryIO | None:
    """Hold a lock file until the result is closed; the system lets go if the process dies.

    Returns:
        The open file, or None if another process holds it.
    """
    file = path.open("wb")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
    return file


def write_atomically(path: Path, write: Callable[[Path], object], *, sync: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Args:
        path: the file to create or replace.
        write: called with the temporary path.
        sync: also wait until the content is on the disk.

    Raises:
        OSError: whatever writing raised; the temporary file is removed and `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        if sync:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
