"""VGGT's image preparation against the published one."""

import hashlib
import json

import numpy as np
import pytest

from tests.goldens import goldens
from ttt3r.sources import prepare_frame
from ttt3r.sources.images import read_pixels
from ttt3r.types import Frame, Preparation

FOLDER = goldens("vggt")
CASES = json.loads((FOLDER / "preprocess.json").read_text())
POLICY = Preparation(518, 14, by_width=True)


def golden_image(name: str) -> Frame:
    image, alpha = read_pixels(FOLDER / f"{name}.png")
    return Frame(image, alpha=alpha)


@pytest.mark.parametrize("size", ["640x480", "480x640"])
def test_pixels(size):
    found = prepare_frame(golden_image(f"pre_in_{size}"), POLICY).image
    expected = golden_image(f"pre_out_{size}_crop").image
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1  # other versions of Pillow may round
    case = CASES[f"{size}_crop"]
    assert [1, 3, *found.shape[:2]] == case["shape"]
    assert abs(found.mean(dtype=np.float64) / 255 - case["mean"]) < 1e-3
    digest = hashlib.sha256(expected.transpose(2, 0, 1).tobytes()).hexdigest()
    assert digest == case["sha256_u8_chw"]


def test_transparency():
    found = prepare_frame(golden_image("pre_in_rgba_40x30"), POLICY).image
    case = CASES["rgba_40x30_crop"]
    assert [1, 3, *found.shape[:2]] == case["shape"]
    assert abs(found.mean(dtype=np.float64) / 255 - case["mean"]) < 1e-3
    assert np.abs(found[200, ::37, 1].astype(int) - case["row200"]).max() <= 1


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("size_")])
def test_sizes(name):
    width, height = map(int, name.removeprefix("size_").split("x"))
    image = np.zeros((height, width, 3), np.uint8)
    assert list(prepare_frame(Frame(image), POLICY).image.shape[:2]) == CASES[name]["crop"]


def test_squeezing_keeps_the_size():
    frame = golden_image("pre_in_480x640")
    found, squeezed = prepare_frame(frame, POLICY), prepare_frame(frame, POLICY, crop=False)
    assert squeezed.image.shape == found.image.shape
    assert squeezed.transform is not None
    assert squeezed.transform.crop == (0, 0, *found.image.shape[1::-1])
