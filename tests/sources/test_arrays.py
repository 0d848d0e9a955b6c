"""Frames from memory."""

import itertools

import numpy as np
import pytest

from tests.sources.clips import picture
from ttt3r.errors import InputError
from ttt3r.sources import open_source
from ttt3r.types import Frame


def camera(count: int):
    for number in range(count):
        yield picture(number)


def test_arrays_are_timed_by_the_frame_rate():
    source = open_source([picture(number) for number in range(6)], fps=10.0, stride=2, start=0.1)
    frames = list(source.frames())
    assert [frame.timestamp for frame in frames] == [0.1, 0.3, 0.5]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert np.array_equal(frames[1].image, picture(3))
    assert source.length is None


def test_lengths():
    images = [picture(0)] * 5
    assert open_source(images, stride=2).length == 3
    assert open_source(np.stack(images)).length == 5
    assert open_source(images[0]).length == 1
    assert open_source(camera(5)).length is None


def test_frames_keep_what_they_know():
    given = [
        Frame(picture(number), 7, 100.0 + number**2, np.eye(3), f"shot {number}")
        for number in range(4)
    ]
    found = list(open_source(given, stride=2).frames())
    assert [frame.timestamp for frame in found] == [100.0, 104.0]
    assert [frame.index for frame in found] == [0, 1]
    assert [frame.name for frame in found] == ["shot 0", "shot 2"]
    assert np.array_equal(found[0].intrinsics, given[0].intrinsics)
    assert found[0].intrinsics is not given[0].intrinsics  # the caller may change its own


@pytest.mark.parametrize("second", [0.0, -1.0])
def test_times_must_increase(second):
    frames = [Frame(picture(0), timestamp=0.0), Frame(picture(1), timestamp=second)]
    iterator = open_source(frames).frames()
    next(iterator)
    with pytest.raises(InputError, match="frame 1 has the timestamp"):
        next(iterator)


@pytest.mark.parametrize("second", [float("nan"), float("inf"), np.float64("nan")])
def test_a_frame_has_a_time(second):
    """A run could not be read back otherwise: JSON has no such number."""
    with pytest.raises(InputError, match=r"timestamp of frame 7 is (nan|inf).*seconds"):
        Frame(picture(1), 7, second)


def test_an_iterator_is_read_once_and_lazily():
    produced = []

    def endless():
        for number in itertools.count():
            produced.append(number)
            yield picture(0)

    source = open_source(endless())
    frames = source.frames(start=2)
    assert next(frames).index == 2
    assert produced == [0, 1, 2]
    with pytest.raises(InputError, match="already read"):
        next(source.frames())


def test_an_endless_feed_stops_at_the_end():
    source = open_source((picture(0) for _ in itertools.count()), end=0.5, fps=10.0)
    assert len(list(source.frames())) == 5


@pytest.mark.parametrize(
    "item, message",
    [
        (np.zeros((4, 4), np.uint8), r"an array of uint8 with shape \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"an array of uint8 with shape \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of uint8 with shape \[0, 4, 3\]"),
        (np.zeros((4, 4, 3)), "an array of float64"),
        ("a.png", "a str"),
        (None, "a NoneType"),
    ],
)
def test_items_that_are_no_image(item, message):
    iterator = open_source(iter([picture(0), item])).frames()
    next(iterator)
    with pytest.raises(InputError, match=f"frame 1 is {message}.*uint8.*RGB"):
        next(iterator)


def test_nothing_at_all():
    with pytest.raises(InputError, match="holds no frame"):
        list(open_source([]).frames())
