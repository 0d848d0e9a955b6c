"""Hashes of big files are computed once, and again when the file has changed."""

import hashlib
import os
from pathlib import Path

import pytest

from ttt3r.weights import hashes
from ttt3r.weights.hashes import file_sha256, note_path, remember, remembered


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as big, and was written long ago."""
    monkeypatch.setattr(hashes, "BIG", 100)
    path = tmp_path / "a.pth"
    path.write_bytes(b"x" * 100)
    os.utime(path, (1e9, 1e9))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_big_file_is_hashed_once(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_sha256(big) == digest(big) and note_path(big).is_file()
    monkeypatch.setattr(hashes, "hash_file", lambda path: pytest.fail("it was hashed again"))
    assert file_sha256(big) == digest(big)


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_hashed_again(change: str, big: Path) -> None:
    before = file_sha256(big)
    if change == "size":
        big.write_bytes(b"x" * 101)
        os.utime(big, (1e9, 1e9))
    elif change == "time":
        big.write_bytes(b"y" * 100)
    else:
        other = big.with_name("b")
        other.write_bytes(b"y" * 100)
        os.utime(other, (1e9, 1e9))
        other.replace(big)
    assert remembered(big) is None
    assert file_sha256(big) == digest(big) != before
    assert remembered(big, even_if_changed=True) in (before, digest(big))


def test_small_and_fresh_files_are_not_noted(big: Path) -> None:
    os.utime(big)  # it may change again within the same tick of the clock
    assert file_sha256(big) == digest(big) and not note_path(big).exists()
    big.write_bytes(b"x")
    os.utime(big, (1e9, 1e9))
    assert file_sha256(big) == digest(big) and not note_path(big).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 1, "state": 2}', "[" * 100_000])
def test_damaged_notes_count_for_nothing(text: str, big: Path) -> None:
    note_path(big).write_text(text)
    assert file_sha256(big) == digest(big)


def test_folders_that_cannot_be_written_to(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(hashes, "write_atomically", refuse)
    assert file_sha256(big) == digest(big)
    remember(big, digest(big))
    assert not note_path(big).exists()


def test_nothing_is_written_into_the_cache_of_a_hub(big: Path) -> None:
    folder = big.parent / "models--a--b" / "snapshots" / "123"
    folder.mkdir(parents=True)
    link = folder / "model.safetensors"
    link.symlink_to(big)
    assert file_sha256(link) == digest(big)
    assert list(folder.iterdir()) == [link]
