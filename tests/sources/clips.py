"""Small clips and images that the tests write themselves."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.goldens import PROJECT_ROOT
from ttt3r.types import Frame

FIELD = PROJECT_ROOT.parent / "shared" / "data" / "field"  # beside the project, as the goldens

WIDTH, HEIGHT, RATE = 64, 48, 10

# (file name, codec, pixel format, whether decoding gives back the very same RGB)
KINDS = [
    ("clip.mp4", "libx264", "yuv420p", False),
    ("clip.mkv", "ffv1", "bgr0", True),
    ("clip.mov", "png", "rgb24", True),
    ("clip.avi", "mjpeg", "yuvj420p", False),
    ("clip.ts", "libx264", "yuv420p", False),
    ("clip.webm", "libvpx-vp9", "yuv420p", False),
    ("clip.m4v", "mpeg4", "yuv420p", False),
    ("clip.h264", "libx264", "yuv420p", False),
]


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A flat grey that tells the number of the frame (up to 25), with a black top left corner."""
    image = np.full((height, width, 3), 10 * number % 256, np.uint8)
    image[: height // 4, : width // 4] = 0
    return image


def number_of(image: np.ndarray) -> int:
    """The number of the frame that `picture` drew."""
    return round(float(image[image.shape[0] // 2 :].mean()) / 10)


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    times: Sequence[int] | None = None,
    key_every: int = 6,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    colours: tuple[int, int] | None = None,
    earlier: int = 0,
) -> Path:
    """Encode images at 10 frames per second, or at `times` in milliseconds.

    `colours` are the transfer function and primaries that the file states; the first `earlier`
    frames are hidden by an edit list.
    """
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=RATE)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = key_every
        stream.options = options or {}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if colours is not None:
            stream.codec_context.color_trc, stream.codec_context.color_primaries = colours
        if rotation is not None:
            if not hasattr(stream.codec_context, "set_display_rotation"):
                pytest.skip("PyAV before 18.1 cannot write rotations")
            stream.set_display_rotation(*rotation)
        coded = []
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            coded += stream.encode(frame)
        for packet in coded + stream.encode(None):
            if earlier:
                packet.pts, packet.dts = packet.pts - earlier, packet.dts - earlier
            output.mux(packet)
    return path


def field(name: str) -> Path:
    """A file as people have it, read in place; the test is skipped where there is none."""
    path = FIELD / name
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    return path


def numbered_clip(path: Path, count: int = 20, **settings) -> Path:
    """A clip of `count` frames whose grey tells their number."""
    return write_clip(path, [picture(number) for number in range(count)], **settings)


def write_audio(path: Path) -> Path:
    """A file with sound only."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4410), np.float32), "fltp", "stereo")
        frame.rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, int]]:
    """(position, size) in bytes of every packet of the picture."""
    with av.open(str(path)) as container:
        return [(item.pos, item.size) for item in container.demux(video=0) if item.size]


def damage(path: Path, packet: int) -> None:
    """Overwrite a packet by zeros."""
    position, size = packets(path)[packet]
    data = bytearray(path.read_bytes())
    data[position : position + size] = bytes(size)
    path.write_bytes(data)


def write_images(folder: Path, names: Sequence[str]) -> list[Path]:
    """One numbered picture per name, in the given order."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number)).save(folder / name)
    return [folder / name for name in names]


def same(left: Iterable[Frame], right: Iterable[Frame]) -> bool:
    """Whether two sequences of frames are identical, bit for bit."""
    left, right = list(left), list(right)
    return len(left) == len(right) and all(
        np.array_equal(a.image, b.image)
        and (a.index, a.timestamp, a.name) == (b.index, b.timestamp, b.name)
        for a, b in zip(left, right, strict=True)
    )
