"""SHA-256 of weight files, computed once and remembered beside the file.

Hashing 3 GB takes seconds. What was computed is kept as ``.NAME.sha256`` together with the size,
the time of the last change and the inode of the file, and is used as long as these are the same.
"""

import hashlib
import json
import os
import time
from pathlib import Path

from ttt3r.files import write_atomically, write_text

BIG = 64_000_000  # bytes; smaller files are hashed faster than a note on them is worth
SETTLED = 2.0  # seconds; a file that changed later than this may change again within one clock tick


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; remembered if it is known from before."""
    known = remembered(path)
    if known is not None:
        return known
    before = path.stat()
    digest = hash_file(path)
    is_settled = time.time() - before.st_mtime > SETTLED and _state(before) == _state(path.stat())
    if before.st_size >= BIG and is_settled and not _is_of_a_hub(path):
        remember(path, digest)
    return digest


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, computed anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_path(path: Path) -> Path:
    """Where the hash of a file is remembered."""
    return path.with_name(f".{path.name}.sha256")


def remembered(path: Path, *, even_if_changed: bool = False) -> str | None:
    """Return what is remembered of a file; None if there is nothing, or the file has changed."""
    try:
        note = json.loads(note_path(path).read_text("utf-8"))
        same = even_if_changed or note["state"] == _state(path.stat())
        return str(note["sha256"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def remember(path: Path, sha256: str) -> None:
    """Write the hash of a file beside it; folders that cannot be written to are left alone."""
    note = {"sha256": sha256, "state": _state(path.stat())}
    try:
        write_atomically(note_path(path), lambda file: write_text(file, json.dumps(note)))
    except OSError:
        return


def _state(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _is_of_a_hub(path: Path) -> bool:
    """Whether a file lies in the cache of another program, which is not ours to write into."""
    return "snapshots" in path.absolute().parent.parts
