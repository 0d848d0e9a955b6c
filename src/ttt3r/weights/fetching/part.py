"""A file that is not whole yet: ``NAME.part``, and ``NAME.part.json`` on where it comes from."""

import errno
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ttt3r.errors import WeightsError
from ttt3r.files import bytes_text, sync_folder, write_atomically, write_text

SYNC_EVERY = 32_000_000  # bytes between two notes of what is surely on the disk


@dataclass
class Origin:
    """What is known of the content that a part is the beginning of.

    Attributes:
        place: where it comes from, as the catalogue writes it.
        validator: what the server calls this version of the file, for ``If-Range``; None if the
            server does not say.
        total: length of the whole file in bytes; None if the server does not say.
        synced: bytes that are surely on the disk.
    """

    place: str = ""
    validator: str | None = None
    total: int | None = None
    synced: int = 0


def part_path(target: Path) -> Path:
    """Where a file is built up until it is whole."""
    return target.with_name(f"{target.name}.part")


class Part:
    """The beginning of a file, with the hash of what is there.

    Attributes:
        length: bytes so far.
        origin: of the content.
        resumed: whether it came by several requests, so that it may be of different files.
    """

    def __init__(self, target: Path, hash_is_known: bool) -> None:
        """Take up what an earlier attempt left.

        Args:
            target: the file to be.
            hash_is_known: whether the whole will be compared with a hash. If not, only what was
                surely on the disk is taken up.

        Raises:
            WeightsError: if the folder cannot be written to.
        """
        self.target, self.path = target, part_path(target)
        self._note = self.path.with_name(f"{self.path.name}.json")
        self.origin = self._read_note()
        try:
            self._file: BinaryIO = self.path.open("r+b" if self.path.exists() else "w+b")
        except OSError as error:
            raise self._cannot_write(error) from error
        there = self.path.stat().st_size if self.origin.place else 0
        self.length = there if hash_is_known else min(there, self.origin.synced)
        self._hash = hashlib.sha256()
        self._take_up()
        self.resumed = self.length > 0

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file.closed:
            return
        try:
            self._settle()
        except OSError:  # the disk is full; what was noted before still holds
            pass
        finally:
            self._close()
        if self.length == 0:
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Hash of what is there so far."""
        return self._hash.hexdigest()

    def begin(self, origin: Origin) -> None:
        """Start over with other content.

        Raises:
            WeightsError: if the disk cannot be written to.
        """
        try:
            self._file.seek(0)
            self._file.truncate(0)
            self.length, self.resumed, self._hash = 0, False, hashlib.sha256()
            self.origin = origin
            self._write_note()
        except OSError as error:
            raise self._cannot_write(error) from error

    def write(self, block: bytes) -> None:
        """Add bytes.

        Raises:
            WeightsError: if the disk is full or fails; what is there can be gone on with.
        """
        try:
            self._file.write(block)
            self._hash.update(block)
            self.length += len(block)
            if self.length - self.origin.synced >= SYNC_EVERY:
                self._settle()
        except OSError as error:
            raise self._cannot_write(error) from error

    def finish(self) -> str:
        """Give the file its name, now that it is whole; return its hash.

        Raises:
            WeightsError: if the disk fails.
        """
        try:
            self._settle()
            self._close()
            self.path.replace(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._note.unlink(missing_ok=True)
        return self.sha256

    def _take_up(self) -> None:
        left = self.length
        while left and (block := self._file.read(min(left, 1 << 20))):
            self._hash.update(block)
            left -= len(block)
        self.length -= left
        self._file.seek(self.length)
        self._file.truncate()

    def _settle(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self.origin.synced = self.length
        self._write_note()

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError:  # buffered bytes that do not fit on the disk
            return

    def _read_note(self) -> Origin:
        try:
            found: dict[str, Any] = json.loads(self._note.read_text("utf-8"))
            origin = Origin(**found)
        except (OSError, ValueError, TypeError, RecursionError):
            return Origin()
        kinds = (str, str | None, int | None, int)
        values = (origin.place, origin.validator, origin.total, origin.synced)
        is_good = all(isinstance(v, kind) for v, kind in zip(values, kinds, strict=True))
        return origin if is_good else Origin()

    def _write_note(self) -> None:
        text = json.dumps(asdict(self.origin))
        write_atomically(self._note, lambda path: write_text(path, text))

    def _cannot_write(self, error: OSError) -> WeightsError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return WeightsError(
                f"the disk is full: {self.path} has {bytes_text(self.length)} so far. Free some "
                "space, or set TTT3R_WEIGHTS to a folder on another disk, and run the command "
                "again; a download goes on where it stopped."
            )
        return WeightsError(
            f"cannot write {self.path}: {error.strerror or error}. Check the folder, or set "
            "TTT3R_WEIGHTS to another."
        )
