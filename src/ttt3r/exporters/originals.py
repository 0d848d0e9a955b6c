"""The images that a run was made from: where their pixels are, and copies of them in an export.

Of a camera whose lens distorts and is known, they are the undistorted images.

Where they are gone, the images that the network saw take their place.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image as PillowImage

from ttt3r.errors import InputError, RunError, Ttt3rError
from ttt3r.runs.reader import INPUTS, Run
from ttt3r.sources import Source, prefetch
from ttt3r.sources.arrange import Arrangement
from ttt3r.sources.images import opened
from ttt3r.sources.lens import Calibrated
from ttt3r.sources.reopening import reopen
from ttt3r.sources.stills import ImageSource
from ttt3r.sources.undo import TURNS, OriginalPixels, Size, undo
from ttt3r.types import Frame, Image, ImageTransform, Prediction

log = logging.getLogger("ttt3r.exporters")

# What the programs that read an export open themselves, without another look.
LINKED_SUFFIXES, LINKED_FORMATS = (".jpg", ".jpeg", ".png"), ("JPEG", "MPO", "PNG")
LINKED_MODES = ("L", "RGB", "RGBA")
ORIENTATION = 0x0112  # EXIF
READ_AHEAD = 2


@runtime_checkable
class Originals(Protocol):
    """The images behind predictions; these come in order, and some may be left out."""

    def pixels(self, prediction: Prediction) -> OriginalPixels:
        """Where a prediction's pixels lie in its original image."""
        ...

    def save(self, prediction: Prediction, folder: Path) -> str:
        """Link, copy or write that image into a folder.

        Returns:
            The name of the file.
        """
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


@contextlib.contextmanager
def originals(run: Run, place: Path | None = None) -> Iterator[Originals]:
    """Find what a run was made from; warn if it is gone, and take what the network saw.

    Args:
        run: the run.
        place: where the folder of images or the video lies now, if it was moved.

    Raises:
        RunError: if `place` was given and does not hold what the run was made from.
    """
    found: Originals = Processed()
    try:
        source, arranged = reopen(run.manifest.get("source", {}), _inputs(run), place)
        plain = source.source if isinstance(source, Calibrated) else source
        if isinstance(plain, ImageSource):
            found = Files(plain, source, arranged)
        else:
            found = Decoded(source, arranged)
    except Ttt3rError as error:
        if place is not None:
            raise RunError(f"{place} does not hold what this run was made from: {error}") from error
        log.warning(
            "%s: the images that the network saw are written, which are smaller and may be cut. "
            "If it was moved, say where it is: --images PATH",
            error,
        )
    try:
        yield found
    finally:
        found.close()


def _inputs(run: Run) -> list[str]:
    path = run.folder / INPUTS
    return path.read_text("utf-8", "surrogateescape").splitlines() if path.exists() else []


class Files:
    """Image files: linked where other programs can read them, else written anew, upright.

    Args:
        stored: the files.
        source: what reads them: `stored`, or `Calibrated` around it.
        arranged: how images were turned and cut.
    """

    def __init__(self, stored: ImageSource, source: Source, arranged: list[Arrangement]) -> None:
        self._source = source
        self._files = stored.files
        self._camera = source.intrinsics if isinstance(source, Calibrated) else None
        self._arranged = arranged
        self._repeated = len({file.name for file in self._files}) < len(self._files)
        self._seen: tuple[int, _Look] | None = None

    def pixels(self, prediction: Prediction) -> OriginalPixels:
        """See `Originals`.

        Raises:
            RunError: if the file cannot be read.
        """
        look = self._look(prediction)
        pixels = _undone(prediction, look.size, self._arranged, look.turns)
        if self._camera is None:
            return pixels
        upright = ImageTransform.identity(*look.size)
        stored = undo(upright, look.size, turns=look.turns)
        return replace(pixels, known=stored.intrinsics(self._camera.matrix))

    def save(self, prediction: Prediction, folder: Path) -> str:
        """See `Originals`; a link shares the file's content, so no more room is needed."""
        file = self._files[prediction.index]
        name = file.name
        if self._repeated or not name.isascii() or name.split() != [name]:
            name = f"{prediction.index:06d}{file.suffix.lower()}"
        if not self._look(prediction).linked:
            name = f"{prediction.index:06d}.{'jpg' if self._undistorts(file) else 'png'}"
            frame = next(self._source.frames(prediction.index))
            _write(frame.image, folder / name)
            return name
        try:
            (folder / name).hardlink_to(file.resolve() if file.is_symlink() else file)
        except (OSError, NotImplementedError):  # another disk, or one that has no links
            shutil.copyfile(file, folder / name)
        return name

    def close(self) -> None:
        """Nothing is open."""

    def _undistorts(self, file: Path) -> bool:
        """Whether a photograph is undistorted; it loses as little as a frame of a video then."""
        lens = self._camera is not None and self._camera.distorts
        return lens and file.suffix.lower() in (".jpg", ".jpeg")

    def _look(self, prediction: Prediction) -> "_Look":
        if self._seen is None or self._seen[0] != prediction.index:
            look = _look_at(self._files[prediction.index])
            if self._camera is not None and self._camera.distorts:
                look = look._replace(turns=0, linked=False)
            self._seen = prediction.index, look
        return self._seen[1]


class _Look(NamedTuple):
    """What the head of an image file says.

    Attributes:
        size: of the upright image.
        turns: quarter turns, clockwise, that make the stored pixels so; 0 if it is not linked.
        linked: whether other programs read the file as it is.
    """

    size: Size
    turns: int
    linked: bool


def _look_at(file: Path) -> _Look:
    try:
        with opened(file) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            width, height = image.size
            is_plain = (
                file.suffix.lower() in LINKED_SUFFIXES
                and image.format in LINKED_FORMATS
                and image.mode in LINKED_MODES
            )
    except InputError as error:
        raise RunError(f"an image that this run was made from is damaged: {error}") from error
    upright = (height, width) if 5 <= orientation <= 8 else (width, height)
    if is_plain and (orientation in TURNS or not 1 <= orientation <= 8):
        return _Look(upright, TURNS.get(orientation, 0), linked=True)
    return _Look(upright, 0, linked=False)


class Decoded:
    """Frames of a video or of a file with pages, written as they were decoded."""

    def __init__(self, source: Source, arranged: list[Arrangement]) -> None:
        self._arranged = arranged
        self._frames = prefetch(source.frames(), READ_AHEAD)
        self._frame: Frame | None = None

    def pixels(self, prediction: Prediction) -> OriginalPixels:
        """See `Originals`.

        Raises:
            RunError: if the frame cannot be read.
        """
        frame = self._decoded(prediction)
        height, width = frame.image.shape[:2]
        pixels = _undone(prediction, (width, height), self._arranged, 0)
        return pixels if frame.intrinsics is None else replace(pixels, known=frame.intrinsics)

    def save(self, prediction: Prediction, folder: Path) -> str:
        """See `Originals`."""
        name = f"{prediction.index:06d}.jpg"
        _write(self._decoded(prediction).image, folder / name)
        return name

    def close(self) -> None:
        """Stop decoding."""
        self._frames.close()

    def _decoded(self, prediction: Prediction) -> Frame:
        try:
            while self._frame is None or self._frame.index < prediction.index:
                self._frame = next(self._frames)
        except StopIteration:
            raise RunError(
                f"the source ends before frame {prediction.index}, which the run has"
            ) from None
        except InputError as error:
            raise RunError(f"what this run was made from cannot be read: {error}") from error
        return self._frame


class Processed:
    """What the network saw, as the run holds it."""

    def pixels(self, prediction: Prediction) -> OriginalPixels:
        """See `Originals`."""
        height, width = self._image(prediction).shape[:2]
        return OriginalPixels.identity((width, height))

    def save(self, prediction: Prediction, folder: Path) -> str:
        """See `Originals`."""
        name = f"{prediction.index:06d}.png"
        _write(self._image(prediction), folder / name)
        return name

    def close(self) -> None:
        """Nothing is open."""

    def _image(self, prediction: Prediction) -> Image:
        if prediction.image is None:
            raise RunError(
                f"frame {prediction.index} has no image in the run, and what the run was made from "
                "is gone"
            )
        return prediction.image.numpy()


def _undone(
    prediction: Prediction, size: Size, arranged: list[Arrangement], turns: int
) -> OriginalPixels:
    if prediction.transform is None:
        raise RunError(
            f"the run does not say how frame {prediction.index} was made from its original image; "
            "run again"
        )
    return _undo(prediction.transform, size, tuple(arranged), turns)


_undo = lru_cache(maxsize=8)(undo)  # most images of a run are of one size


def _write(image: Image, path: Path) -> None:
    """JPEG, at a quality at which nothing is seen of it; or PNG."""
    picture = PillowImage.fromarray(image)
    if path.suffix == ".jpg":
        picture.save(path, quality=95, subsampling=0)
    else:
        picture.save(path, compress_level=1)
