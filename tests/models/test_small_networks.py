"""What small networks have and released ones lack: a stem, absolute positions, training."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import gelu

from tests.training.toy import NETWORK
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.base import Views
from ttt3r.models.cut3r import FAMILY
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.models.cut3r.state import state_positions
from ttt3r.nn.attention import attend
from ttt3r.nn.layers import PatchEmbed
from ttt3r.nn.rope import absolute_positions
from ttt3r.rules import parse
from ttt3r.training.initial import initialise, locality_bias
from ttt3r.weights.network import build, shapes_of
from ttt3r.weights.random import random_weights


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


def test_absolute_positions_tell_patches_apart_and_keep_the_middle() -> None:
    places = absolute_positions(6, 8, 32)
    assert places.shape == (48, 32)
    assert torch.cdist(places, places).add(torch.eye(48) * 9).min() > 0.1
    small, large = absolute_positions(3, 3, 32), absolute_positions(5, 5, 32)
    torch.testing.assert_close(small[4], large[12])


def test_absolute_positions_leave_channels_to_content() -> None:
    whole, upper = absolute_positions(3, 4, 32), absolute_positions(3, 4, 32, skipped=16)
    assert not upper[:, :16].any() and torch.equal(upper[:, 16:], whole[:, 16:])
    config = replace(NETWORK, absolute_positions=True, content_channels=16)
    rooms = [Cut3r(each) for each in (config, replace(config, content_channels=0))]
    rooms[1].load_state_dict(rooms[0].state_dict())
    with torch.no_grad():
        features = [model.encode(Views(image=images(1))).features for model in rooms]
    assert not torch.allclose(*features)
    with pytest.raises(SettingError, match="more than encoder_dim"):
        replace(NETWORK, content_channels=NETWORK.encoder_dim + 1)


def test_state_tokens_may_lie_on_a_grid_of_any_width() -> None:
    for count, width in ((48, 8), (20, 5), (7, 3)):
        expected = [[index // width, index % width] for index in range(count)]
        assert state_positions(count, width=width).tolist() == expected
    wide = replace(NETWORK, state_width=NETWORK.state_size)
    rule, first, second = parse("overwrite"), images(1), images(1, 1)
    said = []
    for config in (NETWORK, wide):
        model = build(config, random_weights(NETWORK))
        with torch.no_grad():
            state, _ = model.step(
                model.initial_state(rule), model.encode(Views(image=first)), rule, ()
            )
            said.append(model.step(state, model.encode(Views(image=second)), rule)[1].points)
    assert not torch.allclose(*said)


def test_locality_makes_equal_places_attend_most() -> None:
    from ttt3r.nn.rope import grid_positions, rotary

    constant = locality_bias(2, 16, told=1).view(1, 2, 1, 16).expand(1, 2, 12, 16)
    turned = rotary(grid_positions(3, 4), 16).turn(constant)
    logits = turned @ turned.mT
    assert torch.equal(logits[0, 0].argmax(-1), torch.arange(12))
    assert not logits[0, 1].any()  # the other half of the heads is free


def test_the_stem_is_told_from_the_shapes_and_checked() -> None:
    shapes = shapes_of(random_weights(NETWORK))
    found = FAMILY.sizes(shapes)
    assert found["stem"] == (8, 8, 8) and found["patch_size"] == 16
    assert Cut3rConfig.from_dict(NETWORK.to_dict()) == NETWORK
    for stem in ((8, 8), (8, 8, 4), ()):
        with pytest.raises(WeightsError, match="stem"):
            FAMILY.check(replace(NETWORK, stem=stem), shapes)
    with pytest.raises(SettingError, match="halves the patch"):
        replace(NETWORK, stem=(8,) * 5)
    model = build(NETWORK, random_weights(NETWORK))
    assert model.encode(Views(image=images(1))).features.shape == (1, 6, 64)


def test_blocks_of_the_stem_refine_its_maps() -> None:
    config = replace(NETWORK, stem_blocks=2)
    shapes = shapes_of(random_weights(config))
    assert FAMILY.sizes(shapes)["stem_blocks"] == 2
    assert FAMILY.sizes(shapes_of(random_weights(NETWORK)))["stem_blocks"] == 0
    with pytest.raises(WeightsError, match="stem_blocks"):
        FAMILY.check(NETWORK, shapes)
    embed = PatchEmbed(3, 8, 4, stem=(4, 6), blocks=1)
    image = images(1)
    with torch.no_grad():
        x = gelu(embed.get_submodule("stem0")(image))
        x = embed.get_submodule("stem1")(x)
        block = embed.get_submodule("res1.0")
        x = x + block.conv2(gelu(block.conv1(gelu(x))))
        expected = embed.proj(gelu(x)).flatten(2).mT
        torch.testing.assert_close(embed(image), expected, atol=1e-5, rtol=1e-5)


def test_a_network_without_a_ray_encoder_takes_images_only(network: Cut3r) -> None:
    bare = replace(network.config, ray_encoder_depth=0)
    whole, weights = network.state_dict(), random_weights(bare)
    assert {name for name in whole if "ray_map" in name} == set(whole) - set(weights)
    assert FAMILY.sizes(shapes_of(weights))["patch_size"] == bare.patch_size
    model = build(bare, weights)
    with torch.no_grad():
        assert model.encode(Views(image=images(1)), absent="token").features.isfinite().all()
    with pytest.raises(SettingError, match="take no ray maps"):
        model.encode(Views(ray_map=torch.zeros(1, 32, 48, 6)))
