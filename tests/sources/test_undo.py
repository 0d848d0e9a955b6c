"""From processed pixels back to the file's: against where colours went, and projected points."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tests.sources.test_arrange import numbered_pixels, rotation, text
from ttt3r.sources import open_source, prepare_frame
from ttt3r.sources.arrange import Arrangement
from ttt3r.sources.undo import TURNS, OriginalPixels, undo
from ttt3r.types import ImageTransform, Preparation

aspect = st.sampled_from((None, (4, 3), (1, 1), (3, 4)))
ORIENTATION = 0x0112


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [None, "1:1"])
def test_colours_come_from_where_it_says(
    tmp_path: Path, orientation: int, rotate: int, crop: str | None
):
    """Each pixel of the file tells its own place, in red and green."""
    exif = PillowImage.Exif()
    exif[ORIENTATION] = orientation
    stored = numbered_pixels(200, 140)
    PillowImage.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    (upright,) = open_source(tmp_path / "a.png").frames()
    arrangement = Arrangement(rotate, crop)
    frame = prepare_frame(arrangement.apply(upright), Preparation(size=64, patch=16))
    assert frame.transform is not None
    size = upright.image.shape[1], upright.image.shape[0]
    undone = undo(frame.transform, size, [arrangement], TURNS[orientation])
    assert undone.size == (200, 140)
    rows, columns = np.mgrid[2 : frame.image.shape[0] - 2, 2 : frame.image.shape[1] - 2]
    told = frame.image[rows, columns, :2].reshape(-1, 2).astype(float)
    places = undone.pixels(np.stack([columns, rows], axis=-1).reshape(-1, 2).astype(float))
    # Colours are whole numbers, and Lanczos keeps a slope but for its own rounding.
    assert np.abs(told - places).max() < 1.0


@given(rotation, aspect, st.integers(0, 3), st.integers(40, 90), st.integers(40, 90))
@settings(max_examples=60)
def test_points_project_where_they_did(rotate, aspect, turns, width, height):
    arrangement = Arrangement(rotate, text(aspect))
    _, arranged = arrangement.pixels((width, height))
    transform = ImageTransform(arranged, (32, 24), (3, 2, 16, 16))
    undone = undo(transform, (width, height), [arrangement], turns)
    random = np.random.default_rng(width * height)
    intrinsics = np.array([[30.0, 0, 7.5], [0, 31.0, 8.5], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.linalg.qr(random.normal(size=(3, 3)))[0], random.normal(size=3)
    camera = random.normal(size=(20, 3)) + np.array([0.0, 0.0, 5.0])
    world = camera @ pose[:3, :3].T + pose[:3, 3]
    seen = camera @ intrinsics.T
    wanted = undone.pixels(seen[:, :2] / seen[:, 2:])
    back = undone.world_from_camera(pose)
    original = (world - back[:3, 3]) @ back[:3, :3] @ undone.intrinsics(intrinsics).T
    np.testing.assert_allclose(original[:, :2] / original[:, 2:], wanted, atol=1e-9)
    matrix = undone.intrinsics(intrinsics)
    assert matrix[0, 0] > 0 < matrix[1, 1] and abs(matrix[0, 1]) + abs(matrix[1, 0]) < 1e-9


@given(rotation, aspect, st.integers(8, 40), st.integers(8, 40))
@settings(max_examples=40)
def test_spread(rotate, aspect, width, height):
    """Against a loop over the original pixels."""
    arrangement = Arrangement(rotate, text(aspect))
    _, arranged = arrangement.pixels((width, height))
    if not min(arranged):
        return
    transform = ImageTransform(arranged, (13, 11), (2, 1, 8, 9))
    undone = undo(transform, (width, height), [arrangement])
    values = np.arange(1, 73, dtype=np.uint16).reshape(9, 8)
    found = undone.spread(values)
    assert found.shape == (height, width) and found.dtype == values.dtype
    for y in range(height):
        for x in range(width):
            place = np.linalg.inv(undone.original_from_processed) @ [x, y, 1]
            if np.abs(place % 1 - 0.5).min() < 1e-6:
                continue  # between two pixels
            column, row = np.round(place[:2]).astype(int)
            inside = 0 <= column < 8 and 0 <= row < 9
            assert found[y, x] == (values[row, column] if inside else 0)


def test_stretched_pixels():
    """A video of 40x30 stored pixels that are twice as wide as high is written as 80x30."""
    transform = ImageTransform((40, 30), (20, 30), (0, 0, 20, 30))
    undone = undo(transform, (80, 30))
    np.testing.assert_allclose(undone.pixels(np.array([[0.0, 0.0]])), [[1.5, 0.0]])
    np.testing.assert_allclose(undone.pixels(np.array([[19.0, 29.0]])), [[77.5, 29.0]])


def test_without_a_source():
    transform = ImageTransform((40, 30), (20, 15), (2, 0, 16, 15))
    undone = OriginalPixels.of(transform)
    np.testing.assert_allclose(undone.pixels(np.array([[0.0, 0.0]])), [[4.5, 0.5]])
    same = OriginalPixels.identity((3, 2))
    np.testing.assert_array_equal(same.spread(np.ones((2, 3))), np.ones((2, 3)))
