"""Opening anything, what is refused and how, and picking frames by time."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.clips import numbered_clip, picture, write_images
from ttt3r.errors import InputError, SettingError
from ttt3r.sources import Selection, Source, open_source
from ttt3r.sources.base import select


@pytest.fixture
def sources(tmp_path) -> list[Source]:
    clip = numbered_clip(tmp_path / "clip.mp4", 8)
    images = write_images(tmp_path / "images", [f"{number}.png" for number in range(8)])
    given = [clip, str(clip), tmp_path / "images", f"{tmp_path}/images/*.png", images, images[0]]
    given += [[str(path) for path in images], [picture(number) for number in range(8)]]
    return [open_source(item) for item in given]


def test_every_source_keeps_the_same_promises(sources):
    for source in sources:
        assert isinstance(source, Source)
        assert open_source(source) is source
        frames = list(source.frames())
        assert len(frames) == source.length
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert all(frame.name and frame.transform is None for frame in frames)
        rest = list(source.frames(start=3))
        assert [frame.index for frame in rest] == [frame.index for frame in frames[3:]]
        for left, right in zip(rest, frames[3:], strict=True):
            assert left.timestamp == right.timestamp
            assert np.array_equal(left.image, right.image)
        description = source.describe()
        assert json.loads(json.dumps(description)) == description
        assert {"kind", "path", "stride", "start", "end"} <= description.keys()
        with pytest.raises(SettingError, match="0 or more"):
            next(source.frames(start=-1))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"stride": -2}, "stride must be at least 1"),
        ({"start": -1.0}, "start must be a time"),
        ({"end": float("nan")}, "end must be a time"),
        ({"start": float("inf")}, "start must be a time"),
        ({"start": 2.0, "end": 2.0}, "must lie after start"),
        ({"end": 0.0}, "must lie after start"),
        ({"fps": 0.0}, "fps must be a positive"),
        ({"fps": float("nan")}, "fps must be a positive"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        open_source([picture(0)], **settings)


def test_settings_cannot_change_an_open_source():
    source = open_source([picture(0)])
    with pytest.raises(SettingError, match="where it is opened"):
        open_source(source, stride=2)


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing.mp4", "does not exist.*check the path"),
        ("missing", "does not exist.*check the path"),
        ("", "the path is empty"),
        ("*.png", "matches no images.*quote it"),
        ("notes.*", "the 1 matches of .* are no images"),
        ("notes.txt", r"of a kind that is not known \(\.txt\).*ffmpeg -i .*notes.txt"),
        ("plain", r"of a kind that is not known \(no extension\)"),
        ("empty", r"is empty; put images into it \(accepted are \.jpg"),
        ("texts", r"holds no images \(accepted are \.jpg .*left out: 1 x \.txt.*check the path"),
        ("videos", r"to read a video, give its own path, .*videos.a\.mp4"),
        ("dataset", "subfolders are not searched: give one of them, such as .*dataset.rgb"),
        ("rtsp://camera/1", "network address.*download it first"),
        ("bad\0name", "cannot be opened|does not exist"),
        ("x" * 5000, "cannot be opened"),
    ],
)
def test_paths_without_frames_are_refused(tmp_path, monkeypatch, name, message):
    for folder in ("empty", "texts", "videos", "dataset/rgb"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("notes.txt", "plain", "texts/a.txt", "videos/a.mp4", "texts/.hidden.jpg"):
        (tmp_path / file).write_text("text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_source(name)


@pytest.mark.parametrize("thing", [None, 3, 1.5, b"walk.mp4", object()])
def test_things_that_hold_no_frames_are_refused(thing):
    with pytest.raises(InputError, match="cannot take frames from a"):
        open_source(thing)


def test_lists_with_something_else_in_them(tmp_path):
    images = write_images(tmp_path / "images", ["a.png"])
    with pytest.raises(InputError, match="check the list"):
        open_source([*images, tmp_path / "missing.png"])
    clip = numbered_clip(tmp_path / "clip.mp4", 2)
    with pytest.raises(InputError, match="a list may hold images only"):
        open_source([*images, clip])
    with pytest.raises(InputError, match=r"frame 1 is a .*Path"):
        list(open_source([picture(0), images[0]]).frames())


def test_a_name_with_wildcards_in_it_is_taken_literally(tmp_path):
    clip = numbered_clip(tmp_path / "walk[1].mp4", 2)
    assert open_source(str(clip)).describe()["kind"] == "video"


times = st.lists(st.integers(0, 10_000), min_size=1, max_size=30, unique=True).map(sorted)
seconds = st.one_of(st.none(), st.integers(0, 12_000))


@given(times, st.integers(1, 5), seconds, seconds, st.integers(0, 8), st.integers(0, 10**9))
def test_select_is_slicing_by_time(milliseconds, stride, start, end, skip, origin):
    """Against the plain list comprehension."""
    if end is not None and end <= (start or 0):
        end = (start or 0) + 1
    selection = Selection(
        stride, None if start is None else start / 1000, None if end is None else end / 1000
    )
    elapsed = [time - milliseconds[0] for time in milliseconds]
    inside = [
        number
        for number, time in enumerate(elapsed)
        if time >= (start or 0) and (end is None or time < end)
    ]
    timed = [(origin + time / 1000, number) for number, time in enumerate(milliseconds)]
    if not inside:
        with pytest.raises(InputError, match="no frame between"):
            list(select(timed, selection, skip, "it"))
        return
    expected = list(enumerate(inside[::stride]))[skip:]
    found = list(select(timed, selection, skip, "it"))
    assert [(index, number) for index, _, number in found] == expected
    assert [time for _, time, _ in found] == [timed[number][0] for _, number in expected]
