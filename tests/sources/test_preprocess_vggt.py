"""VGGT's image preparation: where pixels go, and images that cannot be used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.preprocess_vggt import crop_to_width, on_white, pad_to_square, stack_padded

WAYS = [crop_to_width, pad_to_square]
side = st.integers(40, 300)


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows with the column, green with the row."""
    rows, columns = np.mgrid[:height, :width]
    red, green = 200 * columns / (width - 1), 200 * rows / (height - 1)
    return np.stack([red, green, 0 * red], 2).round().astype(np.uint8)


@pytest.mark.parametrize("prepare", WAYS)
@given(width=side, height=side)
def test_the_transform_maps_pixels_where_they_went(prepare, width, height):
    image, transform = prepare(ramp(width, height), 112, 14)
    assert image.shape[1] == 112 and image.shape[0] % 14 == 0 and image.shape[0] <= 112
    assert transform.original_size == (width, height)
    assert transform.crop[2:] == image.shape[1::-1]
    to_new = transform.processed_from_original
    for column, row in [(0.5, 0.5), (0.3, 0.6)]:
        place = np.array([column * (width - 1), row * (height - 1), 1.0])
        u, v = np.round(to_new @ place)[:2].astype(int)
        if prepare is pad_to_square:
            assert 0 <= u < 112 and 0 <= v < 112
        if 2 <= u < 110 and 2 <= v < image.shape[0] - 2 and image[v, u, 2] == 0:
            original = np.linalg.inv(to_new) @ [u, v, 1]
            expected = 200 * original[:2] / [width - 1, height - 1]
            assert np.abs(image[v, u, :2] - expected).max() < 12


def test_portraits_lose_rows_or_gain_columns():
    tall = ramp(30, 60)
    cropped, transform = crop_to_width(tall, 56, 14)
    assert cropped.shape == (56, 56, 3) and transform.crop == (0, 28, 56, 56)
    padded, transform = pad_to_square(tall, 56, 14)
    assert transform.resized_size == (28, 56) and transform.crop == (-14, 0, 56, 56)
    assert (padded[:, :14] == 255).all() and (padded[:, 42:] == 255).all()
    assert (padded[:, 14:42, 2] == 0).all()


def test_what_is_transparent_becomes_white():
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    half.paste((10, 20, 30, 255), (0, 0, 2, 4))
    found = on_white(half)
    assert (found[:, :2] == [10, 20, 30]).all() and (found[:, 2:] == 255).all()
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert (on_white(palette) == 255).all()
    assert (on_white(Image.new("L", (2, 2), 7)) == 7).all()


def test_stacking():
    images = [np.zeros((14, 28, 3), np.uint8), np.zeros((17, 14, 3), np.uint8)]
    stack = stack_padded(images)
    assert stack.shape == (2, 17, 28, 3)
    assert (stack[0, 0] == 255).all() and not stack[0, 1:15].any() and (stack[0, 15:] == 255).all()
    assert (stack[1, :, :7] == 255).all() and not stack[1, :, 7:21].any()
    with pytest.raises(InputError, match="no images"):
        stack_padded([])


@pytest.mark.parametrize("prepare", WAYS)
@pytest.mark.parametrize("shape", [(2, 200), (200, 2), (0, 20), (20, 0)])
def test_images_that_cannot_be_used(prepare, shape):
    with pytest.raises(InputError):
        prepare(np.zeros((*shape, 3), np.uint8), 56, 14)


@pytest.mark.parametrize(("size", "patch"), [(55, 14), (7, 14), (56, 0)])
def test_sizes_that_make_no_sense(size, patch):
    with pytest.raises(SettingError, match="multiple of the patch"):
        crop_to_width(ramp(30, 40), size, patch)
