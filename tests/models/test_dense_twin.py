"""The network against a slow twin that takes none of its shortcuts; both share the weights."""

from dataclasses import fields
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.dense import DenseCut3r, double
from tests.networks import random_images, random_tiny
from ttt3r import rules
from ttt3r.models.base import Views
from ttt3r.nn.attention import attend
from ttt3r.nn.backend import MANY_ROWS
from ttt3r.nn.dpt import Dpt
from ttt3r.nn.layers import Conv2d, linear_by_convolution
from ttt3r.types import OUTPUTS, Reading

NETWORKS = ("tiny_dpt", "tiny_linear")
SIZES = {
    "landscape": (48, 64),
    "portrait": (64, 48),
    "odd": (80, 48),
    "one_row": (16, 80),
    "many_patches": (192, 208),  # enough rows for float32 products by convolution
}
# A few steps of a whole network, whose sums each kernel orders in its own way: 330 float32 eps.
CLOSE = {"rtol": 4e-5, "atol": 4e-5}
close = partial(assert_close, **CLOSE)


def compare(actual: Reading, expected: Reading, linear: bool):
    for field in fields(Reading):
        ours, dense = getattr(actual, field.name), getattr(expected, field.name)
        if linear and field.name == "points":
            # Points are mirrored by the sign of z, which rounding decides where z is near 0.
            same = torch.isclose(ours, dense, **CLOSE)
            assert same.float().mean() > 0.999
        else:
            close(ours, dense, msg=lambda text, f=field: f"{f.name}: {text}")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", ["ttt3r", "overwrite"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_step(name, rule, size):
    model, update = random_tiny(name), rules.parse(rule)
    twin = DenseCut3r(model)
    images = random_images(5, *size)
    grid = (size[0] // 16, size[1] // 16)
    state, dense_state = model.initial_state(update), twin.initial_state()
    for image in images:
        tokens = model.encode(Views(image[None]))
        features = twin.encode(image[None])
        close(tokens.features, features)
        state, output = model.step(state, tokens, update, OUTPUTS)
        dense_state, dense, _ = twin.step(dense_state, features, grid, gated=rule == "ttt3r")
        compare(output, dense, linear=name == "tiny_linear")
        close(state.tokens, dense_state.tokens)
        close(state.pose_memory, dense_state.pose_memory)
        assert torch.equal(state.age, dense_state.age)
    if rule == "ttt3r":
        assert output.gate.std() > 1e-3  # a gate that were constant would prove little


def test_batch():
    """Streams of a batch do not mix, as two runs of the twin show."""
    model, rule = random_tiny("tiny_dpt"), rules.parse("ttt3r")
    twin = DenseCut3r(model)
    videos = torch.stack([random_images(3, seed=seed) for seed in (1, 2)])
    state = model.initial_state(rule, batch=2)
    alone = [twin.initial_state(), twin.initial_state()]
    for index in range(3):
        state, output = model.step(state, model.encode(Views(videos[:, index])), rule, OUTPUTS)
        for stream in range(2):
            features = twin.encode(videos[stream, index : index + 1])
            alone[stream], dense, _ = twin.step(alone[stream], features, (3, 4))
            close(output.gate[stream], dense.gate[0])
            close(output.points[stream], dense.points[0])
            close(state.tokens[stream], alone[stream].tokens[0])


def test_half_precision_rope():
    """Rounding to float16 amplifies differences in the last digit."""
    model = random_tiny("tiny_dpt", half_rope_in_encoder=True)
    image = random_images(1)
    features = DenseCut3r(model).encode(image)
    assert_close(model.encode(Views(image)).features, features, rtol=1e-3, atol=1e-3)


def test_kept_logits():
    """Every decoder attention leaves its logits."""
    model = random_tiny("tiny_dpt")
    twin = DenseCut3r(model)
    features = twin.encode(random_images(1))
    _, _, logits = twin.step(twin.initial_state(), features, (3, 4))
    depth, tokens, patches = model.config.decoder_depth, model.config.state_size, 3 * 4
    shapes = {
        "image_self": (1, 2, 1 + patches, 1 + patches),
        "image_cross": (1, 2, 1 + patches, tokens),
        "state_self": (1, 4, tokens, tokens),
        "state_cross": (1, 4, tokens, 1 + patches),
    }
    for kind, shape in shapes.items():
        assert [tuple(layer.shape) for layer in getattr(logits, kind)] == [shape] * depth


def test_shares_parameters():
    model = random_tiny("tiny_dpt")
    weights = DenseCut3r(model).weights
    assert all(weights[key].data_ptr() == p.data_ptr() for key, p in model.named_parameters())


def test_fusion_commutes_with_upsampling():
    """The package mixes channels before it doubles the resolution, the published head after."""
    network = Dpt((8, 8, 8, 8), (4, 4, 4, 4), feature=6, last=4, out=3).eval()
    fusion = network.scratch.refinenet1
    x = torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        expected = fusion.out_conv(double(fusion.resConfUnit2(x)))
        close(fusion(x, (10, 14)), expected)


@pytest.mark.parametrize("rows", [1, MANY_ROWS + 1])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_by_convolution(rows, with_bias):
    """Values and gradients are those of a product, also for rows that lie apart in memory."""
    inputs = torch.randn(2, rows, 3 * 32)[..., 32:64].requires_grad_()
    weight, bias = torch.randn(48, 32, requires_grad=True), torch.randn(48, requires_grad=True)
    parameters = (inputs, weight, bias) if with_bias else (inputs, weight)
    actual = linear_by_convolution(inputs, weight, bias if with_bias else None)
    expected = F.linear(inputs, weight, bias if with_bias else None)
    assert actual.is_contiguous()
    assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    seed = torch.randn_like(expected)
    for ours, plain in zip(
        torch.autograd.grad(actual, parameters, seed),
        torch.autograd.grad(expected, parameters, seed),
        strict=True,
    ):
        assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(stride):
    conv = Conv2d(6, 10, 3, stride=stride, padding=1)
    x = torch.randn(2, 6, 9, 11)
    # Sums of 54 products: 80 float32 eps.
    assert_close(conv(x), torch.nn.Conv2d.forward(conv, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention(dtype):
    """Fused attention is what its definition says, as near as the type allows."""
    query, key, value = torch.randn(3, 2, 4, 33, 16)
    expected = (query @ key.mT / 4).softmax(-1) @ value
    actual = attend(query, key, value.to(dtype))
    assert actual.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert (actual - expected.transpose(1, 2).flatten(2)).norm() < tolerance * expected.norm()
