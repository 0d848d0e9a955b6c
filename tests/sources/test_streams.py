"""Which stream of a video file is read, when its frames are shown, and how long it lasts."""

import logging
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.sources.clips import field, number_of, numbered_clip, picture
from ttt3r.errors import InputError, SettingError
from ttt3r.sources import open_source


def two_streams(path: Path, sizes=((64, 48), (128, 96)), dispositions=(None, None)) -> Path:
    with av.open(str(path), "w") as output:
        streams = []
        for (width, height), disposition in zip(sizes, dispositions, strict=True):
            stream = output.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if disposition is not None:
                stream.disposition = disposition
            streams.append(stream)
        for number in range(5):
            for stream in streams:
                image = picture(number + 5, stream.width, stream.height)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            output.mux(stream.encode(None))
    return path


def with_sound(path: Path, seconds: float, frames: int = 20) -> Path:
    """Two seconds of picture, and sound of another length."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream("aac", rate=44100)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for number in range(int(10 * seconds)):
            samples = av.AudioFrame.from_ndarray(np.zeros((2, 4410), np.float32), "fltp", "stereo")
            samples.rate, samples.pts = 44100, 4410 * number
            output.mux(sound.encode(samples))
        output.mux(sound.encode(None))
    return path


# --- streams ------------------------------------------------------------------------------------


def test_the_stream_with_the_most_pixels_is_read(tmp_path, caplog):
    path = two_streams(tmp_path / "two.mkv")
    with caplog.at_level(logging.INFO, "ttt3r.sources"):
        source = open_source(path)
    assert next(source.frames()).image.shape == (96, 128, 3)
    assert "2 video streams: 0 (64x48), 1 (128x96); number 1 is read" in caplog.text
    assert source.describe()["video_stream"] == 1


@pytest.mark.parametrize("number, shape", [(0, (48, 64, 3)), (1, (96, 128, 3))])
def test_a_stream_can_be_chosen(tmp_path, caplog, number, shape):
    path = two_streams(tmp_path / "two.mkv")
    with caplog.at_level(logging.INFO, "ttt3r.sources"):
        frames = list(open_source(path, video_stream=number).frames())
    assert [frame.image.shape for frame in frames] == [shape] * 5
    assert caplog.text == ""


def test_of_equal_streams_the_first_is_read_and_the_default_wins(tmp_path):
    equal = two_streams(tmp_path / "equal.mkv", sizes=((64, 48), (64, 48)))
    assert open_source(equal).describe()["video_stream"] == 0
    marked = two_streams(tmp_path / "marked.mkv", dispositions=(Disposition.default, 0))
    assert open_source(marked).describe()["video_stream"] == 0


def test_a_cover_is_not_a_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        cover = output.add_stream("png", rate=10)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "rgb24"
        cover.disposition = Disposition.attached_pic
        video = output.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        large = av.VideoFrame.from_ndarray(picture(1, 640, 480), format="rgb24")
        output.mux(cover.encode(large) + cover.encode(None))
        for number in range(5):
            small = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            output.mux(video.encode(small))
        output.mux(video.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    frames = list(open_source(path).frames())
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 5
    with pytest.raises(SettingError, match="no video stream 1"):
        open_source(path, video_stream=1)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_stream_that_is_not_there(tmp_path, number):
    path = two_streams(tmp_path / "two.mkv")
    with pytest.raises(SettingError, match=rf"no video stream {number}; it has 0 \(64x48\), 1"):
        open_source(path, video_stream=number)


def test_only_videos_have_streams(tmp_path):
    for source in ([picture(1)], tmp_path):
        with pytest.raises(SettingError, match="chooses a stream of a video file"):
            open_source(source, video_stream=0)


def test_the_best_stream_of_a_real_file():
    path = field("two_video_streams_nasa_13013.mp4")
    assert next(open_source(path).frames()).image.shape == (270, 480, 3)
    assert next(open_source(path, video_stream=0).frames()).image.shape == (180, 320, 3)


# --- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, codec, pixels, stated",
    [
        ("a.h264", "libx264", "yuv420p", 10),
        ("a.mjpeg", "mjpeg", "yuvj420p", None),
    ],
)
def test_times_of_bare_streams(tmp_path, caplog, name, codec, pixels, stated):
    path = numbered_clip(tmp_path / name, codec=codec, pixels=pixels)
    source = open_source(path)
    times = [frame.timestamp for frame in source.frames()]
    assert np.allclose(times, np.arange(20) / (stated or 30), atol=1e-9)
    assert ("does not say how many frames a second" in caplog.text) == (stated is None)
    given = [frame.timestamp for frame in open_source(path, fps=4.0).frames()]
    assert np.allclose(given, np.arange(20) / 4, atol=1e-9)
    assert source.length is None
    part = [
        number_of(frame.image) for frame in open_source(path, fps=4.0, start=2.5, end=4.0).frames()
    ]
    assert part == [10, 11, 12, 13, 14, 15]


def test_a_bare_stream_of_30_frames_a_second():
    times = [frame.timestamp for frame in open_source(field("raw_30fps.264")).frames()]
    assert np.allclose(np.diff(times), 1 / 30, atol=1e-9)


def test_fps_is_refused_where_times_are_stated(tmp_path):
    with pytest.raises(SettingError, match="states when each frame is shown"):
        open_source(numbered_clip(tmp_path / "a.mp4", 3), fps=10.0)


# --- durations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.ts"])
def test_sound_longer_than_the_picture_is_not_a_cut(tmp_path, caplog, name):
    source = open_source(with_sound(tmp_path / name, 6.0))
    assert len(list(source.frames())) == 20
    assert caplog.text == ""
    assert source.length is None or abs(source.length - 20) <= 1


def test_a_real_file_with_longer_sound(caplog):
    source = open_source(field("audio_longer.mkv"))
    count = len(list(source.frames()))
    assert caplog.text == ""
    assert source.length == count == 60


def test_the_estimate_knows_of_edit_lists(tmp_path, caplog):
    path = numbered_clip(
        tmp_path / "a.mp4",
        24,
        earlier=9,
        container={"avoid_negative_ts": "disabled"},
        options={"bf": "0"},
        key_every=30,
    )
    source = open_source(path)
    count = len(list(source.frames()))
    assert count < 24 and abs(source.length - count) <= 1
    assert caplog.text == ""


def test_the_estimate_of_digital_tape(tmp_path, caplog):
    path = tmp_path / "a.dv"
    with av.open(str(path), "w", format="dv") as output:
        stream = output.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(picture(number, 720, 576), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    source = open_source(path)
    frames = list(source.frames())
    assert source.length == len(frames) == 12
    assert np.allclose([frame.timestamp for frame in frames], np.arange(12) / 25)
    assert frames[0].image.shape == (576, 768, 3)  # pixels of 16:15
    assert caplog.text == ""


def test_a_real_file_that_was_cut_keeps_every_intact_frame():
    found = []
    with pytest.raises(InputError, match=r"is damaged.*Use an intact copy"):
        for frame in open_source(field("truncated_faststart.mp4")).frames():
            found.append(frame.index)
    assert len(found) == 59
