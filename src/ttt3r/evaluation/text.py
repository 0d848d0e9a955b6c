"""Folders and text files of datasets, as people really have them."""

import codecs
import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from ttt3r.errors import InputError
from ttt3r.geometry import se3
from ttt3r.sources.files import are_times, natural_key, visible

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def require(path: Path) -> Path:
    """Return a path that exists.

    Raises:
        InputError: if it does not.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    return path


def list_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files with these endings, in the order of image folders everywhere.

    Names that are times in seconds come in the order of time, others in natural order (9.png
    before 10.png). Hidden files are left out, such as `._9.png` of macOS. Without a folder there
    are none.
    """
    if not folder.is_dir():
        return []
    chosen = [path for path in visible(folder.iterdir()) if path.suffix.lower() in suffixes]
    if are_times(path.stem for path in chosen):
        return sorted(chosen, key=lambda path: float(path.stem))
    return sorted(chosen, key=lambda path: natural_key(path.name))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file in UTF-8 or UTF-16, with any line ends.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        content = require(path).read_bytes()
        encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
        return content.decode(encoding).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the words of each line that has some, with its number from 1.

    Words are separated by spaces, tabs, commas or semicolons. What follows a # is left out, and so
    is a first line of names.

    Raises:
        InputError: if the file cannot be read.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        words = [word for word in re.split(r"[\s,;]+", line.partition("#")[0]) if word]
        if words and not (not rows and _is_heading(words)):
            rows.append((number, words))
    return rows


def read_numbers(path: Path, columns: int) -> Float64[np.ndarray, "rows {columns}"]:
    """Read lines of numbers, see `read_rows`.

    Args:
        path: the file.
        columns: how many numbers each line has.

    Raises:
        InputError: if the file cannot be read, or a line is something else.
    """
    rows = []
    for number, words in read_rows(path):
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != columns:
            raise InputError(f"line {number} of {path} is not {columns} numbers")
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def read_tum(path: Path) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, "rows 4 4"]]:
    """Read poses in the format of TUM RGB-D: lines of `stamp tx ty tz qx qy qz qw`.

    Returns:
        Stamps (seconds) and poses; a pose whose numbers are not finite, or whose quaternion is
        zero, has entries that are not finite.

    Raises:
        InputError: if the file cannot be read, or a line is not eight numbers.
    """
    rows = read_numbers(path, 8)
    encoding = torch.from_numpy(rows[:, [1, 2, 3, 7, 4, 5, 6]])
    return rows[:, 0], se3.pose_from_encoding(encoding).numpy()


def read_matrix(path: Path) -> Float64[np.ndarray, "4 4"]:
    """Read four lines of four numbers.

    Raises:
        InputError: if the file cannot be read, or holds something else.
    """
    rows = read_numbers(path, 4)
    if len(rows) != 4:
        raise InputError(f"{path} has {len(rows)} lines of numbers instead of 4")
    return rows


def _is_heading(words: list[str]) -> bool:
    """Whether a line names columns: its words are names, and none is a number such as nan."""
    return len(words) > 1 and all(word.isidentifier() and not _is_number(word) for word in words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
