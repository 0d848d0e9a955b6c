"""Files that a reader never sees half of, that outlive a power cut, and that one writer owns."""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What `flock` says where another process holds the lock; other errors mean that it cannot lock.
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
logger = logging.getLogger("ttt3r.files")
Record = TypeVar("Record")


def lock(path: Path) -> BinaryIO | None:
    """Hold a lock file until the result is closed; the system lets go if the process dies.

    The file is made if it is not there; its content is left alone.

    Where nothing can be locked (Windows, some network drives), a warning is logged instead.

    Returns:
        The open file, or None if another process holds it.
    """
    while True:
        file = path.open("ab")
        try:
            if fcntl is None:
                raise OSError(errno.ENOTSUP, "not supported on this system")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                file.close()
                return None
            logger.warning(
                "%s cannot be locked (%s): do not let two programs write to this folder",
                path,
                error.strerror or error,
            )
            return file
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # whoever held the lock has removed the file


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 with line feeds: the same bytes on every system.

    Raises:
        OSError: if the file cannot be written.
    """
    path.write_text(text, "utf-8", newline="\n")


def write_atomically(path: Path, write: Callable[[Path], object], *, sync: bool = False) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Args:
        path: the file to create or replace.
        write: called with the temporary path.
        sync: also wait until content and name are on the disk.

    Raises:
        OSError: whatever writing raised; the temporary file is removed and `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        if sync:
            _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


@contextlib.contextmanager
def new_whole(path: Path) -> Iterator[Path]:
    """Give a path at which to create a file or a folder that becomes `path` if all goes well.

    It has the name of `path` and lies in a temporary folder beside it, which is removed at the end.
    What is at `path` is replaced, a folder with all it holds.

    Raises:
        OSError: if it cannot be moved into place; `path` is as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    before = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary / path.name
        try:
            if path.is_dir() and not path.is_symlink():
                path.replace(before)
            (temporary / path.name).replace(path)
        except BaseException:
            if before.exists() and not path.exists():
                before.replace(path)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_files(paths: Iterable[Path]) -> None:
    """Wait until the content of files is on the disk, and their names in their folders.

    Raises:
        OSError: if a file is missing or the disk fails.
    """
    folders = set()
    for path in paths:
        _sync(path)
        folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can be asked for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network drives cannot; the files themselves are synced
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with path.open("r+b") as stream:  # Windows syncs only what is open for writing
        os.fsync(stream.fileno())


def user_path(path: str | Path) -> Path:
    """A path as people type it: `~` stands for their home folder."""
    return Path(path).expanduser()


def with_user_paths(settings: Record) -> Record:
    """Return a dataclass in whose paths `~` stands for the user's home folder."""
    changed: dict[str, Any] = {}
    for field in fields(cast(Any, settings)):
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            changed[field.name] = user_path(value)
        elif isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
            changed[field.name] = tuple(user_path(item) for item in value)
    return replace(cast(Any, settings), **changed)


def has_text_name(path: Path) -> bool:
    """Whether a whole path is valid UTF-8, without which files of tensors cannot be read back."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    r"""Return a file's name as valid UTF-8: bytes that are not become, for example, ``\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def bytes_text(count: int) -> str:
    """A number of bytes in a readable unit, such as "1.5 MB"."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def to_json(value: Any, indent: int | None = None) -> str:
    """Write JSON that every program reads: numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, sort_keys=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
