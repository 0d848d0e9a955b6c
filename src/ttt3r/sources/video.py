"""Frames from a video file, decoded by PyAV as they are asked for.

Times are the file's own presentation times, so a variable frame rate is kept. FFmpeg writes
nothing to the terminal: PyAV silences its log by default.
"""

import logging
import math
import shlex
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ttt3r.errors import InputError
from ttt3r.sources.base import Selection, select
from ttt3r.types import Frame, Image

log = logging.getLogger(__name__)

Threads = Literal["AUTO", "NONE"]

DEFAULT_RATE = Fraction(30)  # for the rare stream that states none
SEEK_FROM = 2.0  # a start before this many seconds is reached by decoding
SHORT = 0.9  # warn when less than this part of the promised duration came


class VideoSource:
    """Frames from the first video stream of a file, upright, with times in seconds.

    Args:
        path: the file.
        selection: which of its frames to take.

    Raises:
        InputError: if the file cannot be opened or holds no video.
    """

    def __init__(self, path: Path, selection: Selection) -> None:
        self._path = path
        self._selection = selection
        try:
            self._bytes = path.stat().st_size
            if self._bytes == 0:
                raise InputError(f"{path} is empty (0 bytes); copy or record it again")
            with _open(path) as container:
                stream = _video_stream(container, path)
                self._rate = _rate(stream)
                self._duration = _duration(container, stream)
                self._frame_count = stream.frames
        except (FFmpegError, OSError) as error:
            raise InputError(
                f"{path} cannot be opened as a video ({_reason(error)}): it is incomplete (stopped "
                "while it was recorded or copied) or no video. Copy it again, or see what "
                f"`ffmpeg -i {_quoted(path)}` says about it"
            ) from error
        self._seeks = self._seek_is_exact()

    @property
    def length(self) -> int | None:
        """Estimate from what the container states; None if it states nothing."""
        start, end = self._selection.start or 0.0, self._selection.end
        count: float = self._frame_count
        if not count and self._duration is not None:
            count = round(self._duration * self._rate)
        if not count:
            return None
        if start or end is not None:
            whole = count / float(self._rate) if self._duration is None else self._duration
            share = max(min(whole, math.inf if end is None else end) - start, 0.0) / whole
            count = count * share
        return math.ceil(round(count, 6) / self._selection.stride)

    def describe(self) -> dict[str, Any]:
        """Identity (size in bytes) and settings."""
        return {
            "kind": "video",
            "path": str(self._path.resolve()),
            "bytes": self._bytes,
            **self._selection.describe(),
        }

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Yield the selected frames; those left out are decoded but not converted.

        Raises:
            InputError: where the file is damaged, after all frames before it.
        """
        name, index, last = self._path.name, start, None
        try:
            with closing(self._timed()) as timed:
                for index, seconds, picture in select(timed, self._selection, start, name):
                    last = seconds
                    image = upright_rgb(picture)
                    yield Frame(image, index, seconds, name=f"{name} at {seconds:.3f} s")
                    index += 1
        except (FFmpegError, OSError) as error:
            raise self._damaged(error, index, last) from error

    def _damaged(self, error: Exception, index: int, last: float | None) -> InputError:
        where = "at its beginning" if last is None else f"after {last:.3f} s"
        # The frame at the end is decoded to know that it is there, so it must be an intact one.
        end = math.floor((last or 0.0) * 1000) / 1000
        stop = f", or stop before it with --end {end:.3f}" if end else ""
        return InputError(
            f"{self._path.name} is damaged {where} ({_reason(error)}); {index} frames were read. "
            f"Re-encode it with `ffmpeg -i {_quoted(self._path)} -c:v libx264 -crf 16 fixed.mp4`"
            f"{stop}"
        )

    def _timed(self) -> Generator[tuple[float, VideoFrame], None, None]:
        """Yield (seconds, frame), all of them up to the first damage."""
        decoded = 0
        try:
            with closing(self._decode("AUTO")) as pairs:
                for pair in pairs:
                    yield pair
                    decoded += 1
            return
        except FFmpegError:
            pass
        # Parallel decoding reports damage too early or too late: find its place with one thread.
        with closing(self._decode("NONE")) as pairs:
            for number, pair in enumerate(pairs):
                if number >= decoded:
                    yield pair

    def _decode(self, threads: Threads) -> Generator[tuple[float, VideoFrame], None, None]:
        with _open(self._path) as container:
            stream = _video_stream(container, self._path)
            stream.thread_type = threads
            clock = _Clock(stream.time_base or 1 / DEFAULT_RATE, _rate(stream))
            pictures = _pictures(container, stream, threads)
            first = next(pictures, None)
            if first is None:
                return
            yield clock.seconds(first.pts, first.duration), first
            if self._seeks:
                container.seek(_seek_target(first, self._selection), stream=stream)
                pictures = _pictures(container, stream, threads)
            for picture in pictures:
                if picture.is_corrupt:
                    log.warning("%s: the frame after %.3f s is damaged", self._path.name, clock.end)
                yield clock.seconds(picture.pts, picture.duration), picture
            if self._duration is not None and clock.end < SHORT * self._duration:
                log.warning(
                    "%s ends after %.2f s, but states %.2f s: it may have been cut off while it "
                    "was recorded or copied",
                    *(self._path.name, clock.end, self._duration),
                )

    def _seek_is_exact(self) -> bool:
        """Whether seeking to the start gives the frames that decoding from the beginning gives.

        That is so if the first frame to come out is a key frame no later than the start.
        """
        if self._selection.start is None or self._selection.start < SEEK_FROM:
            return False
        try:
            with _open(self._path) as container:
                stream = _video_stream(container, self._path)
                first = next(_pictures(container, stream, "NONE"))
                target = _seek_target(first, self._selection)
                container.seek(target, stream=stream)
                landed = next(_pictures(container, stream, "NONE"))
                if first.pts is None or landed.pts is None:
                    return False
                return bool(landed.key_frame) and first.pts < landed.pts <= target
        except (FFmpegError, OSError, StopIteration):
            return False  # decoding from the beginning will tell what is wrong


class _Clock:
    """Seconds since the first frame, from presentation times where the frames have them."""

    def __init__(self, unit: Fraction, rate: Fraction) -> None:
        self._unit = unit
        self._step = float(1 / rate)
        self._origin: int | None = None
        self._previous: float | None = None
        self.end = 0.0  # when the last frame stops being shown

    def seconds(self, pts: int | None, duration: int = 0) -> float:
        """Time of the next frame; later than that of the frame before."""
        if self._previous is None:
            self._origin, seconds = pts, 0.0
        else:
            seconds = self._previous + self._step
            if pts is not None and self._origin is not None:
                stated = float((pts - self._origin) * self._unit)
                # Joined or damaged files repeat times; those frames get the average distance.
                seconds = stated if stated > self._previous else seconds
        self._previous = seconds
        self.end = seconds + (float(duration * self._unit) or self._step)
        return seconds


def _open(path: Path) -> InputContainer:
    # "file:" keeps FFmpeg from reading a:b.mp4 as an address. The list of protocols keeps a
    # playlist that is named .mp4 from opening network addresses.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"})


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a song
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    if not kinds:
        raise InputError(
            f"{path} has no readable content: it is incomplete (stopped while it was recorded or "
            f"copied). Copy it again, or see what `ffmpeg -i {_quoted(path)}` says about it"
        )
    raise InputError(f"{path} holds no video, only {', '.join(kinds)}; give a file with a picture")


def _pictures(
    container: InputContainer, stream: VideoStream, threads: Threads
) -> Iterator[VideoFrame]:
    """Decoded frames; with one thread, all frames before a damaged one precede the error."""
    try:
        for packet in container.demux(stream):
            yield from packet.decode()
    except FFmpegError:
        if threads == "NONE":  # several threads would hand out later frames as well
            with suppress(FFmpegError):
                yield from stream.codec_context.decode(None)
        raise


def _rate(stream: VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or DEFAULT_RATE


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds that the container promises."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _seek_target(first: VideoFrame, selection: Selection) -> int:
    unit = first.time_base or 1 / DEFAULT_RATE
    return (first.pts or 0) + math.floor((selection.start or 0.0) / unit)


def upright_rgb(picture: VideoFrame) -> Image:
    """Convert a decoded frame to RGB and turn it as the file's display matrix asks.

    The matrix is one of the eight flips and quarter turns; others are rounded to them.
    """
    image = picture.to_ndarray(format="rgb24")
    (xx, yx), (xy, yy) = _display_matrix(picture)  # shown = [[xx, xy], [yx, yy]] @ stored
    if abs(xx) < abs(xy):
        image, xx, yy = image.transpose(1, 0, 2), xy, yx
    if xx < 0:
        image = image[:, ::-1]
    if yy < 0:
        image = image[::-1]
    # A copy, as the array may be a view of memory that the decoder owns.
    return np.array(image, dtype=np.uint8, order="C")


def _display_matrix(picture: VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        data = picture.side_data.get("DISPLAYMATRIX")  # pyright: ignore[reportAttributeAccessIssue]
    except ValueError:  # side data of a kind that PyAV does not know
        data = None
    if data is None:
        return (1, 0), (0, 1)
    matrix = np.frombuffer(bytes(data), dtype=np.int32)
    return (int(matrix[0]), int(matrix[1])), (int(matrix[3]), int(matrix[4]))


def _reason(error: Exception) -> str:
    """What FFmpeg said, without numbers and paths."""
    return getattr(error, "strerror", None) or str(error)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
