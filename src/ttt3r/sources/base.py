"""What a source of frames is, which of its frames are taken, and how to open one.

A source can be read any number of times (a one-shot iterator excepted) and always gives the same
frames, so that a run can stop and later continue with `frames(start=already_done)`.
"""

import glob
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from ttt3r.errors import InputError, SettingError
from ttt3r.types import Frame

T = TypeVar("T")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif")
# Listed, not probed: FFmpeg would also take text files, playlists and images for a video.
_VIDEO = """
    .mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .m2v .wmv .asf .flv .f4v .3gp .3g2
    .ogv .mxf .vob .dv .ivf .gif .y4m .mjpeg .mjpg .h264 .264 .h265 .265 .hevc .obu
"""
VIDEO_SUFFIXES = tuple(_VIDEO.split())

# Times that differ by less are the same: float64 seconds since 1970 are no finer than 0.2 µs.
TIME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Selection:
    """Which frames of a stream are taken: those in [start, end), and of these every stride-th.

    Attributes:
        stride: 1 takes every frame, 2 every other one, and so on.
        start: seconds after the first frame of the stream; None means from the first frame.
        end: seconds after the first frame, exclusive; None means to the last frame.

    Raises:
        SettingError: if a value makes no sense.
    """

    stride: int = 1
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise SettingError(f"stride must be at least 1, not {self.stride}")
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise SettingError(f"{name} must be a time in seconds, 0 or more, not {value}")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise SettingError(
                f"end ({self.end} s) must lie after start ({self.start or 0.0} s); "
                "both are seconds after the first frame"
            )

    @property
    def everything(self) -> bool:
        """Whether no frame is left out."""
        return self == Selection()

    def describe(self) -> dict[str, Any]:
        """JSON-able settings, for a run manifest."""
        return {"stride": self.stride, "start": self.start, "end": self.end}


@runtime_checkable
class Source(Protocol):
    """A stream of frames that can be described and read from any position."""

    @property
    def length(self) -> int | None:
        """How many frames `frames()` yields; an estimate for videos, None if unknown."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-able identity and settings: equal for two sources that give the same frames."""
        ...

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the frames; `Frame.index` counts them from 0.

        Args:
            start: leave out this many frames that would be yielded first; the first frame to come
                has this index.

        Raises:
            InputError: at the frame that cannot be read, after all frames before it.
        """
        ...


def select(
    timed: Iterable[tuple[float, T]], selection: Selection, skip: int, name: str
) -> Iterator[tuple[int, float, T]]:
    """Pick the selected items from (seconds, item) pairs; yield (index, seconds, item).

    Args:
        timed: items with their time, in temporal order.
        selection: what to pick.
        skip: leave out this many of the picked items; indices count them nevertheless.
        name: what the stream is called in messages.

    Raises:
        SettingError: if `skip` is negative.
        InputError: if the selection is empty.
    """
    checked_skip(skip)
    first = last = None
    inside = 0
    for seconds, item in timed:
        first = seconds if first is None else first
        last = seconds - first
        if selection.end is not None and last > selection.end - TIME_TOLERANCE:
            break
        if selection.start is not None and last < selection.start - TIME_TOLERANCE:
            continue
        index, rest = divmod(inside, selection.stride)
        inside += 1
        if rest == 0 and index >= skip:
            yield index, seconds, item
    if last is None:
        raise InputError(f"{name} holds no frame; check that it was copied completely")
    if inside == 0:
        end = "its end" if selection.end is None else f"{selection.end:g} s"
        raise InputError(
            f"{name} has no frame between {selection.start or 0.0:g} s and {end}; the last frame "
            f"read lies at {last:.3f} s. Choose other values of start and end"
        )


def checked_skip(skip: int) -> int:
    """Return the number of frames to skip, or raise a SettingError if it is negative."""
    if skip < 0:
        raise SettingError(f"the frame to start from must be 0 or more, not {skip}")
    return skip


def open_source(
    source: Any,
    *,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    fps: float = 30.0,
    rotate: int = 0,
    crop: str | None = None,
) -> Source:
    """Open anything that frames can come from.

    Args:
        source: path of a video, of a folder of images or of one image; a glob pattern; a list of
            image paths; an iterable of uint8 arrays [height, width, 3] (RGB) or of Frames; or a
            Source, which may still be turned and cropped.
        stride: take every stride-th frame of those between `start` and `end`.
        start: seconds after the first frame, inclusive.
        end: seconds after the first frame, exclusive.
        fps: frames per second of images and arrays that carry no time of their own.
        rotate: degrees by which images are turned clockwise, on top of what the file itself asks
            for: 0, 90, 180 or 270.
        crop: "WIDTH:HEIGHT", such as "4:3": cut the largest centred rectangle of this aspect from
            the turned images; None keeps them whole.

    Raises:
        SettingError: if a setting makes no sense, or if `stride`, `start` or `end` are given for a
            source that is already open.
        InputError: if there is nothing readable at `source`.
        MissingExtraError: if the files need a package that is not installed.
    """
    from ttt3r.sources.arrange import Arranged, Arrangement

    selection, arrangement = Selection(stride, start, end), Arrangement(rotate, crop)
    if not (math.isfinite(fps) and fps > 0):
        raise SettingError(f"fps must be a positive number of frames per second, not {fps}")
    opened = _open(source, selection, fps)
    return opened if arrangement == Arrangement() else Arranged(opened, arrangement)


def _open(source: Any, selection: Selection, fps: float) -> Source:
    if isinstance(source, Source):
        if not selection.everything:
            raise SettingError(
                "stride, start and end belong to the source: give them where it is opened"
            )
        return source
    if isinstance(source, str | Path):
        return _open_path(source, selection, fps)
    if isinstance(source, Sequence) and source and _all_paths(source):
        from ttt3r.sources.images import ImageSource

        return ImageSource([_existing_image(Path(item)) for item in source], None, selection, fps)
    if isinstance(source, np.ndarray) and source.ndim == 3:
        source = source[None]  # one image
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        from ttt3r.sources.arrays import ArraySource

        return ArraySource(source, selection, fps)
    raise InputError(
        f"cannot take frames from a {type(source).__name__}; give the path of a video or of a "
        "folder of images, or an iterable of uint8 RGB arrays [height, width, 3]"
    )


def _all_paths(items: Sequence[Any]) -> bool:
    return all(isinstance(item, str | Path) for item in items)


def _open_path(source: str | Path, selection: Selection, fps: float) -> Source:
    from ttt3r.sources.images import ImageSource, image_files, matching_images

    text, path = str(source), Path(source).expanduser()
    if not text:
        raise InputError("the path is empty; give a video, a folder of images or an image")
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # too long a name, a null character, no permission
        raise InputError(f"{text!r} cannot be opened: {error}") from None
    if is_folder:
        return ImageSource(image_files(path), str(path.resolve()), selection, fps)
    if exists:
        return _open_file(path, selection, fps)
    if "://" in text:
        raise InputError(
            f"{text} is a network address, which cannot be opened as a file: download it first, "
            "or pass an iterable of frames"
        )
    if glob.has_magic(text):
        return ImageSource(matching_images(path), str(path.absolute()), selection, fps)
    raise InputError(f"{text} does not exist (looked for {path.absolute()}); check the path")


def _open_file(path: Path, selection: Selection, fps: float) -> Source:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        from ttt3r.sources.images import ImageSource

        return ImageSource([path], str(path.resolve()), selection, fps)
    if suffix in VIDEO_SUFFIXES:
        from ttt3r.sources.video import VideoSource

        return VideoSource(path, selection)
    raise InputError(
        f"{path} is of a kind that is not known ({suffix or 'no extension'}). Give a video "
        f"({' '.join(VIDEO_SUFFIXES[:8])} …), an image ({' '.join(IMAGE_SUFFIXES)}) or a folder of "
        "images; if it is a video, rename it or convert it: "
        f"ffmpeg -i '{path.name}' -c:v libx264 converted.mp4"
    )


def _existing_image(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file; check the list of images")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"{path} is not an image ({' '.join(IMAGE_SUFFIXES)}); a list may hold images only"
        )
    return path
