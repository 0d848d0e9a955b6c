"""Frames from image files: a folder, a glob pattern or a list.

Files of a folder or pattern come in natural order (img2 before img10). If all their names are
decimal numbers that increase, as in the TUM data sets (1311868164.3631.png), these are the
timestamps in seconds; otherwise frame i has the time i / fps.

Grey images of 16 bits, 32 bits or floating point are stretched by the range of the first one, so
that all frames are stretched alike.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.base import DEFAULT_FPS, Selection, checked_skip, select
from ttt3r.sources.files import are_times, is_heif
from ttt3r.sources.images import Levels, enable_heic, levels_of_file, read_pixels, say_levels
from ttt3r.types import Frame


class ImageSource:
    """Frames from image files in the given order.

    Args:
        paths: the files, at least one.
        path: the folder, pattern or file they were found by; None for a list.
        selection: which of them to take.
        fps: frames per second if the file names are not timestamps; None means 30.

    Raises:
        InputError: if the selection is empty.
        SettingError: if `fps` is given, but the names are timestamps.
        MissingExtraError: if there are HEIC files and no package to read them.
    """

    def __init__(
        self, paths: Sequence[Path], path: str | None, selection: Selection, fps: float | None
    ) -> None:
        if any(is_heif(file) for file in paths):
            enable_heic()
        self._path = path
        self._paths = paths
        self._selection = selection
        name = path or "the list of images"
        times = _times_in_names(paths)
        if times and fps is not None and len(times) > 1:
            raise SettingError(
                f"the names in {name} are the times of the images, so fps ({fps:g}) would change "
                "nothing: leave it out, or rename the images to use it"
            )
        self._fps = fps or DEFAULT_FPS
        times = times or [number / self._fps for number in range(len(paths))]
        self._taken = list(select(zip(times, paths, strict=True), selection, 0, name))

    @staticmethod
    def of_files(paths: Sequence[Path]) -> "ImageSource":
        """All the images of a list, in its order."""
        return ImageSource(paths, None, Selection(), None)

    @property
    def files(self) -> list[Path]:
        """The image file of each frame."""
        return [path for _, _, path in self._taken]

    @property
    def length(self) -> int:
        """Exact number of frames."""
        return len(self._taken)

    def describe(self) -> dict[str, Any]:
        """Identity (number of files, first and last name, size and name of each) and settings.

        The path of a list is the folder that all its files are below, and names lead from there.
        """
        folder = None if self._path is not None else _shared_folder(self._paths)
        return {
            "kind": "images",
            "path": self._path if folder is None else str(folder),
            "files": len(self._paths),
            "first": self._paths[0].name,
            "last": self._paths[-1].name,
            "fps": self._fps,
            **self._selection.describe(),
            "inputs": [
                f"{path.stat().st_size} {_name_in(folder, path)}" for _, _, path in self._taken
            ],
        }

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the selected frames; files that are left out are not opened. See `Source.frames`.

        Raises:
            InputError: at a file that cannot be read.
        """
        for index, seconds, path in self._taken[checked_skip(start) :]:
            try:
                image, alpha = read_pixels(path, self._levels)
            except InputError as error:
                raise InputError(
                    f"{error}. The {index} frames before it were read. Put an intact copy in its "
                    "place, or delete the file; then continue with --resume, or begin again"
                ) from error.__cause__
            yield Frame(image, index, seconds, name=path.name, alpha=alpha)

    @cached_property
    def _levels(self) -> Levels | None:
        """Those of the first image; None if that is damaged or an ordinary one."""
        first = self._taken[0][2]
        try:
            levels = levels_of_file(first)
        except InputError:
            return None
        if levels is not None:
            say_levels(first.name, levels)
        return levels


def _shared_folder(paths: Sequence[Path]) -> Path | None:
    """The deepest folder that all files are below; None if they are on several drives."""
    try:
        return Path(os.path.commonpath([path.absolute().parent for path in paths]))
    except ValueError:
        return None


def _name_in(folder: Path | None, path: Path) -> str:
    return path.name if folder is None else path.absolute().relative_to(folder).as_posix()


def _times_in_names(paths: Sequence[Path]) -> list[float] | None:
    """Timestamps in seconds if every name is a decimal number and they strictly increase."""
    if not are_times(path.stem for path in paths):
        return None
    times = [float(path.stem) for path in paths]
    increase = all(before < after for before, after in pairwise(times))
    return times if increase else None
