"""Strict loading: names, shapes, types and values."""

import logging

import pytest
import torch
from torch import Tensor

from tests.weights.conftest import tiny_tensors
from ttt3r.errors import WeightsError
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.weights.catalogue import CATALOGUE
from ttt3r.weights.network import (
    build,
    canonical_key,
    check_finite,
    check_fit,
    clean_tensors,
    expected_shapes,
    shapes_of,
)

ALIAS, CANONICAL = "h.dpt_self.scratch.layer_rn.2.weight", "h.dpt_self.scratch.layer3_rn.weight"


def config_of(name: str) -> Cut3rConfig:
    config = CATALOGUE[name].random_config
    assert config is not None
    return config


@pytest.mark.parametrize(
    ("names", "clean"),
    [
        ({"module.a", "module.b"}, {"a", "b"}),
        ({"module.a", "b"}, {"module.a", "b"}),
        ({"module_a"}, {"module_a"}),
        ({"_orig_mod.module.a", "_orig_mod.module.b"}, {"a", "b"}),
        ({"module._orig_mod.net.model.a", "module._orig_mod.net.model.b"}, {"a", "b"}),
        ({"model.module.a", "model.b"}, {"module.a", "b"}),
        (set(), set()),
    ],
)
def test_prefixes_of_training_are_stripped_only_if_all_names_have_them(
    names: set[str], clean: set[str]
) -> None:
    assert set(clean_tensors({name: torch.zeros(1) for name in names})) == clean


def test_aliases_are_merged() -> None:
    value = torch.arange(4.0)
    assert canonical_key(ALIAS) == CANONICAL
    assert canonical_key(CANONICAL) == CANONICAL
    for given in (
        {ALIAS: value},
        {CANONICAL: value},
        {ALIAS: value, CANONICAL: value},
        {CANONICAL: value, ALIAS: value.clone()},
    ):
        assert list(clean_tensors(given)) == [CANONICAL]


def test_aliases_must_agree() -> None:
    value = torch.arange(4.0)
    for other in (value + 1, value[:2], value.half()):
        with pytest.raises(WeightsError, match=r"layer_rn\.2\.weight and its other name"):
            clean_tensors({CANONICAL: value, ALIAS: other})


def test_old_checkpoints_get_a_state_decoder(caplog: pytest.LogCaptureFixture) -> None:
    tensors = tiny_tensors("tiny-linear")
    old = {key: item for key, item in tensors.items() if not key.startswith("dec_blocks_state.")}
    with caplog.at_level(logging.WARNING, "ttt3r.weights"):
        network = build(config_of("tiny-linear"), old)
    assert "no state decoder" in caplog.text
    first, second = network.dec_blocks[1], network.dec_blocks_state[1]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()


def test_float32_weights_are_not_copied() -> None:
    tensors = tiny_tensors("tiny-dpt")
    state = build(config_of("tiny-dpt"), tensors).state_dict()
    assert set(map(canonical_key, state)) == set(tensors)
    for key, tensor in state.items():
        assert tensor.data_ptr() == tensors[canonical_key(key)].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(dtype: torch.dtype) -> None:
    tensors = {key: item.to(dtype) for key, item in tiny_tensors("tiny-linear").items()}
    for key, tensor in build(config_of("tiny-linear"), tensors).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensors[key].float())


def test_the_network_runs_after_loading() -> None:
    network = build(config_of("tiny-linear"), tiny_tensors("tiny-linear"))
    assert not any(item.is_meta for item in (*network.parameters(), *network.buffers()))


REPORT = """\
the weights do not fit the network:
  12 missing: a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, and 2 more
  1 unexpected: extra
  2 of another shape: wide is 3x4, expected 4x3, scalar is a number, expected 1
  1 not floating-point: whole is torch.int64
The file is incomplete, or belongs to another network or configuration."""


def test_the_report_lists_everything_that_does_not_fit() -> None:
    expected: dict[str, tuple[int, ...]] = {f"a{i}": (1,) for i in range(12)}
    expected |= {"wide": (4, 3), "scalar": (1,), "whole": (2,), "good": (5,)}
    given: dict[str, Tensor] = {
        "wide": torch.zeros(3, 4),
        "scalar": torch.zeros(()),
        "whole": torch.zeros(2, dtype=torch.int64),
        "good": torch.zeros(5),
        "extra": torch.zeros(1),
    }
    with pytest.raises(WeightsError) as caught:
        check_fit(expected, given)
    assert str(caught.value) == REPORT


def test_exactly_the_expected_tensors_fit() -> None:
    config = config_of("tiny-dpt")
    expected = expected_shapes(config)
    check_fit(expected, {key: torch.empty(shape, device="meta") for key, shape in expected.items()})
    assert not any("layer_rn" in key for key in expected)


def test_left_over_and_lost_tensors_are_errors() -> None:
    config, tensors = config_of("tiny-linear"), tiny_tensors("tiny-linear")
    lost = tensors.pop("dec_norm.bias")
    with pytest.raises(WeightsError, match=r"1 missing: dec_norm\.bias"):
        build(config, tensors)
    with pytest.raises(WeightsError, match=r"1 unexpected: more"):
        build(config, {**tensors, "dec_norm.bias": lost, "more": lost})


def test_a_configuration_that_contradicts_the_tensors_is_refused() -> None:
    with pytest.raises(WeightsError, match="encoder_depth is 24 by the configuration but 2"):
        build(Cut3rConfig(), tiny_tensors("tiny-dpt"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_found(value: float) -> None:
    tensors = tiny_tensors("tiny-linear")
    tensors["enc_norm.bias"][3] = value
    with pytest.raises(WeightsError, match=r"enc_norm\.bias holds infinite or undefined"):
        build(config_of("tiny-linear"), tensors)


def test_large_finite_values_are_numbers() -> None:
    check_finite("a", torch.full((8,), 3e38))


def test_shapes_of_is_plain() -> None:
    assert shapes_of({"a": torch.zeros(2, 3), "b": torch.zeros(())}) == {"a": (2, 3), "b": ()}
