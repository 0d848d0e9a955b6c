"""Opening a video file: which of its streams is read, and what the file says of its times."""

import re
import shlex
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from av.video.stream import VideoStream

from ttt3r.errors import InputError, SettingError

DEFAULT_RATE = Fraction(30)  # for the rare stream that states none
HIGHEST_RATE = 1000  # frames per second; more is not a rate but the unit of the times
AGREES = 0.05  # by how much a number of frames may differ from duration times rate
# A picture or a few stand for the file there; they are not the video.
STILL = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
TAGGED_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def open_container(path: Path) -> InputContainer:
    """Open a file with FFmpeg.

    Raises:
        FFmpegError, OSError: if it cannot be opened.
    """
    # "file:" keeps FFmpeg from reading a:b.mp4 as an address. The list of protocols keeps a
    # playlist that is named .mp4 from opening network addresses.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"})


def videos(container: InputContainer) -> list[VideoStream]:
    """The video streams of a file; covers of songs and other still pictures are not counted."""
    return [stream for stream in container.streams.video if not stream.disposition & STILL]


def choose(container: InputContainer, path: Path, number: int | None) -> tuple[int, VideoStream]:
    """Choose a video stream.

    Args:
        container: the open file.
        path: of the file, for messages.
        number: which video stream, from 0; None takes as `ffmpeg` does the one that is marked as
            the default and has the most pixels, and of equals the first.

    Returns:
        The number of the stream among the video streams, and the stream.

    Raises:
        InputError: if the file holds no video.
        SettingError: if it does not have that many video streams.
    """
    found = videos(container)
    if not found:
        kinds = sorted({stream.type for stream in container.streams})
        if not kinds:
            raise InputError(
                f"{path} has no readable content: it is not complete. Copy it again, or see what "
                f"`ffmpeg -i {quoted(path)}` says about it"
            )
        if container.streams.video:
            kinds = [kind for kind in kinds if kind != "video"] + ["a still picture"]
        raise InputError(
            f"{path} holds no video, only {', '.join(kinds)}; give a file with a video"
        )
    if number is None:
        return max(enumerate(found), key=lambda item: _rank(item[1]))
    if not 0 <= number < len(found):
        raise SettingError(
            f"{path.name} has no video stream {number}; it has {listing(found)}, counted from 0"
        )
    return number, found[number]


def listing(streams: list[VideoStream]) -> str:
    """Video streams in words: "0 (320x180), 1 (480x270)"."""
    return ", ".join(
        f"{number} ({stream.width}x{stream.height})" for number, stream in enumerate(streams)
    )


def _rank(stream: VideoStream) -> tuple[bool, int]:
    return bool(stream.disposition & Disposition.default), stream.width * stream.height


def is_raw(container: InputContainer) -> bool:
    """Whether the file is a bare stream (.h264, say), which does not say when frames are shown."""
    return bool(container.format.flags & Flags.no_timestamps.value)


def rate(stream: VideoStream, *, raw: bool) -> Fraction | None:
    """Frames per second; None if the file does not say.

    Of a bare stream, the codec's own statement counts; FFmpeg's average is a constant there.
    """
    if raw:
        stated = (stream.codec_context.framerate,)
    else:
        stated = stream.average_rate, stream.guessed_rate
    return next((value for value in stated if value and 0 < value <= HIGHEST_RATE), None)


def duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds for which the file says that the video lasts; None if it does not say.

    The duration of the whole file is that of the video only if there is nothing else in it.
    """
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if match := TAGGED_DURATION.match(stream.metadata.get("DURATION", "")):  # Matroska
        hours, minutes, seconds = (float(part) for part in match.groups())
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        end = 3600 * hours + 60 * minutes + seconds
        return end - start if end > start else None
    alone = all(other is stream or other.type == "attachment" for other in container.streams)
    return container.duration / av.time_base if alone and container.duration else None


def frame_count(stream: VideoStream, seconds: float | None) -> int | None:
    """About how many frames are shown; None if the file does not say.

    The index may count frames that an edit list hides; then duration times rate is nearer.
    """
    per_second = rate(stream, raw=False)
    if seconds is None or per_second is None:
        return stream.frames or None
    expected = round(seconds * per_second)
    if stream.frames and abs(stream.frames - expected) <= max(AGREES * expected, 1):
        return stream.frames
    return expected or None


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))
