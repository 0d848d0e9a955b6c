"""Turning and cropping frames: against Pillow, where pixels and points go, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tests.sources.clips import numbered_clip, picture, same, write_clip, write_images
from ttt3r.errors import InputError, SettingError
from ttt3r.sources import Source, open_source, prepare_frame
from ttt3r.sources.arrange import Arrangement
from ttt3r.types import Frame, Preparation

ROTATIONS = (0, 90, 180, 270)
ASPECTS = ((4, 3), (1, 1), (16, 9), (3, 4), (2.39, 1), (5, 2))
# Pillow counts degrees against the clock.
TRANSPOSE = {
    90: PillowImage.Transpose.ROTATE_270,
    180: PillowImage.Transpose.ROTATE_180,
    270: PillowImage.Transpose.ROTATE_90,
}
# Old camera axes in the turned camera: its x axis points where the old one's -y did.
TURNED_FROM_UPRIGHT = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

side = st.integers(4, 60)
rotation = st.sampled_from(ROTATIONS)
aspect = st.sampled_from((None, *ASPECTS))


def text(aspect: tuple[float, float] | None) -> str | None:
    return aspect and f"{aspect[0]}:{aspect[1]}"


def numbered_pixels(width: int, height: int) -> np.ndarray:
    """An image whose pixels tell their own (column, row) in red and green."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.full_like(rows, 7)], axis=2).astype(np.uint8)


def by_pillow(image: np.ndarray, rotate: int, aspect: tuple[float, float] | None) -> np.ndarray:
    """The slow twin: Pillow turns and cuts, and the size of the cut is found by trying."""
    turned = PillowImage.fromarray(image)
    if rotate:
        turned = turned.transpose(TRANSPOSE[rotate])
    if aspect is None:
        return np.array(turned)
    width, height = turned.size
    wide, high = (round(100 * number) for number in aspect)
    if width * high >= height * wide:
        new_width = max(n for n in range(width + 1) if n * high <= height * wide)
        new_height = height
    else:
        new_width = width
        new_height = max(n for n in range(height + 1) if n * wide <= width * high)
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return np.array(turned.crop((left, top, left + new_width, top + new_height)))


@given(side, side, rotation, aspect)
def test_images_are_those_of_pillow(width, height, rotate, aspect):
    image = numbered_pixels(width, height)
    arranged = Arrangement(rotate, text(aspect)).apply(Frame(image, 3, 0.5, None, "a.png"))
    assert np.array_equal(arranged.image, by_pillow(image, rotate, aspect))
    assert arranged.image.flags.c_contiguous
    assert (arranged.index, arranged.timestamp, arranged.name) == (3, 0.5, "a.png")
    assert arranged.transform is None and arranged.intrinsics is None


@given(side, side, rotation, aspect, st.floats(20.0, 90.0), st.floats(20.0, 90.0), st.data())
def test_points_land_on_their_pixel(width, height, rotate, aspect, fx, fy, data):
    """A pixel of the arranged image, seen as a point in space, and where cameras project it."""
    image = numbered_pixels(width, height)
    intrinsics = np.array([[fx, 0.3, 0.4 * width], [0.0, fy, 0.7 * height], [0.0, 0.0, 1.0]])
    frame = Arrangement(rotate, text(aspect)).apply(Frame(image, intrinsics=intrinsics))
    assert frame.intrinsics is not None
    x = data.draw(st.integers(0, frame.image.shape[1] - 1))
    y = data.draw(st.integers(0, frame.image.shape[0] - 1))
    old_x, old_y, _ = (int(value) for value in frame.image[y, x])
    point = 2.5 * np.linalg.inv(intrinsics) @ [old_x, old_y, 1.0]
    turned = np.linalg.matrix_power(TURNED_FROM_UPRIGHT, rotate // 90) @ point
    projected = frame.intrinsics @ turned
    assert np.allclose(projected[:2] / projected[2], [x, y], atol=1e-9)


def test_a_clockwise_quarter_turn_in_numbers():
    intrinsics = np.array([[500.0, 0.0, 320.0], [0.0, 510.0, 200.0], [0.0, 0.0, 1.0]])
    image = np.zeros((480, 640, 3), np.uint8)
    image[0, 0] = 255
    frame = Arrangement(90).apply(Frame(image, intrinsics=intrinsics))
    assert frame.image.shape == (640, 480, 3)
    assert (frame.image[0, -1] == 255).all()  # top left goes to the top right
    assert np.array_equal(
        np.asarray(frame.intrinsics), [[510.0, 0.0, 279.0], [0.0, 500.0, 320.0], [0.0, 0.0, 1.0]]
    )
    cropped = Arrangement(90, "4:3").apply(Frame(image, intrinsics=intrinsics))
    assert cropped.image.shape == (360, 480, 3)
    assert cropped.intrinsics is not None
    assert np.array_equal(cropped.intrinsics[:2, 2], [279.0, 180.0])
    assert np.array_equal(intrinsics[:2, 2], [320.0, 200.0])


@given(side, side)
def test_four_quarter_turns_change_nothing(width, height):
    intrinsics = np.array([[50.0, 0.0, 17.5], [0.0, 60.0, 9.25], [0.0, 0.0, 1.0]])
    source = open_source([Frame(numbered_pixels(width, height), intrinsics=intrinsics)])
    turned = source
    for _ in range(4):
        turned = open_source(turned, rotate=90)
    (first,), (last,) = source.frames(), turned.frames()
    assert same([first], [last])
    assert np.array_equal(np.asarray(last.intrinsics), intrinsics)


@given(side, side, rotation, aspect)
def test_cropping_twice_is_cropping_once(width, height, rotate, aspect):
    once = Arrangement(rotate, text(aspect)).apply(Frame(numbered_pixels(width, height)))
    height, width = once.image.shape[:2]
    again = Arrangement(0, f"{width}:{height}").apply(once)
    assert np.array_equal(again.image, once.image)


@pytest.fixture
def sources(tmp_path) -> list[Source]:
    clip = numbered_clip(tmp_path / "clip.mp4", 8)
    images = write_images(tmp_path / "images", [f"{number}.png" for number in range(8)])
    return [
        open_source(item, stride=2, rotate=90, crop="4:3")
        for item in (clip, images, [picture(number) for number in range(8)])
    ]


def test_every_source_keeps_its_promises(sources):
    for source in sources:
        assert isinstance(source, Source)
        assert open_source(source) is source
        frames = list(source.frames())
        assert len(frames) == source.length == 4
        assert all(frame.image.shape == (36, 48, 3) for frame in frames)
        for start in range(5):
            assert same(source.frames(start), frames[start:])
        with pytest.raises(SettingError, match="0 or more"):
            next(source.frames(start=-1))


def test_the_other_settings_are_those_of_the_source():
    images = [picture(number) for number in range(6)]
    plain = open_source(images, stride=2, start=0.1, fps=10.0)
    turned = open_source(images, stride=2, start=0.1, fps=10.0, rotate=180)
    for left, right in zip(plain.frames(), turned.frames(), strict=True):
        assert (left.index, left.timestamp, left.name) == (
            right.index,
            right.timestamp,
            right.name,
        )
        assert np.array_equal(left.image[::-1, ::-1], right.image)
    assert turned.length is None
    assert open_source((image for image in images), crop="1:1").length is None


def test_a_turn_comes_on_top_of_the_one_that_the_file_asks_for(tmp_path):
    clip = write_clip(
        tmp_path / "clip.mov", [picture(3)], "png", "rgb24", rotation=(90.0, False, False)
    )
    (upright,) = open_source(clip).frames()
    (turned,) = open_source(clip, rotate=270).frames()
    assert upright.image.shape == (64, 48, 3)
    assert np.array_equal(turned.image, np.rot90(upright.image))


def test_descriptions_differ_where_frames_do():
    images = [picture(0)]
    plain = open_source(images)
    assert open_source(images, rotate=0, crop=None).describe() == plain.describe()
    settings = [(0, "4:3"), (90, None), (90, "4:3"), (90, "3:4"), (180, None), (270, None)]
    descriptions = [plain.describe()]
    for rotate, crop in settings:
        description = open_source(images, rotate=rotate, crop=crop).describe()
        assert json.loads(json.dumps(description)) == description
        assert description.items() >= plain.describe().items()
        assert description not in descriptions
        descriptions.append(description)


def test_descriptions_agree_where_frames_do():
    def describe(**settings) -> dict:
        return open_source([picture(0)], **settings).describe()

    assert describe(crop="8:6") == describe(crop="4:3") == describe(crop="1.0:0.75")
    assert describe(rotate=90, crop="4:3")["arranged"] == ["rotate 90", "crop 4:3"]
    stages = open_source(open_source([picture(0)], rotate=90), crop="4:3")
    assert stages.describe() == describe(rotate=90, crop="4:3")


@pytest.mark.parametrize("rotate", [1, 45, -90, 360])
def test_other_angles_are_refused(rotate):
    with pytest.raises(SettingError, match=f"0, 90, 180 or 270 degrees clockwise, not {rotate}"):
        open_source([picture(0)], rotate=rotate)


MALFORMED = "4 4: :3 4x3 4:3:2 0:3 4:0 0.0:0.0 -4:3 a:b inf:1 nan:1 1e3:1 1/2:3 ٤:٣"


@pytest.mark.parametrize("crop", ["", "4:3\n", " 4:3", "9" * 5000 + ":1", *MALFORMED.split()])
def test_other_crops_are_refused(crop):
    with pytest.raises(SettingError, match=r"crop must be WIDTH:HEIGHT, .* such as 4:3"):
        open_source([picture(0)], crop=crop)


def test_settings_are_checked_before_the_source_is_opened(tmp_path):
    with pytest.raises(SettingError, match="rotate must be"):
        open_source(tmp_path / "missing.mp4", rotate=45)


@pytest.mark.parametrize("crop", ["1000:1", "1:1000"])
def test_a_crop_that_leaves_nothing(crop):
    frames = open_source([picture(0)], rotate=90, crop=crop).frames()
    message = f"a crop to {crop} leaves nothing of frame 0, which has 48x64 pixels; .* nearer"
    with pytest.raises(InputError, match=message):
        next(frames)


def test_the_narrowest_crop_keeps_one_pixel():
    (frame,) = open_source([picture(0)], crop="1:48").frames()
    assert frame.image.shape == (48, 1, 3)
    with pytest.raises(InputError, match="leaves nothing"):
        next(open_source([picture(0)], crop="1:49").frames())


@pytest.mark.parametrize("settings", [{"rotate": 90}, {"crop": "4:3"}])
def test_prepared_frames_are_refused(settings):
    prepared = prepare_frame(Frame(picture(0), timestamp=1.0), Preparation())
    source = open_source([Frame(picture(0)), prepared], **settings)
    frames = source.frames()
    next(frames)
    with pytest.raises(SettingError, match=r"frame 1 was already resized, to 512x384.*original"):
        next(frames)
    assert next(open_source([prepared]).frames()).transform == prepared.transform


def test_errors_of_the_source_come_through(tmp_path):
    images = write_images(tmp_path / "images", ["0.png", "1.png"])
    images[1].write_bytes(b"no image")
    frames = open_source(images, rotate=90).frames()
    next(frames)
    with pytest.raises(InputError, match=r"1\.png cannot be read"):
        next(frames)
