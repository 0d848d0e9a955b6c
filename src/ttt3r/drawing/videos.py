"""Videos that every player shows: H.264 where the installed FFmpeg can write it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.video.stream import VideoStream
from jaxtyping import UInt8
from numpy import ndarray

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
ENCODERS = {"libx264": {"crf": "16"}, "libopenh264": {"b": "8M"}, "mpeg4": {"b": "8M"}}


@contextmanager
def video_writer(
    path: Path, container_format: str, size: tuple[int, int], rate: int, ticks: int | None = None
) -> Iterator[Callable[[UInt8[ndarray, "height width 3"], int], None]]:
    """Open a video; what it gives appends an RGB image at a time in ticks, each later than before.

    Args:
        path: file to write.
        container_format: one of the values of `CONTAINERS`.
        size: (height, width) of the images, even numbers.
        rate: frames per second to expect.
        ticks: parts of a second in which times are given, at most 65,535; by default `rate`, so
            that the time of frame n is n.

    Raises:
        OSError, av.error.FFmpegError: if the file cannot be written.
    """
    name = next(name for name in ENCODERS if _can_encode(name))
    with av.open(f"file:{path}", "w", format=container_format) as container:
        added = container.add_stream(name, rate=rate, options=ENCODERS[name])
        stream = cast(VideoStream, added)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks or rate)

        def write(image: UInt8[ndarray, "height width 3"], tick: int) -> None:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, ticks or rate)
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode(None))


def _can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True
