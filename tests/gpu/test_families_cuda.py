"""Every family gives the same on a CUDA device; run with `python -m pytest -m gpu`."""

import itertools

import numpy as np
import pytest
import torch

from ttt3r import weights
from ttt3r.stream.clips import open_session

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

FRAMES = 5
RULES = {
    "tiny-point3r": ("fuse", "append"),
    "tiny-streamvggt": ("keep_all", "window(3)", "diverse(3)"),
    "tiny-vggt": ("once", "keep_all", "window(3)"),
    "tiny-fast3r": ("once", "window(3)"),
}
CASES = [(name, rule) for name, rules in RULES.items() for rule in rules]
# Of the largest point: random networks double small differences from layer to layer.
NEAR = 5e-3


def frames(name: str) -> np.ndarray:
    patch = weights.load(name, "cpu").preparation.patch
    size = (FRAMES, 3 * patch, 4 * patch, 3)
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


def assert_near(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert (a.index, a.segment) == (b.index, b.segment)
        off = (a.points.cpu() - b.points).abs().max() / b.points.abs().max()
        assert off < NEAR, off
        if b.world_from_camera.isfinite().all():  # nothing fits the points of random Fast3R
            torch.testing.assert_close(a.world_from_camera, b.world_from_camera, atol=1e-2, rtol=0)


@pytest.mark.parametrize("reset", [None, 3])
@pytest.mark.parametrize(("name", "rule"), CASES)
def test_cuda_equals_cpu(name: str, rule: str, reset: int | None):
    said = []
    for device in (DEVICE, "cpu"):
        session = open_session(weights.load(name, device, "float32"), rule, reset)
        assert session.device.type == device
        said.append(list(session.stream(frames(name))))
    assert_near(*said)


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_a_session_moves_between_devices(name: str, rule: str, tmp_path):
    here, there = (weights.load(name, device, "float32") for device in ("cpu", DEVICE))
    images = frames(name)
    whole = list(open_session(here, rule, 3).stream(images))
    session = open_session(here, rule, 3)
    list(itertools.islice(session.stream(images), 3))
    session.save(tmp_path / "s")
    moved = type(session).load(tmp_path / "s", there)
    assert moved.index == 3
    assert_near(list(moved.stream(images[3:])), whole[3:])


@pytest.mark.parametrize("name", RULES)
def test_images_may_lie_on_the_device(name: str):
    images = torch.from_numpy(frames(name))
    said = []
    for given in (images.to(DEVICE), images):
        session = open_session(weights.load(name, DEVICE, "float32"), reset=3)
        said.append(list(session.stream(given)))
    assert_near(*said)


@pytest.mark.parametrize("name", RULES)
def test_bfloat16_stays_near(name: str):
    said = []
    for device, precision in ((DEVICE, "bfloat16"), ("cpu", "float32")):
        session = open_session(weights.load(name, device, precision))
        said.append(list(session.stream(frames(name))))
    for a, b in zip(*said, strict=True):
        assert a.points.dtype == torch.float32 and a.points.isfinite().all()
        assert (a.points.cpu() - b.points).norm() / b.points.norm() < 0.1
