"""Locks and durability of files, on systems that offer less than this one."""

import errno
import json
import os
from pathlib import Path

import pytest

from ttt3r import files


def test_a_held_lock_is_told_from_a_folder_that_cannot_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lock"
    with files.lock(path) or pytest.fail("not locked"):
        assert files.lock(path) is None
    assert not caplog.records

    def cannot(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", cannot)
    held = files.lock(path)
    assert held is not None and "cannot be locked" in caplog.text
    held.close()


def test_what_is_synced_is_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to sync what was opened for reading."""
    real, modes = os.fsync, []

    def fsync(handle: int) -> None:
        flags = files.fcntl.fcntl(handle, files.fcntl.F_GETFL)
        is_folder = os.path.isdir(f"/proc/self/fd/{handle}")  # noqa: PTH112
        modes.append(is_folder or bool(flags & os.O_RDWR))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_atomically(tmp_path / "a", lambda path: path.write_text("a"), sync=True)
    files.sync_files([tmp_path / "a"])
    assert len(modes) == 4 and all(modes)


def test_json_has_no_numbers_that_other_programs_refuse() -> None:
    text = files.to_json({"a": [1.0, float("nan")], "b": {"c": float("-inf")}, "d": "x"})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1.0, None],
        "b": {"c": None},
        "d": "x",
    }


def test_a_name_of_any_bytes_can_be_written() -> None:
    assert files.as_text(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert files.as_text("café") == "café"
    assert files.has_text_name(Path("café")) and not files.has_text_name(Path("caf\udce9"))


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("~/runs/a") == tmp_path / "runs" / "a"
