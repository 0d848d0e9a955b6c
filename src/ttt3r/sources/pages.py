"""Frames from one image file that holds several: an animated WebP or PNG, or a TIFF with pages."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage
from PIL import ImageOps

from ttt3r.errors import InputError, SettingError, Ttt3rError
from ttt3r.sources.base import DEFAULT_FPS, Selection, select
from ttt3r.sources.images import (
    alpha_of,
    higher_limit,
    levels_of,
    open_image,
    opened,
    page_numbers,
    say_levels,
    to_rgb,
)
from ttt3r.types import Frame


def has_pages(path: Path) -> bool:
    """Whether an image file holds several images.

    Raises:
        InputError: if it cannot be opened as an image.
        MissingExtraError: if the file needs a package that is not installed.
    """
    with opened(path) as image:
        return len(page_numbers(image)) > 1


class PagesSource:
    """The images of one file, with the times that the file states.

    Args:
        path: the file.
        selection: which of its images to take.
        fps: frames per second of a file that states no times; None means 30. Of a file that states
            some, an image of 0 seconds is shown for 1/30 s.

    Raises:
        InputError: if the file cannot be opened.
        SettingError: if `fps` is given, but the file states times.
    """

    def __init__(self, path: Path, selection: Selection, fps: float | None) -> None:
        self._path = path
        self._selection = selection
        self._fps = fps or DEFAULT_FPS
        with opened(path) as image:
            self._pages = page_numbers(image)
            image.seek(self._pages[0])
            image.load()
            self._levels = levels_of(image)
            states_times = bool(image.info.get("duration"))
        if fps is not None and states_times:
            raise SettingError(
                f"{path.name} states how long each image is shown, so fps ({fps:g}) would "
                "change nothing: leave it out; to take fewer frames, set stride"
            )
        if self._levels is not None:
            say_levels(path.name, self._levels)

    @property
    def length(self) -> int | None:
        """Exact number of frames; None if start or end make it depend on times not yet read."""
        if self._selection.start is not None or self._selection.end is not None:
            return None
        return math.ceil(len(self._pages) / self._selection.stride)

    def describe(self) -> dict[str, Any]:
        """Identity (size in bytes) and settings."""
        return {
            "kind": "pages",
            "path": str(self._path.resolve()),
            "bytes": self._path.stat().st_size,
            "fps": self._fps,
            **self._selection.describe(),
        }

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the selected images; see `Source.frames`.

        Raises:
            InputError: where the file is damaged, after all images before it.
        """
        name, index = self._path.name, start
        try:
            for index, seconds, page in select(self._timed(), self._selection, start, name):
                with higher_limit():
                    upright = ImageOps.exif_transpose(page)
                    image, alpha = to_rgb(upright, self._levels), alpha_of(upright)
                yield Frame(image, index, seconds, name=f"{name} at {seconds:.3f} s", alpha=alpha)
                index += 1
        except Ttt3rError:
            raise
        except Exception as error:  # Pillow's decoders raise almost anything on damaged files
            reason = str(error) or type(error).__name__
            raise InputError(
                f"{name} is damaged ({reason}); {index} images were read. Use an intact copy"
            ) from error

    def _timed(self) -> Iterator[tuple[float, PillowImage.Image]]:
        """Yield the time in seconds of each image, and the file at that image."""
        milliseconds = 0.0
        with self._path.open("rb") as file, open_image(file, self._path) as image:
            for number in self._pages:
                with higher_limit():
                    image.seek(number)
                    if image.format != "TIFF":  # a TIFF states no times
                        image.load()
                yield milliseconds / 1000, image
                milliseconds += image.info.get("duration") or 1000 / self._fps
