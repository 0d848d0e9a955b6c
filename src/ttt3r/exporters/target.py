"""The place an export is written to: whole or not at all, and by one at a time."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttt3r.errors import RunError
from ttt3r.files import lock, new_whole, to_json, write_text
from ttt3r.version import __version__

# In a folder that was exported; says that, and of what, so that it may be replaced.
NOTE = "ttt3r-export.json"


@contextlib.contextmanager
def target(path: Path, format: str, *, folder: bool, overwrite: bool) -> Iterator[Path]:
    """Give the path of a file to create, or of an empty folder to fill, that becomes `path`.

    It is moved to `path` when the context ends well, and removed otherwise.

    Args:
        path: file or folder; folders on the way are made.
        format: what is written, for the note in a folder.
        folder: whether it is one.
        overwrite: replace a file, or a folder that holds an export and nothing else.

    Raises:
        RunError: if something is there that must stay, or another process writes there.
        OSError: if it cannot be written.
    """
    _check(path, folder=folder, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_name(f".{path.name}.lock")
    held = lock(lock_path)
    if held is None:
        raise RunError(f"another export is writing {path}; wait for it, or choose another place")
    try:
        with new_whole(path) as temporary:
            if folder:
                temporary.mkdir()
            yield temporary
            if folder:
                _note(temporary, format)
            _check(path, folder=folder, overwrite=overwrite)  # much time may have passed
    finally:
        lock_path.unlink(missing_ok=True)
        held.close()


def _check(path: Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse, without changing anything, to replace what must stay."""
    if not path.exists() and not path.is_symlink():
        return
    if path.is_dir() != folder:
        kinds = ("folder", "file") if folder else ("file", "folder")
        raise RunError(
            f"cannot write {path}: the format needs a {kinds[0]}, and this is a {kinds[1]}; "
            "choose another place: --out"
        )
    if folder and not any(path.iterdir()):
        return
    if not overwrite:
        raise RunError(
            f"{path} exists already; add --overwrite (in Python, overwrite=True), or choose "
            "another place: --out"
        )
    if folder and (others := _others(path)):
        raise RunError(
            f"{path} holds files that no export wrote ({', '.join(others[:5])}); move them away, "
            "or choose another place: --out"
        )


def _others(folder: Path) -> list[str]:
    """Names in a folder that an export did not write there."""
    written: Any = None
    with contextlib.suppress(OSError, ValueError):
        written = json.loads((folder / NOTE).read_text("utf-8"))
    names = written.get("content") if isinstance(written, dict) else None
    known = {NOTE, *names} if isinstance(names, list) else set()
    return sorted(item.name for item in folder.iterdir() if item.name not in known)


def _note(folder: Path, format: str) -> None:
    content = sorted(item.name for item in folder.iterdir())
    note = {"format": format, "ttt3r": __version__, "content": content}
    write_text(folder / NOTE, to_json(note, indent=2) + "\n")
