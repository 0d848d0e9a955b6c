"""Resizing and cropping: sizes, the map between pixels, and images that cannot be used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt3r.errors import InputError, SettingError
from ttt3r.sources.preprocess import fit, on_white, prepare, prepare_frame
from ttt3r.types import Frame, ImageTransform, Preparation

BY_WIDTH = Preparation(518, 14, by_width=True)  # VGGT's
POLICIES = [
    Preparation(),
    Preparation(224),
    Preparation(518, 14),
    Preparation(512, square_ok=True),
    BY_WIDTH,
]


@pytest.mark.parametrize(
    "width, height, expected",
    [
        (640, 480, (512, 384)),
        (480, 640, (384, 512)),
        (333, 500, (336, 512)),
        (1280, 720, (512, 288)),
        (1000, 300, (512, 144)),
        (300, 200, (512, 336)),
        (600, 600, (512, 384)),
    ],
)
def test_published_sizes(width, height, expected):
    assert fit(width, height, Preparation()).crop[2:] == expected
    assert fit(width, height, Preparation(224)).crop[2:] == (224, 224)


side = st.integers(64, 2000)


@given(side, side, st.sampled_from([1, 7, 8, 14, 15, 16, 32]), st.integers(64, 600), st.booleans())
def test_the_crop_is_a_centred_multiple_of_the_patch(width, height, patch, size, square_ok):
    policy = Preparation(size, patch, square_ok)
    try:
        transform = fit(width, height, policy)
    except InputError:
        assert min(width, height) * size / max(width, height) < patch + 1
        return
    (resized_width, resized_height), (left, top, new_width, new_height) = (
        transform.resized_size,
        transform.crop,
    )
    assert max(resized_width, resized_height) == size or size == 224
    assert left >= 0 and left + new_width <= resized_width
    assert top >= 0 and top + new_height <= resized_height
    assert abs(resized_width - new_width - 2 * left) <= 1
    assert abs(resized_height - new_height - 2 * top) <= 1
    if size != 224:
        assert new_width % patch == 0 and new_height % patch == 0
        assert new_width > resized_width - patch
        if resized_width != resized_height or square_ok:
            assert new_height > resized_height - patch
    else:
        assert (new_width, new_height) == (224, 224)


def ramp(width: int, height: int) -> np.ndarray:
    """Channels that grow linearly with the column, the row, and their sum."""
    rows, columns = np.mgrid[:height, :width]
    red, green = columns / (width - 1), rows / (height - 1)
    return np.stack([255 * red, 255 * green, 127 * (red + green)], 2).round().astype(np.uint8)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize(
    "width, height", [(640, 480), (333, 500), (1280, 720), (300, 201), (97, 61), (251, 251)]
)
def test_the_transform_maps_pixels_where_they_went(policy, crop, width, height):
    original = ramp(width, height)
    image, transform = prepare(original, policy, crop=crop)
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    assert transform.original_size == (width, height)
    assert transform.crop[2:] == image.shape[1::-1]
    if not crop:
        assert transform.crop[:2] == (0, 0) and transform.resized_size == image.shape[1::-1]
    rows, columns = np.mgrid[8 : image.shape[0] - 8, 8 : image.shape[1] - 8]
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    x, y, _ = np.linalg.inv(transform.processed_from_original) @ pixels
    found = image[rows, columns].reshape(-1, 3).astype(float)
    expected = np.stack([255 * x / (width - 1), 255 * y / (height - 1)], axis=1)
    error = found[:, :2] - expected
    assert np.abs(error).max() < 2  # three roundings to whole grey levels
    assert np.abs(error.mean(axis=0)).max() < 0.08  # they cancel; a half-pixel slip does not


def test_a_dot_lands_where_the_transform_says():
    y, x = np.mgrid[:480, :640]
    dot = 255 * np.exp(-((x - 400) ** 2 + (y - 120) ** 2) / (2 * 15**2))
    original = np.repeat(dot.round().astype(np.uint8)[..., None], 3, axis=2)
    for policy in POLICIES:
        image, transform = prepare(original, policy)
        weight = image[..., 0].astype(float)
        rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
        centre = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
        expected = transform.processed_from_original @ [400, 120, 1]
        assert np.abs(expected[:2] - centre).max() < 0.02


def test_an_image_of_the_right_size_stays_the_same_object():
    image = np.zeros((384, 512, 3), np.uint8)
    for crop in (True, False):
        found, transform = prepare(image, Preparation(), crop=crop)
        assert found is image
        assert transform == ImageTransform.identity(512, 384)


def test_without_cropping_square_images_get_the_size_they_would_be_cropped_to():
    image = ramp(300, 300)
    assert prepare(image, Preparation(), crop=False)[0].shape == (384, 512, 3)
    assert prepare(image, Preparation(square_ok=True), crop=False)[0].shape == (512, 512, 3)


@pytest.mark.parametrize(
    "width, height", [(20000, 10), (10, 20000), (600, 8), (1, 400), (200, 5), (5, 200)]
)
@pytest.mark.parametrize("policy", [Preparation(), Preparation(518, 14)])
def test_narrow_images_are_refused(width, height, policy):
    image = np.zeros((height, width, 3), np.uint8)
    message = f"{width}x{height} pixels is too narrow for size {policy.size}.*at least"
    with pytest.raises(InputError, match=message):
        prepare(image, policy)
    if max(width, height) > 100 * min(width, height):
        with pytest.raises(InputError, match="too narrow for size 224"):
            prepare(image, Preparation(224))


def test_tiny_images_are_enlarged():
    assert prepare(np.full((1, 1, 3), 9, np.uint8), Preparation())[0].shape == (384, 512, 3)
    assert (prepare(np.full((2, 3, 3), 9, np.uint8), Preparation(224))[0] == 9).all()


def test_a_policy_without_sense():
    with pytest.raises(SettingError, match="at least the patch"):
        prepare(ramp(64, 48), Preparation(8, 16))


def test_frames_carry_their_intrinsics_along():
    intrinsics = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    frame = Frame(ramp(640, 480), 3, 1.5, intrinsics, "a.png")
    found = prepare_frame(frame, Preparation(224))
    assert found.image.shape == (224, 224, 3)
    assert (found.index, found.timestamp, found.name) == (3, 1.5, "a.png")
    assert found.transform is not None and found.intrinsics is not None
    point = np.array([0.1, -0.05, 1.0])
    original, processed = intrinsics @ point, found.intrinsics @ point
    assert np.allclose(found.transform.processed_from_original @ original, processed)
    assert frame.transform is None and frame.image.shape == (480, 640, 3)


def test_preparing_twice():
    policy = Preparation()
    once = prepare_frame(Frame(ramp(640, 480)), policy)
    assert prepare_frame(once, policy) is once
    with pytest.raises(SettingError, match="already resized, to 512x384"):
        prepare_frame(once, Preparation(224))


def test_by_width_portraits_lose_rows():
    image, transform = prepare(ramp(30, 60), Preparation(56, 14, by_width=True))
    assert image.shape == (56, 56, 3) and transform.crop == (0, 28, 56, 56)


@pytest.mark.parametrize(("size", "patch"), [(55, 14), (7, 14), (56, 0)])
def test_widths_that_make_no_sense(size, patch):
    with pytest.raises(SettingError, match="multiple of the patch"):
        prepare(ramp(30, 40), Preparation(size, patch, by_width=True))


@pytest.mark.parametrize("shape", [(2, 200), (200, 2), (0, 20), (20, 0)])
def test_by_width_narrow_images_are_refused(shape):
    with pytest.raises(InputError, match="too narrow"):
        prepare(np.zeros((*shape, 3), np.uint8), Preparation(56, 14, by_width=True))


def test_what_is_transparent_becomes_white_for_vggt_only():
    image = np.full((518, 518, 3), 40, np.uint8)
    alpha = np.full((518, 518), 255, np.uint8)
    alpha[:, 259:], alpha[:, 518 // 4 : 259] = 0, 51  # clear, and a fifth opaque
    frame = Frame(image, alpha=alpha)
    found = prepare_frame(frame, BY_WIDTH)
    assert found.alpha is None
    assert (found.image[:, :100] == 40).all() and (found.image[:, 300:] == 255).all()
    assert (np.abs(found.image[:, 150:250].astype(int) - 212) <= 1).all()  # 255 - 215 / 5
    assert np.array_equal(on_white(image, alpha), found.image)
    kept = prepare_frame(frame, Preparation(518, 14, square_ok=True))
    assert (kept.image == 40).all()


def test_intrinsics_map_back_to_stored_pixels():
    """A frame that was stretched from 720x576 to 1024x576 pixels, so that its pixels are square."""
    frame = Frame(ramp(1024, 576), stored_size=(720, 576))
    found = prepare_frame(frame, Preparation())
    assert found.transform is not None and found.transform.original_size == (720, 576)
    square = prepare_frame(Frame(ramp(1024, 576)), Preparation()).transform
    stored = ImageTransform((720, 576), (1024, 576), (0, 0, 1024, 576))
    both = square.processed_from_original @ stored.processed_from_original
    assert np.allclose(found.transform.processed_from_original, both, atol=1e-12)  # float64
