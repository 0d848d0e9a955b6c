"""What small networks have and released ones lack: a stem, absolute positions, pairs, training."""

from dataclasses import replace

import pytest
import torch

from tests.training.toy import NETWORK
from ttt3r.errors import WeightsError
from ttt3r.models.base import Views
from ttt3r.models.cut3r import Cut3r
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.nn.attention import attend
from ttt3r.nn.rope import absolute_positions
from ttt3r.rules import parse
from ttt3r.training.initial import initialise, locality_bias
from ttt3r.weights.network import build, shapes_of
from ttt3r.weights.random import random_weights
from ttt3r.weights.shapes import check_config, sizes_from_shapes


@pytest.fixture
def network() -> Cut3r:
    model = Cut3r(replace(NETWORK, absolute_positions=True))
    initialise(model, 0)
    return model


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_attention_while_training_equals_the_fused_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator) for n in (5, 7, 7))
    v.requires_grad_()
    trained = attend(q, k, v)
    with torch.no_grad():
        fused = attend(q, k, v)
    torch.testing.assert_close(trained, fused, atol=1e-6, rtol=1e-5)
    trained.sum().backward()
    assert v.grad is not None and v.grad.abs().sum() > 0


def test_gradients_reach_the_first_frame_through_the_state(network: Cut3r) -> None:
    first = images(1).requires_grad_()
    rule = parse("overwrite")
    state = network.initial_state(rule)
    state, _ = network.step(state, network.encode(Views(image=first)), rule, ())
    _, output = network.step(state, network.encode(Views(image=images(1, 1))), rule, ("points",))
    assert output.points is not None
    output.points.sum().backward()
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_a_pair_is_read_against_the_first_frame(network: Cut3r) -> None:
    """Each sample by itself, with the probe called once a layer."""
    tokens = [network.encode(Views(image=images(2, seed))) for seed in (1, 2)]
    calls = []
    with torch.no_grad():
        both = network.compare(*tokens, probe=lambda q, k: calls.append((q.shape, k.shape)))
        one = network.compare(
            *(network.encode(Views(image=images(2, seed)[:1])) for seed in (1, 2))
        )
    assert calls == [((2, 2, 7, 16), (2, 2, 6, 16))] * NETWORK.decoder_depth
    for name in ("points", "world_points", "pose_encoding"):
        torch.testing.assert_close(
            getattr(both, name)[:1], getattr(one, name), atol=1e-4, rtol=1e-4
        )


def test_absolute_positions_tell_patches_apart_and_keep_the_middle() -> None:
    places = absolute_positions(6, 8, 32)
    assert places.shape == (48, 32)
    assert torch.cdist(places, places).add(torch.eye(48) * 9).min() > 0.1
    small, large = absolute_positions(3, 3, 32), absolute_positions(5, 5, 32)
    torch.testing.assert_close(small[4], large[12])


def test_locality_makes_equal_places_attend_most() -> None:
    from ttt3r.nn.rope import grid_positions, rotary, rotate

    constant = locality_bias(2, 16).view(1, 2, 1, 16).expand(1, 2, 12, 16)
    turned = rotate(constant, rotary(grid_positions(3, 4), 16))
    logits = turned @ turned.mT
    assert torch.equal(logits[0, 0].argmax(-1), torch.arange(12))
    assert not logits[0, 1].any()  # the other half of the heads is free


def test_the_stem_is_told_from_the_shapes_and_checked() -> None:
    shapes = shapes_of(random_weights(NETWORK))
    found = sizes_from_shapes(shapes)
    assert found["stem"] == (8, 8, 8) and found["patch_size"] == 16
    assert Cut3rConfig.from_dict(NETWORK.to_dict()) == NETWORK
    for stem in ((8, 8), (8, 8, 4), ()):
        with pytest.raises(WeightsError, match="stem"):
            check_config(replace(NETWORK, stem=stem), shapes)
    with pytest.raises(WeightsError, match="halves the patch"):
        check_config(replace(NETWORK, stem=(8,) * 5), shapes)
    model = build(NETWORK, random_weights(NETWORK))
    assert model.encode(Views(image=images(1))).features.shape == (1, 6, 32)
