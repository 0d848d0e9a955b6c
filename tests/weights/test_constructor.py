"""The text that upstream would evaluate is parsed, and must agree with the tensors."""

import logging
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights.conftest import TINY_ARGUMENTS, TINY_DPT, TINY_LINEAR, constructor, tiny_tensors
from ttt3r.checkpoints.reading import Checkpoint
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.cut3r import FAMILY
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.models.cut3r.published import parse_constructor
from ttt3r.weights.catalogue import CATALOGUE
from ttt3r.weights.network import shapes_of


def config_from_checkpoint(shapes: dict[str, tuple[int, ...]], text: str | None) -> Cut3rConfig:
    config = FAMILY.configure(shapes, Checkpoint(model_string=text))
    assert isinstance(config, Cut3rConfig)
    return config


BASE = "output_mode='pts3d+pose', pose_head=True, pos_embed='RoPE100'"


@pytest.fixture(scope="module")
def linear_shapes() -> dict[str, tuple[int, ...]]:
    return dict(shapes_of(tiny_tensors("tiny-linear")))


@pytest.fixture(scope="module")
def dpt_shapes() -> dict[str, tuple[int, ...]]:
    return dict(shapes_of(tiny_tensors("tiny-dpt")))


def test_arguments_are_read() -> None:
    text = constructor(
        "a='x', b=(1, -inf, inf), c=[2, 3.5], d=True, e=None, f=-4, g=+inf, h=\"y\","
    )
    assert parse_constructor(text) == {
        "a": "x",
        "b": (1, -math.inf, math.inf),
        "c": (2, 3.5),
        "d": True,
        "e": None,
        "f": -4,
        "g": math.inf,
        "h": "y",
    }


def test_white_space_may_stand_anywhere_between_tokens() -> None:
    text = (
        "\nARCroco3DStereo\n(\n  ARCroco3DStereoConfig (\n a\n =\n ( 1 ,\n 2 ),\n\tb='x'\n)\n)\n "
    )
    assert parse_constructor(text) == {"a": (1, 2), "b": "x"}


HOSTILE = [
    "",
    "ARCroco3DStereo",
    "ARCroco3DStereo()",
    "ARCroco3DStereo(1)",
    "Other(ARCroco3DStereoConfig(a=1))",
    "ARCroco3DStereo(Other(a=1))",
    "ARCroco3DStereo(ARCroco3DStereoConfig(a=1), 2)",
    "ARCroco3DStereo(ARCroco3DStereoConfig(a=1), b=2)",
    "ARCroco3DStereo(ARCroco3DStereoConfig(a=1)).x",
    "ARCroco3DStereo(ARCroco3DStereoConfig(a=1))) or (1",
    "ARCroco3DStereo(ARCroco3DStereoConfig(a=1)); x",
    "x.ARCroco3DStereo(ARCroco3DStereoConfig(a=1))",
    "(lambda: ARCroco3DStereo)()(ARCroco3DStereoConfig(a=1))",
    *(
        constructor(arguments)
        for arguments in (
            "1",
            "*[1]",
            "**{'a': 1}",
            "a=1, a=2",
            "a=__import__('os').system('touch x')",
            "a=open",
            "a=inf.real",
            "a=nan",
            "a=[x for x in (1, 2)]",
            "a=f'{1}'",
            "a='\\x41'",
            "a=b'x'",
            "a=1j",
            "a=...",
            "a=1 + 1",
            "a=not True",
            "a=~1",
            "a=-True",
            "a=--1",
            "a=-'x'",
            "a={'b': 1}",
            "a={1}",
            "a=(1, (2, 3))",
            "a=(b := 1)",
            "a=(yield)",
            "a=(1, *(2, 3))",
            "a=1 if True else 2",
            "a=lambda: 1",
            "a=" + "(" * 90 + "1" + ")" * 90 + "[0]",
            "a=" + "[" * 5_000 + "]" * 5_000,
            "a=" + "-" * 9_000 + "1",
            "a=" + "9" * 9_000,
            "a='" + "x" * 30_000 + "'",
            "a='\0'",
        )
    ),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="constructor call in this checkpoint cannot be read"):
        parse_constructor(text)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1'\"()[]{}=,.-+*:\n #infTrue", max_size=40))
def test_random_text_raises_nothing_but_weights_errors(text: str) -> None:
    try:
        result = parse_constructor(constructor(text))
    except WeightsError:
        return
    assert all(isinstance(name, str) for name in result)


def test_text_and_tensors_give_the_configuration(
    linear_shapes: dict[str, tuple[int, ...]], dpt_shapes: dict[str, tuple[int, ...]]
) -> None:
    linear, dpt = CATALOGUE["tiny-linear"].random_config, CATALOGUE["tiny-dpt"].random_config
    assert config_from_checkpoint(linear_shapes, TINY_LINEAR) == linear
    assert config_from_checkpoint(dpt_shapes, TINY_DPT) == dpt


def test_sizes_left_out_are_read_from_the_tensors(dpt_shapes: dict[str, tuple[int, ...]]) -> None:
    arguments = f"{BASE}, img_size=64, enc_num_heads=4, dec_num_heads=2, state_dec_num_heads=4"
    config = config_from_checkpoint(dpt_shapes, constructor(arguments))
    assert config == CATALOGUE["tiny-dpt"].random_config


def test_what_nothing_tells_is_upstreams_default() -> None:
    config = config_from_checkpoint({}, constructor(BASE))
    assert (config.encoder_dim, config.encoder_depth, config.encoder_heads) == (768, 12, 12)
    assert (config.decoder_dim, config.decoder_depth, config.decoder_heads) == (512, 8, 16)
    assert (config.state_size, config.state_heads, config.memory_size) == (324, 16, 256)
    assert (config.image_size, config.head, config.rgb_head) == (224, "linear", False)


def test_modes_and_options_are_taken_over() -> None:
    arguments = (
        f"{BASE}, depth_mode=('square', -inf, inf), pose_mode=('square', -inf, inf), "
        "conf_mode=('sigmoid', 0, 1), state_pe='1d', img_size=(384, 512), mlp_ratio=4.0"
    )
    config = config_from_checkpoint({}, constructor(arguments.replace("RoPE100", "RoPE50")))
    assert (config.points_mode, config.pose_mode) == ("square", "square")
    assert (config.confidence_mode, config.confidence_range) == ("sigmoid", (0.0, 1.0))
    assert (config.state_positions, config.image_size, config.mlp_ratio) == ("1d", 512, 4)
    assert config.rope_base == 50.0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (", state_pe='none'", "state_pe='none', which is not supported; it must be '1d' or '2d'"),
        (", depth_mode=('exp', 0, 10)", "a mode without bounds"),
        (", depth_mode='exp'", "a mode and two bounds"),
        (", pose_mode=('linear', -inf, inf)", "'exp' or 'square' without bounds"),
        (", conf_mode=('log', 1, inf)", "'exp' or 'sigmoid'"),
        (", conf_mode=('sigmoid', 0, inf)", "not a usable range"),
        (", conf_mode=('exp', 2, 1)", "not a usable range"),
        (", head_type='dense'", "head_type='dense'"),
        (", patch_embed_cls='Other'", "patch_embed_cls='Other'"),
        (", depth_head=True", "depth_head=True"),
        (", pose_conf_head=True", "pose_conf_head=True"),
        (", norm_im2_in_dec=False", "norm_im2_in_dec=False"),
        (", img_size=()", "img_size="),
        (", enc_depth=0", "enc_depth=0"),
        (", enc_depth=True", "enc_depth=True"),
        (", enc_depth='2'", "enc_depth='2'"),
        (", enc_depth=100000", "encoder_depth is 100000, not an integer from 1 to 256"),
        (", enc_num_heads=5", "768 channels cannot be split into 5 encoder heads"),
        (", enc_embed_dim=96, enc_num_heads=4", "16 ray encoder heads"),
        (", dec_depth=1", "decoder_depth must be 2 or more"),
        (", head_type='dpt', patch_size=8", "patch_size 16"),
        (", norm_layer='x', extra=1", "unknown arguments: extra, norm_layer"),
    ],
)
def test_unsupported_settings_are_named(change: str, match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        config_from_checkpoint({}, constructor(BASE + change))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ("pose_head=True, pos_embed='RoPE100'", "output_mode='pts3d'"),
        ("output_mode='pts3d+pose', pos_embed='RoPE100'", "pose_head=False"),
        ("output_mode='pts3d+pose', pose_head=True", "pos_embed='cosine'"),
        ("output_mode='pts3d+pose', pose_head=True, pos_embed='RoPE'", "pos_embed='RoPE'"),
        ("output_mode='pts3d+pose', pose_head=True, pos_embed='RoPE0'", "pos_embed='RoPE0'"),
    ],
)
def test_defaults_that_are_not_supported_are_named(arguments: str, match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        config_from_checkpoint({}, constructor(arguments))


def test_contradictions_list_both_sides(linear_shapes: dict[str, tuple[int, ...]]) -> None:
    arguments = TINY_ARGUMENTS.replace("enc_depth=2", "enc_depth=24")
    with pytest.raises(WeightsError) as caught:
        config_from_checkpoint(
            linear_shapes, constructor(f"{arguments}, head_type='dpt', state_size=768")
        )
    message = str(caught.value)
    assert "encoder_depth is 24 by the constructor call but 2 by the tensors" in message
    assert "state_size is 768 by the constructor call but 20 by the tensors" in message
    assert "head is dpt by the constructor call but linear by the tensors" in message


def test_without_text_foreign_tensors_are_refused() -> None:
    with pytest.raises(WeightsError, match="nothing in them tells encoder_dim"):
        config_from_checkpoint({"layer.weight": (3, 4)}, None)


def test_without_text_unknown_head_counts_are_refused(
    linear_shapes: dict[str, tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "ttt3r.weights"),
        pytest.raises(WeightsError, match="32 channels cannot be split into 12 decoder heads"),
    ):
        config_from_checkpoint(linear_shapes, None)
    assert "do not state their configuration" in caplog.text


BAD_VALUES = [
    {"encoder_dim": 2**40},
    {"memory_size": 0},
    {"memory_depth": 257},
    {"rope_base": -1.0},
    {"rope_base": math.inf},
    {"image_size": 8},
    {"stem": (8, 0)},
    {"confidence_range": (math.nan, 2.0)},
]
BAD_TYPES = [
    {"encoder_dim": 64.0},
    {"head": "dense"},
    {"rgb_head": 1},
    {"stem": 8},
    {"confidence_range": [1.0]},
    {"confidence_range": [1.0, "much"]},
    {"dpt": None},
    {"dpt": {"layers": [1, 2, 3], "feature": 4, "last": 5}},
]


@pytest.mark.parametrize("bad", BAD_VALUES, ids=str)
def test_a_configuration_checks_itself(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="the configuration cannot be used"):
        Cut3rConfig(**bad)


@pytest.mark.parametrize("bad", BAD_VALUES + BAD_TYPES, ids=str)
def test_a_written_configuration_is_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="the configuration cannot be"):
        Cut3rConfig.from_dict(Cut3rConfig().to_dict() | bad)
