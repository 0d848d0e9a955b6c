"""The caller may fill one buffer again and again: what was pushed is kept as it was."""

import numpy as np
import pytest
import torch

import ttt3r

MODELS = ["tiny-linear", "tiny-point3r", "tiny-streamvggt", "tiny-vggt", "tiny-fast3r"]
KINDS = ["uint8 array", "uint8 tensor", "float32 array", "float32 tensor", "float64 tensor"]


def images(size: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for _ in range(3)]


def as_kind(image: np.ndarray, kind: str) -> "np.ndarray | torch.Tensor":
    if kind.startswith("uint8"):
        return torch.from_numpy(image.copy()) if kind.endswith("tensor") else image.copy()
    scaled = torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous() / 127.5 - 1
    scaled = scaled.double() if kind.startswith("float64") else scaled
    return scaled if kind.endswith("tensor") else scaled.numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_buffer_may_be_filled_again(name, kind):
    model = ttt3r.load(name)
    patch = model.preparation.patch
    fresh = [as_kind(image, kind) for image in images((2 * patch, 3 * patch))]
    buffer = as_kind(np.zeros((2 * patch, 3 * patch, 3), np.uint8), kind)

    def refilled():
        for image in fresh:
            buffer[...] = image
            yield buffer
        buffer[...] = 0

    expected = run(model, iter(fresh))
    found = run(model, refilled())
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.image, other.image)
        # The same computation on the same numbers; another memory layout may round differently.
        assert torch.allclose(one.points, other.points, rtol=1e-4, atol=1e-5)


def run(model, pushed):
    from ttt3r.stream.clips import open_session

    return list(open_session(model, None, None, ("points", "pose"), None).stream(pushed))
