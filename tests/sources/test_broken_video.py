"""Videos that are damaged, cut off, or no videos at all."""

import logging
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.sources.clips import damage, numbered_clip, packets, same, write_audio, write_clip
from ttt3r.errors import InputError
from ttt3r.sources import open_source


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return numbered_clip(tmp_path_factory.mktemp("video") / "walk.mp4")


def test_files_that_are_no_video(tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("these are notes\n" * 100)
    with pytest.raises(InputError, match=r"notes\.mp4 cannot be opened as a video.*Copy it again"):
        open_source(text)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(InputError, match=r"is empty \(0 bytes\)"):
        open_source(empty)


@pytest.mark.parametrize("missing", [900, 2000])
def test_a_file_cut_off_before_the_end_of_its_index(clip, tmp_path, missing):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-missing])
    with pytest.raises(InputError, match=r"not complete.*ffmpeg -i"):
        open_source(cut)


def test_a_file_with_sound_only(tmp_path):
    with pytest.raises(InputError, match="holds no video, only audio"):
        open_source(write_audio(tmp_path / "song.mp4"))


def test_a_video_without_frames(tmp_path):
    path = tmp_path / "none.y4m"
    path.write_bytes(b"YUV4MPEG2 W64 H48 F10:1 C420jpeg\n")
    with pytest.raises(InputError, match=r"none\.y4m"):
        list(open_source(path).frames())


@pytest.mark.parametrize("start", [0, 2, 10])
@pytest.mark.parametrize(
    "name, codec, pixels",
    [
        ("clip.mp4", "libx264", "yuv420p"),
        ("clip.mp4", "mpeg4", "yuv420p"),
        ("clip.mov", "png", "rgb24"),
        ("clip.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_damage_in_the_middle(tmp_path, capfd, name, codec, pixels, start):
    options = {"bf": "0"} if codec == "libx264" else {}
    path = numbered_clip(tmp_path / name, codec=codec, pixels=pixels, options=options)
    intact = list(open_source(path).frames())
    damage(path, 10)
    source, found = open_source(path), []
    with pytest.raises(InputError, match="is damaged") as caught:
        for frame in source.frames(start):
            found.append(frame)
    assert same(found, intact[start:10])
    message = str(caught.value)
    assert "10 frames were read" in message and "ffmpeg -i" in message
    if start < 10:
        assert "after 0.900 s" in message and message.endswith("--end 0.900")
        assert same(open_source(path, end=0.9).frames(), intact[:9])
    assert capfd.readouterr().err == ""


def test_damage_before_the_first_frame(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", codec="mpeg4")
    damage(path, 0)
    with pytest.raises(InputError, match=r"damaged at its beginning.*0 frames were read"):
        list(open_source(path).frames())


def test_damage_that_the_decoder_hides_makes_no_noise(tmp_path, capfd):
    path = numbered_clip(tmp_path / "clip.mkv")
    damage(path, 10)
    frames = list(open_source(path).frames())
    assert 10 <= len(frames) < 20
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name, codec, pixels",
    [
        ("clip.mp4", "mpeg4", "yuv420p"),
        ("clip.mkv", "ffv1", "bgr0"),
        ("clip.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_a_tail_that_is_missing(tmp_path, caplog, name, codec, pixels):
    container = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = numbered_clip(tmp_path / name, codec=codec, pixels=pixels, container=container)
    intact = list(open_source(path).frames())
    position, _ = packets(path)[10]
    path.write_bytes(path.read_bytes()[:position])
    with caplog.at_level(logging.WARNING):
        found = list(open_source(path).frames())
    assert 9 <= len(found) <= 10 and same(found, intact[: len(found)])
    assert "its end is missing" in caplog.text and "but states" in caplog.text


def test_a_frame_that_is_half_there_is_reported(tmp_path, caplog):
    images = [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(20)]
    path = write_clip(tmp_path / "clip.ts", images)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(open_source(path).frames())
    assert 5 <= len(frames) < 20
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("settings", [{}, {"stride": 7}, {"start": 1.5}, {"end": 0.5}])
def test_a_whole_file_gives_no_warning(tmp_path, clip, caplog, settings):
    times = [0, 33, 66, 400, 433, 1000, 1600, 5000]
    vfr = numbered_clip(tmp_path / "vfr.mp4", len(times), times=times)
    for path in (clip, vfr):
        list(open_source(path, **settings).frames())
    assert caplog.text == ""


def test_a_file_that_disappears(clip, tmp_path):
    copy = tmp_path / "gone.mp4"
    shutil.copy(clip, copy)
    source = open_source(copy)
    copy.unlink()
    with pytest.raises(InputError, match=r"gone\.mp4"):
        list(islice(source.frames(), 1))


def test_nothing_between_start_and_end(clip):
    source = open_source(clip, start=30.0)
    with pytest.raises(InputError, match=r"no frame between 30 s and its end.*last .* 1\.900 s"):
        list(source.frames())
