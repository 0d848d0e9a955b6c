"""Frames from a video file, decoded by PyAV as they are asked for.

Times are the file's own presentation times, so a variable frame rate is kept. Bare streams have
none; their frames are spaced evenly. FFmpeg writes nothing to the terminal: PyAV silences its log
by default.
"""

import logging
import math
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.base import Selection, select
from ttt3r.sources.colour import kind_of, name_of
from ttt3r.sources.pictures import upright_rgb
from ttt3r.sources.streams import (
    DEFAULT_RATE,
    choose,
    duration,
    frame_count,
    is_raw,
    listing,
    open_container,
    quoted,
    rate,
    videos,
)
from ttt3r.types import Frame

log = logging.getLogger(__name__)

Threads = Literal["AUTO", "NONE"]

SEEK_FROM = 2.0  # a start before this many seconds is reached by decoding
SHORT = 0.9  # warn when less than this part of the promised duration came


class VideoSource:
    """Frames from one video stream of a file: upright, with square pixels, with times in seconds.

    Args:
        path: the file.
        selection: which of its frames to take.
        fps: frames per second of a bare stream (.h264, say), which states no times; None takes what
            the stream says of itself, else 30.
        video_stream: number of the stream among the file's video streams, from 0; None takes the
            best, see `ttt3r.sources.choose`.

    Raises:
        InputError: if the file cannot be opened or holds no video.
        SettingError: if there is no such stream, or `fps` is given but the file states times.
    """

    def __init__(
        self,
        path: Path,
        selection: Selection,
        fps: float | None = None,
        video_stream: int | None = None,
    ) -> None:
        self._path = path
        self._selection = selection
        self._fps = fps
        self._told: set[str] = set()
        try:
            self._bytes = path.stat().st_size
            if self._bytes == 0:
                raise InputError(f"{path} is empty (0 bytes); copy or record it again")
            with open_container(path) as container:
                self._read_header(container, video_stream)
        except (FFmpegError, OSError) as error:
            raise InputError(
                f"{path} cannot be opened as a video ({_reason(error)}): it is not complete, or it "
                f"is not a video. Copy it again, or see what `ffmpeg -i {quoted(path)}` "
                "says about it"
            ) from error
        self._seeks = self._seek_is_exact()

    def _read_header(self, container: InputContainer, video_stream: int | None) -> None:
        name, found = self._path.name, videos(container)
        self._number, stream = choose(container, self._path, video_stream)
        if len(found) > 1 and video_stream is None:
            log.info(
                "%s has %d video streams: %s; number %d is read. Choose another with "
                "--video-stream NUMBER",
                *(name, len(found), listing(found), self._number),
            )
        self._raw = is_raw(container)
        stated = rate(stream, raw=self._raw)
        if self._fps is not None and not self._raw:
            raise SettingError(
                f"{name} states when each frame is shown, so fps ({self._fps:g}) would change "
                "nothing: leave it out; to take fewer frames, set stride"
            )
        if stated is None and self._raw and self._fps is None:
            log.warning(
                "%s does not say how many frames a second has; %g are assumed. Give the number "
                "with --fps",
                *(name, float(DEFAULT_RATE)),
            )
        given = None if self._fps is None else Fraction(self._fps)
        self._rate = given or stated or DEFAULT_RATE
        self._duration = duration(container, stream)
        self._frame_count = None if self._raw else frame_count(stream, self._duration)
        self._pixel_aspect = stream.sample_aspect_ratio

    @property
    def length(self) -> int | None:
        """Estimate from what the file says; None if it says nothing."""
        start, end = self._selection.start or 0.0, self._selection.end
        count = self._frame_count
        if not count:
            return None
        if start or end is not None:
            whole = count / float(self._rate) if self._duration is None else self._duration
            share = max(min(whole, math.inf if end is None else end) - start, 0.0) / whole
            count = count * share
        return math.ceil(round(count, 6) / self._selection.stride)

    def describe(self) -> dict[str, Any]:
        """Identity (size in bytes, number of the stream) and settings."""
        return {
            "kind": "video",
            "path": str(self._path.resolve()),
            "bytes": self._bytes,
            "video_stream": self._number,
            "fps": self._fps,
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
                    image, stored = upright_rgb(picture, self._pixel_aspect)
                    self._tell_colours(picture)
                    place = f"{name} at {seconds:.3f} s"
                    yield Frame(image, index, seconds, name=place, stored_size=stored)
                    index += 1
        except (FFmpegError, OSError) as error:
            raise self._damaged(error, index, last) from error

    def _tell_colours(self, picture: VideoFrame) -> None:
        kind = kind_of(picture)
        name = "" if kind is None else name_of(kind)
        if kind is not None and name not in self._told:
            self._told.add(name)
            log.info("%s is %s; its colours are converted to SDR", self._path.name, name)

    def _damaged(self, error: Exception, index: int, last: float | None) -> InputError:
        where = "at its beginning" if last is None else f"after {last:.3f} s"
        # The frame at the end is decoded to know that it is there, so it must be an intact one.
        end = math.floor((last or 0.0) * 1000) / 1000
        stop = f", or stop before the damage with --end {end:.3f}" if end else ""
        return InputError(
            f"{self._path.name} is damaged {where} ({_reason(error)}); {index} frames were read. "
            "Use an intact copy if there is one. Otherwise write what can be read to a new file "
            f"with `ffmpeg -i {quoted(self._path)} -c:v libx264 -crf 16 fixed.mp4`{stop}"
        )

    def _timed(self) -> Generator[tuple[float, VideoFrame], None, None]:
        """Yield (seconds, frame), all of them up to the first damage.

        One thread decodes: several would report damage too early or too late, and how many frames
        a damaged file has would depend on the number of cores.
        """
        with closing(self._decode("NONE")) as pairs:
            yield from pairs

    def _decode(self, threads: Threads) -> Generator[tuple[float, VideoFrame], None, None]:
        with open_container(self._path) as container:
            _, stream = choose(container, self._path, self._number)
            stream.thread_type = threads
            clock = _Clock(stream.time_base or 1 / DEFAULT_RATE, self._rate, stated=not self._raw)
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
                    "%s ends after %.2f s, but states %.2f s: its end is missing, perhaps because "
                    "recording or copying it was interrupted. What is there is read; if there is a "
                    "complete copy, use that",
                    *(self._path.name, clock.end, self._duration),
                )

    def _seek_is_exact(self) -> bool:
        """Whether seeking to the start gives the frames that decoding from the beginning gives.

        That is so if the first frame to come out is a key frame no later than the start.
        """
        if self._raw or (self._selection.start or 0.0) < SEEK_FROM:
            return False
        try:
            with open_container(self._path) as container:
                _, stream = choose(container, self._path, self._number)
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
    """Seconds since the first frame.

    Args:
        unit: of presentation times, in seconds.
        rate: frames per second, for frames without a presentation time.
        stated: whether presentation times are to be used where frames have them.
    """

    def __init__(self, unit: Fraction, rate: Fraction, *, stated: bool = True) -> None:
        self._stated = stated
        self._unit = unit
        self._step = float(1 / rate)
        self._origin: int | None = None
        self._previous: float | None = None
        self.end = 0.0  # when the last frame stops being shown

    def seconds(self, pts: int | None, duration: int = 0) -> float:
        """Time of the next frame; later than that of the frame before."""
        if not self._stated:
            pts, duration = None, 0
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


def _seek_target(first: VideoFrame, selection: Selection) -> int:
    unit = first.time_base or 1 / DEFAULT_RATE
    return (first.pts or 0) + math.floor((selection.start or 0.0) / unit)


def _reason(error: Exception) -> str:
    """What FFmpeg said, without numbers and paths."""
    return getattr(error, "strerror", None) or str(error)
