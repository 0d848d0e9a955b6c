"""Open a path, a list or an iterable as a source of frames."""

import contextlib
import glob
import math
import numbers
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.arrange import Arranged, Arrangement
from ttt3r.sources.arrays import ArraySource
from ttt3r.sources.base import Selection, Source
from ttt3r.sources.camera_files import intrinsics_of
from ttt3r.sources.files import (
    KNOWN,
    VIDEO_SUFFIXES,
    image_files,
    is_image,
    matching_images,
)
from ttt3r.sources.intrinsics import Intrinsics
from ttt3r.sources.lens import Calibrated
from ttt3r.sources.pages import PagesSource, has_pages
from ttt3r.sources.stills import ImageSource
from ttt3r.sources.streams import quoted
from ttt3r.sources.video import VideoSource


def open_source(
    source: Any,
    *,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    video_stream: int | None = None,
    rotate: int = 0,
    crop: str | None = None,
    intrinsics: "str | Path | Intrinsics | None" = None,
) -> Source:
    """Open anything that frames can come from.

    Args:
        source: path of a video, of a folder of images or of one image; a glob pattern; a list of
            image paths; an iterable of uint8 arrays [height, width, 3] (RGB) or of Frames; or a
            Source, which may still be turned and cropped.
        stride: take every stride-th frame of those between `start` and `end`.
        start: seconds after the first frame, inclusive.
        end: seconds after the first frame, exclusive.
        fps: frames per second of images, arrays and bare video streams (.h264, say) that carry no
            time of their own; None means 30, or what a bare stream says of itself.
        video_stream: which of a file's video streams to read, counted from 0 among them; None takes
            the one with the most pixels, as `ffmpeg` does.
        rotate: degrees by which images are turned clockwise, on top of what the file itself asks
            for: 0, 90, 180 or 270.
        crop: "WIDTH:HEIGHT", such as "4:3": cut the largest centred rectangle of this aspect from
            the turned images; None keeps them whole.
        intrinsics: of the camera, in pixels of the original images, upright and before they are
            turned and cut: `Intrinsics`, or what `camera_files.intrinsics_of` takes: numbers
            between commas, or a file. Images are undistorted where the lens distorts, and
            predictions keep to this camera; None leaves it to the network.

    Raises:
        SettingError: if a setting makes no sense; if `fps` is given and the input states its own
            times; if `video_stream` is given for what is not a video file; or if `stride`, `start`,
            `end`, `fps` or `video_stream` are given for a source that is already open, or
            `intrinsics` for one that already has them or is turned or cut.
        InputError: if there is nothing readable at `source`, or intrinsics cannot be read.
        MissingExtraError: if the files need a package that is not installed.
    """
    selection, arrangement = Selection(stride, start, end), Arrangement(rotate, crop)
    camera = None if intrinsics is None else intrinsics_of(intrinsics)
    if fps is not None:
        fps = _rate(fps)
    if video_stream is not None and type(video_stream) is not int:
        raise SettingError(f"video_stream must be a whole number, not {video_stream!r}")
    opened = _open(source, selection, fps, video_stream)
    opened = opened if camera is None else Calibrated(opened, camera)
    return opened if arrangement == Arrangement() else Arranged(opened, arrangement)


def _rate(fps: Any) -> float:
    is_number = isinstance(fps, numbers.Real) and not isinstance(fps, bool)
    rate = float(fps) if is_number else math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise SettingError(f"fps must be a positive number of frames per second, not {fps!r}")
    return rate


def _open(source: Any, selection: Selection, fps: float | None, video_stream: int | None) -> Source:
    if isinstance(source, Source):
        if not selection.everything or fps is not None or video_stream is not None:
            raise SettingError(
                "stride, start, end, fps and video_stream belong to the source: give them where it "
                "is opened"
            )
        return source
    if isinstance(source, str | Path):
        return _open_path(source, selection, fps, video_stream)
    _refuse_stream(video_stream)
    if isinstance(source, Sequence) and source and _all_paths(source):
        return ImageSource([_existing_image(Path(item)) for item in source], None, selection, fps)
    if isinstance(source, np.ndarray) and source.ndim == 3:
        source = source[None]  # one image
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return ArraySource(source, selection, fps)
    raise InputError(
        f"cannot take frames from a {type(source).__name__}; give the path of a video or of a "
        "folder of images, or an iterable of uint8 RGB arrays [height, width, 3]"
    )


def _refuse_stream(video_stream: int | None) -> None:
    if video_stream is not None:
        raise SettingError("video_stream chooses a stream of a video file; this is not one")


def _all_paths(items: Sequence[Any]) -> bool:
    return all(isinstance(item, str | Path) for item in items)


def _open_path(
    source: str | Path, selection: Selection, fps: float | None, video_stream: int | None
) -> Source:
    text, path = str(source), Path(source).expanduser()
    if not text:
        raise InputError("the path is empty; give a video, a folder of images or an image")
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # too long a name, a null character, no permission
        raise InputError(f"{text!r} cannot be opened: {error}") from None
    if exists and not is_folder:
        return _open_file(path, selection, fps, video_stream)
    if not exists and text.startswith("file://"):
        return _open_path(url2pathname(urlsplit(text).path), selection, fps, video_stream)
    _refuse_stream(video_stream)
    if is_folder:
        return ImageSource(image_files(path), str(path.resolve()), selection, fps)
    if "://" in text:
        raise InputError(
            f"{text} is a network address, which cannot be opened as a file: download it first, "
            "or pass an iterable of frames"
        )
    if glob.has_magic(text):
        return ImageSource(matching_images(path), str(path.absolute()), selection, fps)
    raise InputError(f"{text} does not exist (looked for {path.absolute()}); check the path")


def _open_file(
    path: Path, selection: Selection, fps: float | None, video_stream: int | None
) -> Source:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise InputError(
            f"{path} is a pipe or a device, which cannot be read twice: save it to a file first, "
            "or pass an iterable of frames"
        )
    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path, selection, fps, video_stream)
    _refuse_stream(video_stream)
    if not is_image(path):
        raise InputError(
            f"{path} is of a kind that is not known ({suffix or 'no extension'}). Give a video "
            f"({' '.join(VIDEO_SUFFIXES[:8])} …), an image ({KNOWN}) or a folder of "
            "images; if it is a video, rename it or convert it: "
            f"ffmpeg -i {quoted(path)} -c:v libx264 converted.mp4"
        )
    with contextlib.suppress(InputError):  # a damaged file is reported when it is read
        if has_pages(path):
            return PagesSource(path, selection, fps)
    return ImageSource([path], str(path.resolve()), selection, fps)


def _existing_image(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file; check the list of images")
    if not is_image(path):
        raise InputError(f"{path} is not an image ({KNOWN}); a list may hold images only")
    return path
