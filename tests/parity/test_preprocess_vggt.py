"""VGGT's image preparation against the published one."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from tests.goldens import goldens
from ttt3r.sources import prepare
from ttt3r.sources.preprocess_vggt import crop_to_width, on_white, pad_to_square, stack_padded
from ttt3r.types import ImagePolicy

FOLDER = goldens("vggt")
CASES = json.loads((FOLDER / "preprocess.json").read_text())
WAYS = {"crop": crop_to_width, "pad": pad_to_square}


def golden_image(name: str) -> np.ndarray:
    with Image.open(FOLDER / f"{name}.png") as image:
        return on_white(image)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", ["640x480", "480x640"])
def test_pixels(size, way):
    found, _ = WAYS[way](golden_image(f"pre_in_{size}"))
    expected = golden_image(f"pre_out_{size}_{way}")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1  # other versions of Pillow may round
    case = CASES[f"{size}_{way}"]
    assert [1, 3, *found.shape[:2]] == case["shape"]
    assert abs(found.mean(dtype=np.float64) / 255 - case["mean"]) < 1e-3
    digest = hashlib.sha256(expected.transpose(2, 0, 1).tobytes()).hexdigest()
    assert digest == case["sha256_u8_chw"]


def test_transparency():
    found, _ = crop_to_width(golden_image("pre_in_rgba_40x30"))
    case = CASES["rgba_40x30_crop"]
    assert [1, 3, *found.shape[:2]] == case["shape"]
    assert abs(found.mean(dtype=np.float64) / 255 - case["mean"]) < 1e-3
    assert np.abs(found[200, ::37, 1].astype(int) - case["row200"]).max() <= 1


def test_mixed_sizes():
    images = [crop_to_width(golden_image(f"pre_in_{size}"))[0] for size in ("640x480", "480x640")]
    stack, case = stack_padded(images), CASES["mixed_crop"]
    assert list(stack.shape) == [2, *case["shape"][2:], 3]
    before, after = case["first_is_padded_rows"]
    assert (stack[0, :before] == 255).all() and (stack[0, -after:] == 255).all()
    assert np.array_equal(stack[0, before:-after], images[0])
    means = stack.mean((1, 2, 3), dtype=np.float64) / 255
    assert np.abs(means - case["mean"]).max() < 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("size_")])
def test_sizes(name):
    width, height = map(int, name.removeprefix("size_").split("x"))
    image = np.zeros((height, width, 3), np.uint8)
    for way, loader in WAYS.items():
        assert list(loader(image)[0].shape[:2]) == CASES[name][way]


@pytest.mark.parametrize("size", ["640x480", "480x640"])
def test_the_weights_policy_prepares_the_same(size):
    """What `run` and `eval` do to images for VGGT is what it was trained with."""
    policy = ImagePolicy(518, 14, by_width=True)
    image = golden_image(f"pre_in_{size}")
    found, transform = prepare(image, policy)
    expected, its = crop_to_width(image)
    assert np.array_equal(found, expected) and transform == its
    squeezed, whole = prepare(image, policy, crop=False)
    assert squeezed.shape == found.shape and whole.crop == (0, 0, *found.shape[1::-1])
