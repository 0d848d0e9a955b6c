"""The same numbers on a CUDA device; run with `python -m pytest -m gpu`."""

import pytest
import torch

from tests.stream.test_session import EVERYTHING, images
from ttt3r import weights
from ttt3r.stream.session import Session

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def stream(device: str, precision: str, **settings) -> list:
    model = weights.load("tiny-dpt", device, precision)
    session = Session(model, reset=6, outputs=EVERYTHING, **settings)
    return [session.push(image) for image in images(10)]


@pytest.mark.parametrize("stitch", ["pose", "similarity"])
def test_cuda_equals_cpu(stitch):
    for a, b in zip(
        stream("cpu", "float32", stitch=stitch),
        stream("cuda", "float32", stitch=stitch),
        strict=True,
    ):
        torch.testing.assert_close(a.points, b.points.cpu(), rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(a.world_from_camera, b.world_from_camera, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_stays_near(precision):
    for a, b in zip(stream("cpu", "float32"), stream("cuda", precision), strict=True):
        off = (a.points - b.points.cpu()).norm() / a.points.norm()
        assert off < 0.05 and b.points.dtype == torch.float32


def test_a_session_moves_between_devices(tmp_path):
    here, there = (weights.load("tiny-dpt", device) for device in ("cpu", "cuda"))
    session = Session(here)
    for image in images(3):
        session.push(image)
    session.save(tmp_path / "s")
    moved = Session.load(tmp_path / "s", there)
    assert moved.state.tokens.device.type == "cuda"
    a, b = session.push(images(4)[3]), moved.push(images(4)[3])
    torch.testing.assert_close(a.points, b.points.cpu(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("where", ["cpu", "model"])
def test_results_lie_on_one_device(where):
    model = weights.load("tiny-dpt", "cuda")
    session = Session(model, reset=2, outputs=EVERYTHING, device_of_results=where)
    expected = "cpu" if where == "cpu" else "cuda"
    for image in images(3):
        prediction = session.push(image)
        found = {tensor.device.type for tensor in prediction.tensors().values()}
        assert found == {expected} == {prediction.image.device.type}
