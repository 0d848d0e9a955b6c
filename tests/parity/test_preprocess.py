"""Image preparation against the published one, case by case."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.goldens import goldens, load_npz
from ttt3r.sources import open_source
from ttt3r.sources.images import to_rgb
from ttt3r.sources.preprocess import prepare
from ttt3r.types import Preparation

CASES = json.loads((goldens("cut3r") / "preprocess.json").read_text())["cases"]
SAMPLES = load_npz("cut3r", "preprocess")
SYNTHETIC = re.compile(r"(\d+)x(\d+)_s(\d+)_(load|eval_nocrop|load_square_ok)")


def synthetic(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [(x * x // 64 + 3 * y) % 256, ((5 * x) ^ (3 * y)) % 256, ((x + 2 * y) * 3) % 256]
    return np.stack(channels, axis=2).astype(np.uint8)


def as_float(image: np.ndarray) -> np.ndarray:
    """What the network is given, [3, height, width] in [-1, 1]."""
    return ((image.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def check_statistics(found: np.ndarray, expected: dict) -> None:
    assert list(found.shape[1:]) == expected["shape"]
    assert np.abs(found.mean((1, 2), dtype=np.float64) - expected["mean"]).max() < 1e-6
    if "std" in expected:
        # The published figure is the sample's (n - 1), in float32.
        assert np.abs(found.std((1, 2), dtype=np.float64, ddof=1) - expected["std"]).max() < 1e-6
        assert (found.min(), found.max()) == (expected["min"], expected["max"])


@pytest.mark.parametrize("case", [case for case in CASES if SYNTHETIC.fullmatch(case)])
def test_synthetic_images(case):
    width, height, size, how = SYNTHETIC.fullmatch(case).groups()
    policy = Preparation(int(size), square_ok=how == "load_square_ok")
    image, transform = prepare(
        synthetic(int(width), int(height)), policy, crop=how != "eval_nocrop"
    )
    assert transform.crop[2:] == image.shape[1::-1]
    found, expected = as_float(image), CASES[case]
    if "error" in expected:  # the published code fails; ours squeezes to the size of the crop
        cropped = CASES[case.replace("eval_nocrop", "load")]
        assert list(image.shape[:2]) == cropped["shape"]
        return
    check_statistics(found, expected)
    assert np.abs(found[:, 5::16, 7::16] - SAMPLES[case]).max() < 1e-6


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation(orientation):
    path = goldens("cut3r") / f"exif_orientation{orientation}.png"
    frame = next(open_source(path).frames())
    found = as_float(prepare(frame.image, Preparation(64))[0])
    expected = SAMPLES[f"exif_orientation{orientation}_s64_load"]
    assert list(found.shape[1:]) == CASES[f"exif_orientation{orientation}_s64_load"]["shape"]
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "I;16"])
def test_modes(mode):
    source = Image.fromarray(synthetic(64, 48))
    if mode == "I;16":  # the red channel in the upper byte
        image = Image.fromarray(synthetic(64, 48)[..., 0].astype(np.uint16) * 256)
    else:
        image = source.convert(mode)
    assert image.mode == mode
    check_statistics(as_float(to_rgb(image)), CASES[f"mode_{mode}"])


def test_every_case_was_compared():
    others = {f"exif_orientation{number}_s64_load" for number in (1, 3, 6, 8)}
    others |= {f"mode_{mode}" for mode in ("L", "RGBA", "P", "LA", "I;16")}
    assert {case for case in CASES if not SYNTHETIC.fullmatch(case)} == others
