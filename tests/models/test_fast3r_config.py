"""Configurations of Fast3R networks: published ones, and those that cannot work."""

import dataclasses
import json
import math

import pytest

from tests.weights.published import FAST3R_PUBLISHED, published_fast3r
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.config import DptSizes
from ttt3r.models.fast3r.config import TINY, Fast3rConfig, config_from_published


def test_the_defaults_are_the_released_configuration():
    assert config_from_published(FAST3R_PUBLISHED) == Fast3rConfig()
    changed = published_fast3r(
        decoder_args__attn_bias_for_inference_enabled=True, encoder_args__pos_embed="RoPE50"
    )
    config = config_from_published(changed)
    assert config.attn_bias_for_inference_enabled and config.rope_base == 50.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_args__encoder_type": "dino_v2"}, "encoder_type='dino_v2', which is not"),
        ({"decoder_args__decoder_type": "llama"}, "decoder_type='llama', which is not"),
        ({"decoder_args__attn_bias_for_inference_enabled": None}, "does not state attn_bias"),
        ({"decoder_args__mlp_ratio": 3}, "one mlp_ratio"),
        ({"encoder_args__mlp_ratio": math.inf, "decoder_args__mlp_ratio": math.inf}, "one mlp"),
        ({"encoder_args__pos_embed": "cosine"}, "'RoPE' and a number"),
        ({"encoder_args__patch_size": 14}, "need patch_size 16"),
        ({"encoder_args__depth": "24"}, "encoder_depth"),
        ({"head_args__with_local_head": False}, "with_local_head=False"),
        ({"head_args__depth_mode": ["exp", "a", "b"]}, "depth_mode="),
        ({"head_args__conf_mode": []}, "conf_mode="),
    ],
)
def test_configurations_that_are_not_supported_are_refused(changes, message):
    with pytest.raises(WeightsError, match=message):
        config_from_published(published_fast3r(**changes))


def test_a_configuration_without_its_parts_is_refused():
    with pytest.raises(WeightsError, match="no head_args"):
        config_from_published({k: v for k, v in FAST3R_PUBLISHED.items() if k != "head_args"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_depth": 0}, "encoder_depth is 0"),
        ({"decoder_depth": 1}, "2 or more"),
        ({"patch_size": 14}, "patch_size 16"),
        ({"rope_base": math.inf}, "rope_base"),
        ({"encoder_heads": 5}, "64 channels cannot be split into 5 encoder heads"),
        ({"decoder_heads": 5}, "48 channels cannot be split into 5 decoder heads"),
        ({"decoder_dim": 27, "decoder_heads": 3}, "must be even"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        dataclasses.replace(TINY, **changes)


def test_widths_of_dense_heads_are_checked():
    with pytest.raises(SettingError, match="feature is 0"):
        DptSizes((8, 8, 8, 8), 0, 8)


def test_configurations_survive_json():
    for config in (Fast3rConfig(), TINY):
        assert Fast3rConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(WeightsError, match="unknown fields: colour"):
        Fast3rConfig.from_dict({"colour": 1})
    with pytest.raises(WeightsError, match="cannot be read"):
        Fast3rConfig.from_dict({"dpt": {"layers": 3}})
