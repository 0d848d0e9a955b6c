"""Images prepared for published evaluations: their sizes, and their pixels."""

import numpy as np
import pytest

from tests.evaluation.trajectories import expected
from ttt3r.sources import prepare
from ttt3r.types import Preparation

PIXELS = (
    "a_640x480_512_crop",
    "b_1242x375_512_resize",
    "c_1242x375_512_crop",
    "d_1024x436_512_crop",
    "e_320x240_512_crop_up",
    "f_640x480_224_crop",
)


def picture(width, height):
    y, x = np.mgrid[:height, :width]
    waves = 127 + 100 * np.sin(x / 9) * np.cos(y / 7)
    return np.stack([(7 * x + 3 * y) % 256, waves, (x * y // 50) % 256], -1).astype(np.uint8)


def normalised(case):
    width, height = case.get("src_wh") or (case["w"], case["h"])
    image, _ = prepare(picture(width, height), Preparation(case["size"], 16), crop=case["crop"])
    return (image.astype(np.float32) / 255 - 0.5) / 0.5


def test_sizes():
    cases = expected("image")["shapes"]
    assert len(cases) > 50
    for case in cases:
        wanted = case["out_hw"]
        if isinstance(wanted, str):  # squeezing a square is an error there
            wanted = [384, 512]
        assert list(normalised(case).shape[:2]) == wanted, case


@pytest.mark.parametrize("name", PIXELS)
def test_pixels(name):
    cases = expected("image")["pixels"]
    assert set(cases) == set(PIXELS)
    case = cases[name]
    image = normalised(case)
    assert list(image.shape[:2]) == case["out_hw"]
    sample = image[np.ix_(case["sample_y"], case["sample_x"])].transpose(2, 0, 1)
    np.testing.assert_allclose(sample, np.array(case["sample"]), atol=0.02)
    assert image.mean() == pytest.approx(case["mean"], abs=1e-3)
    assert image.std() == pytest.approx(case["std"], abs=1e-3)
