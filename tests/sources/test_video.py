"""Videos: every frame once, times, orientation, selection, and reading from any position."""

import os
import shutil
import struct
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.sources.clips import (
    KINDS,
    number_of,
    numbered_clip,
    picture,
    same,
    write_clip,
)
from ttt3r.sources import open_source, prefetch, video


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return numbered_clip(tmp_path_factory.mktemp("video") / "walk.mp4")


@pytest.mark.parametrize("name, codec, pixels, exact", KINDS)
def test_every_frame_comes_once_with_its_time(tmp_path, name, codec, pixels, exact):
    path = numbered_clip(tmp_path / name, codec=codec, pixels=pixels)
    source = open_source(path)
    frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    if not name.endswith(".h264"):
        assert source.length == 20
    times = [frame.timestamp for frame in frames]
    assert times[0] == 0.0
    assert np.allclose(times, np.arange(20) * 0.1, atol=2e-3)
    assert all(b > a for a, b in pairwise(times))
    for number, frame in enumerate(frames):
        image = frame.image
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        assert image.flags.c_contiguous and image.flags.writeable
        if exact:
            assert np.array_equal(image, picture(number))
    assert same(frames, source.frames())


def test_colour_and_range_are_right(tmp_path):
    colours = [(0, 0, 0), (255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200)]
    images = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    for name, pixels in (("limited.mp4", "yuv420p"), ("full.avi", "yuvj420p")):
        codec = "mjpeg" if pixels == "yuvj420p" else "libx264"
        path = write_clip(tmp_path / name, images, codec, pixels)
        for frame, colour in zip(open_source(path).frames(), colours, strict=True):
            assert np.abs(frame.image.mean((0, 1)) - colour).max() < 5


def test_odd_sizes(tmp_path):
    path = write_clip(
        tmp_path / "odd.mov", [picture(i, width=61, height=37) for i in range(3)], "png", "rgb24"
    )
    images = [frame.image for frame in open_source(path).frames()]
    assert np.array_equal(images, [picture(i, width=61, height=37) for i in range(3)])


def test_a_variable_frame_rate_is_kept(tmp_path):
    times = [0, 33, 66, 400, 433, 1000, 1001, 5000]
    path = numbered_clip(
        tmp_path / "phone.mkv", len(times), codec="ffv1", pixels="bgr0", times=times
    )
    frames = list(open_source(path).frames())
    assert np.allclose([frame.timestamp for frame in frames], np.array(times) / 1000, atol=1e-9)
    assert [f.timestamp for f in open_source(path, start=0.4, end=1.0).frames()] == [0.4, 0.433]


def test_times_count_from_the_first_frame(tmp_path):
    times = [7000 + 100 * number for number in range(6)]
    path = numbered_clip(tmp_path / "late.mkv", 6, codec="ffv1", pixels="bgr0", times=times)
    frames = list(open_source(path, start=0.2, end=0.4).frames())
    assert [round(frame.timestamp, 6) for frame in frames] == [0.2, 0.3]
    assert [number_of(frame.image) for frame in frames] == [2, 3]


def corner(image: np.ndarray) -> str:
    """Where the black corner lies."""
    top, left = np.argwhere(image.mean(axis=2) < 30).mean(axis=0) * 2 < image.shape[:2]
    return ("top " if top else "bottom ") + ("left" if left else "right")


@pytest.mark.parametrize(
    "rotation, expected",
    [
        ((0, False, False), "top left"),
        ((90, False, False), "bottom left"),  # counter-clockwise, as FFmpeg counts
        ((180, False, False), "bottom right"),
        ((270, False, False), "top right"),
        ((-90, False, False), "top right"),
        ((0, True, False), "top right"),
        ((0, False, True), "bottom left"),
    ],
)
def test_rotated_videos_come_upright(tmp_path, rotation, expected):
    path = write_clip(tmp_path / "turned.mp4", [picture(20)] * 3, rotation=rotation)
    for frame in open_source(path).frames():
        assert frame.image.shape == ((64, 48, 3) if rotation[0] % 180 else (48, 64, 3))
        assert frame.image.flags.c_contiguous
        assert corner(frame.image) == expected


def test_the_matrix_of_a_phone_held_upright_turns_clockwise(tmp_path):
    """The track header's matrix as iPhones write it, put there byte by byte."""
    path = write_clip(tmp_path / "portrait.mp4", [picture(20)] * 3)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[start : start + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(data)
    image = next(open_source(path).frames()).image
    assert image.shape == (64, 48, 3) and corner(image) == "top right"


def test_frames_may_change_size(tmp_path):
    """Joined motion JPEG files."""
    path = tmp_path / "joined.mjpeg"
    sizes = [(64, 48), (96, 80), (48, 64)]
    for width, height in sizes:
        part = tmp_path / "part.mjpeg"
        write_clip(part, [picture(5, width, height)] * 2, "mjpeg", "yuvj420p")
        with path.open("ab") as file:
            file.write(part.read_bytes())
    frames = list(open_source(path).frames())
    assert [frame.image.shape[1::-1] for frame in frames] == [s for s in sizes for _ in range(2)]
    times = [frame.timestamp for frame in frames]
    assert times == sorted(set(times))


SELECTIONS = [
    ({}, list(range(20))),
    ({"stride": 3}, [0, 3, 6, 9, 12, 15, 18]),
    ({"start": 0.5}, list(range(5, 20))),
    ({"end": 0.5}, list(range(5))),
    ({"start": 0.45, "end": 1.25, "stride": 4}, [5, 9]),
    ({"start": 1.9}, [19]),
]


@pytest.mark.parametrize("settings, numbers", SELECTIONS)
def test_stride_start_and_end(clip, settings, numbers):
    source = open_source(clip, **settings)
    frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == numbers
    assert [frame.index for frame in frames] == list(range(len(numbers)))
    assert [round(frame.timestamp * 10) for frame in frames] == numbers
    assert abs(source.length - len(numbers)) <= 1
    for skipped in (1, 3, len(numbers), len(numbers) + 5):
        assert same(source.frames(start=skipped), frames[skipped:])


@pytest.mark.parametrize(
    "name, codec, pixels, options",
    [
        ("clip.mp4", "libx264", "yuv420p", {}),
        ("clip.mkv", "libx264", "yuv420p", {"x264-params": "open-gop=1:bframes=3"}),
        ("refresh.mp4", "libx264", "yuv420p", {"x264-params": "intra-refresh=1"}),
        ("clip.ts", "libx264", "yuv420p", {}),
        ("clip.avi", "mpeg4", "yuv420p", {}),
        ("clip.webm", "libvpx-vp9", "yuv420p", {}),
        ("clip.mov", "png", "rgb24", {}),
        ("clip.h264", "libx264", "yuv420p", {}),
    ],
)
@pytest.mark.parametrize("start", [2.0, 2.95, 3.6, 5.9])
def test_a_start_reached_by_seeking_gives_the_very_same_frames(
    tmp_path, name, codec, pixels, options, start
):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (48, 64, 3), np.uint8)
    images = [np.roll(noise, 3 * number, axis=1) for number in range(60)]
    path = write_clip(tmp_path / name, images, codec, pixels, key_every=12, options=options)
    everything = [f for f in open_source(path).frames() if f.timestamp > start - 1e-6]
    found = list(open_source(path, start=start).frames())
    assert [frame.timestamp for frame in found] == [frame.timestamp for frame in everything]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(found, everything, strict=True))


def test_seeking_is_used_where_it_is_exact(tmp_path):
    path = numbered_clip(tmp_path / "long.mp4", 60, key_every=12)
    assert open_source(path, start=3.0)._seeks
    assert not open_source(path, start=1.0)._seeks


def test_frames_left_out_are_not_converted(clip, monkeypatch):
    converted = []

    def convert(picture, pixel_aspect):
        converted.append(picture.pts)
        return np.zeros((48, 64, 3), np.uint8), None

    monkeypatch.setattr(video, "upright_rgb", convert)
    assert len(list(open_source(clip, stride=2, start=0.4).frames(start=3))) == 5
    assert len(converted) == 5


def test_reading_in_a_thread_gives_the_same(clip):
    source = open_source(clip)
    assert same(prefetch(source.frames()), source.frames())


def test_unusual_names(clip, tmp_path):
    for name in ("10:30 walk.mp4", "100%d.mp4", "prömenade 散歩.MP4", "it's[1].mp4", "-i.mp4"):
        shutil.copy(clip, tmp_path / name)
        assert len(list(open_source(str(tmp_path / name)).frames())) == 20
    relative = Path(os.path.relpath(tmp_path / "-i.mp4"))
    assert len(list(open_source(relative).frames())) == 20


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_the_file_is_closed_when_the_reader_stops(clip):
    def opened():
        links = Path("/proc/self/fd").iterdir()
        return sum(str(clip.resolve()) == os.path.realpath(link) for link in links)

    source = open_source(clip)
    assert opened() == 0
    frames = source.frames()
    next(frames)
    assert opened() == 1
    frames.close()
    assert opened() == 0
    ahead = prefetch(source.frames())
    next(ahead)
    ahead.close()
    assert opened() == 0
    list(source.frames())
    assert opened() == 0


def test_description(clip):
    source = open_source(clip, stride=2, end=1.0)
    assert source.describe() == {
        "kind": "video",
        "path": str(clip.resolve()),
        "bytes": clip.stat().st_size,
        "video_stream": 0,
        "fps": None,
        "stride": 2,
        "start": None,
        "end": 1.0,
    }
    assert open_source(clip, stride=2, end=1.0).describe() == source.describe()
    assert open_source(clip, stride=3, end=1.0).describe() != source.describe()


def test_frames_without_times_get_the_average_rate():
    clock = video._Clock(Fraction(1, 90000), Fraction(30))
    assert np.allclose([clock.seconds(None) for _ in range(3)], [0, 1 / 30, 2 / 30])
    clock = video._Clock(Fraction(1, 30), Fraction(30))  # joined: times begin again
    times = [clock.seconds(pts) for pts in (5, 6, 5, 6, None, 12)]
    assert np.allclose(np.array(times) * 30, [0, 1, 2, 3, 4, 7])
