"""Image files that hold several images: animations and pages."""

import logging

import numpy as np
import pytest
from PIL import Image

from tests.sources.clips import field, number_of, picture, same, write_images
from ttt3r.errors import InputError, SettingError
from ttt3r.sources import open_source

DURATIONS = [100, 200, 50, 400, 100]


def write_pages(path, count=5, **settings):
    pages = [Image.fromarray(picture(number)) for number in range(count)]
    pages[0].save(path, save_all=True, append_images=pages[1:], **settings)
    return path


@pytest.mark.parametrize("name, settings", [("a.webp", {"lossless": True}), ("a.png", {})])
def test_animations_keep_their_times(tmp_path, name, settings):
    source = open_source(write_pages(tmp_path / name, duration=DURATIONS, **settings))
    frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    times = np.cumsum([0, *DURATIONS[:-1]]) / 1000
    assert np.allclose([frame.timestamp for frame in frames], times, atol=1e-9)
    assert source.length == 5 and [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert same(source.frames(start=3), frames[3:])
    part = open_source(tmp_path / name, start=0.3, end=0.7)
    assert part.length is None
    assert [number_of(frame.image) for frame in part.frames()] == [2, 3]
    with pytest.raises(SettingError, match="how long each image is shown"):
        open_source(tmp_path / name, fps=10.0)


def test_pages_take_the_frame_rate(tmp_path):
    path = write_pages(tmp_path / "a.tiff")
    frames = list(open_source(path, fps=4.0).frames())
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.timestamp for frame in frames] == [0, 0.25, 0.5, 0.75, 1.0]
    every_other = open_source(path, stride=2)
    assert every_other.length == 3
    assert [number_of(frame.image) for frame in every_other.frames()] == [0, 2, 4]
    assert open_source(path).describe() != every_other.describe()


def test_deep_pages_are_stretched_alike(tmp_path, caplog):
    first = np.linspace(1000, 2000, 48 * 64).reshape(48, 64).astype(np.uint16)
    pages = [Image.fromarray(first), Image.fromarray(first + np.uint16(500))]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    with caplog.at_level(logging.INFO, "ttt3r.sources"):
        one, two = (frame.image for frame in open_source(tmp_path / "a.tiff").frames())
    assert one.min() == 0 and one.max() == 255
    assert int(two[0, 0, 0]) == pytest.approx(127, abs=2)  # 500 of 1000
    assert caplog.text.count("become black to white") == 1


def test_in_a_folder_they_are_refused_with_the_count(tmp_path):
    write_images(tmp_path / "photos", ["a.png"])
    write_pages(tmp_path / "photos" / "b.png", duration=100)
    with pytest.raises(InputError, match="holds 5 images"):
        list(open_source(tmp_path / "photos").frames())


def test_a_damaged_animation_gives_the_images_before(tmp_path):
    path = write_pages(tmp_path / "a.tiff")
    path.write_bytes(path.read_bytes()[:-4000])
    found = []
    try:
        source = open_source(path)
        with pytest.raises(InputError, match=r"a\.tiff.*(damaged|cannot be read)"):
            for frame in source.frames():
                found.append(number_of(frame.image))
    except InputError:
        return
    assert found == list(range(len(found)))


def test_a_real_animation():
    frames = list(open_source(field("animated_42_frames.webp")).frames())
    assert len(frames) == 42
    assert (np.diff([frame.timestamp for frame in frames]) > 0).all()
    assert not np.array_equal(frames[0].image, frames[20].image)
