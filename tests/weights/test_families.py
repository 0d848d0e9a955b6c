"""Every family from a name, from its published layout, and back."""

import argparse
import json
import logging
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.networks import random_images
from tests.weights.test_malicious import Call
from ttt3r.cli import main
from ttt3r.cli.convert import Family as FamilyChoice
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.base import SetModel, StreamModel, Views
from ttt3r.models.fast3r import Fast3r
from ttt3r.models.point3r import Point3r
from ttt3r.models.streamvggt import StreamVggt
from ttt3r.models.vggt import Vggt
from ttt3r.models.vggt_config import VggtConfig
from ttt3r.types import ImagePolicy
from ttt3r.weights import CATALOGUE, FAMILIES, convert, licence_notice, load
from ttt3r.weights.catalogue import TINY_FAST3R, TINY_POINT3R, TINY_STREAMVGGT, TINY_VGGT
from ttt3r.weights.families import Config, family_of, recognise
from ttt3r.weights.network import expected_shapes
from ttt3r.weights.random import random_weights
from ttt3r.weights.sources import read_weights

RANDOM = [name for name, spec in CATALOGUE.items() if not spec.trained]
OURS = {name: CATALOGUE[name] for name in RANDOM if CATALOGUE[name].family != "cut3r"}
NETWORKS = {"vggt": Vggt, "streamvggt": StreamVggt, "point3r": Point3r, "fast3r": Fast3r}
# What the tensors of a small VGGT do not tell must be as released, or it could not be read.
PLAIN_VGGT = replace(
    TINY_VGGT,
    dim=64,
    encoder_depth=1,
    encoder_heads=16,
    depth=24,
    heads=16,
    levels=(4, 11, 17, 23),
    camera_heads=16,
    track=replace(TINY_VGGT.track, levels=7, radius=4, heads=8),
)
POINT3R_CALL = (
    "Network(Config(freeze='encoder', pos_embed='RoPE100', img_size=(64, 64), head_type='dpt', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), enc_embed_dim=64, enc_depth=2, "
    "enc_num_heads=4, dec_embed_dim=48, dec_depth=4, dec_num_heads=3, memory_dec_num_heads=4, "
    "local_mem_size=16, landscape_only=False))"
)
POINT3R_SHOWN = replace(TINY_POINT3R, value_heads=16)  # heads that nothing tells
FAST3R_CONFIG = {
    "encoder_args": {
        "encoder_type": "croco",
        "img_size": 64,
        "patch_size": 16,
        "patch_embed_cls": "PatchEmbedDust3R",
        "embed_dim": 64,
        "num_heads": 4,
        "depth": 2,
        "mlp_ratio": 4,
        "pos_embed": "RoPE100",
    },
    "decoder_args": {
        "decoder_type": "fast3r",
        "random_image_idx_embedding": True,
        "enc_embed_dim": 64,
        "embed_dim": 48,
        "num_heads": 3,
        "depth": 4,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "attn_bias_for_inference_enabled": False,
    },
    "head_args": {
        "head_type": "dpt",
        "output_mode": "pts3d",
        "landscape_only": False,
        "depth_mode": ["exp", "-Infinity", "Infinity"],
        "conf_mode": ["exp", 1, "Infinity"],
        "with_local_head": True,
    },
}


def look(network: Any) -> dict[str, Tensor]:
    """Everything that a network says of three images."""
    patch = network.image_policy.patch
    images = random_images(3, 3 * patch, 4 * patch)
    wanted = ("points", "pose", "world")
    if isinstance(network, StreamModel):
        rule = network.parse_rule()
        state, output = network.initial_state(rule), None
        for image in images:
            tokens = network.encode(Views(image=image[None]))
            state, output = network.step(state, tokens, rule, wanted)
    else:
        output = network.predict(images[None], wanted)
    values = {item.name: getattr(output, item.name) for item in fields(output)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def assert_same(a: Any, b: Any) -> None:
    one, other = a.state_dict(), b.state_dict()
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), key


def with_aliases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    both = dict(tensors)
    for key in tensors:
        for level in range(1, 5):
            if f"scratch.layer{level}_rn" in key and "layer_rn" not in key:
                both[key.replace(f"layer{level}_rn", f"layer_rn.{level - 1}")] = tensors[key]
    return both


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def save_point3r(path: Path, tensors: dict[str, Tensor], call: str | None = POINT3R_CALL) -> Path:
    content = {"model": prefixed("module.", with_aliases(tensors)), "epoch": 1}
    torch.save(content | {"args": argparse.Namespace(model=call, lr=1e-5)}, path)
    return path


def save_fast3r(folder: Path, tensors: dict[str, Tensor], config: Any = FAST3R_CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def vggt_tensors() -> dict[str, Tensor]:
    return random_weights(PLAIN_VGGT)


@pytest.fixture(scope="module")
def vggt_pt(vggt_tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As VGGT is published: a flat state dict."""
    path = tmp_path_factory.mktemp("vggt") / "model.pt"
    torch.save(vggt_tensors, path)
    return path


@pytest.mark.parametrize("name", OURS)
def test_names_give_networks_with_everything_set(name: str) -> None:
    network, spec = load(name, "cpu"), CATALOGUE[name]
    assert type(network) is NETWORKS[spec.family]
    assert isinstance(network, StreamModel) == (spec.family in ("streamvggt", "point3r"))
    assert isinstance(network, StreamModel | SetModel)
    assert network.weights.name == name and not network.weights.trained
    assert len(network.weights.sha256) == 64
    # What is written down beside the weights is what the network itself says.
    assert network.image_policy == family_of(network.config).network(network.config).image_policy
    assert network.image_policy.size == spec.image_size
    assert network.capabilities.metric_scale == (spec.family == "point3r")
    assert network.capabilities.pose and network.capabilities.world_points
    assert not network.capabilities.constant_memory and not network.training
    assert not any(item.requires_grad or item.is_meta for item in network.parameters())
    for key, value in look(network).items():
        if (spec.family, key) != ("fast3r", "world_from_camera"):  # no camera fits random points
            assert value.isfinite().all() and value.std() > 1e-4, key
    assert 0.5 < look(network)["world_points"][..., 2].median() < 8


@pytest.mark.parametrize("name", RANDOM)
def test_conversion_changes_nothing(name: str, tmp_path: Path) -> None:
    source, folder = load(name, "cpu"), convert(name, tmp_path / "a")
    for path in (folder, folder / "model.safetensors", convert(folder, tmp_path / "b")):
        found = load(path, "cpu")
        assert type(found) is type(source) and found.config == source.config
        assert found.image_policy == source.image_policy
        assert replace(found.weights, sha256="") == replace(source.weights, sha256="")
        assert_same(found, source)
    ours, theirs = look(found), look(source)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        # Where a tensor lies in memory decides about the last digit.
        torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-5, equal_nan=True)
    assert json.loads((folder / "config.json").read_text())["family"] == CATALOGUE[name].family


@pytest.mark.parametrize("name", OURS)
def test_precision_is_that_of_the_network(name: str) -> None:
    network = load(name, "cpu", "bf16")
    expected = load(name, "cpu").set_precision(torch.bfloat16).state_dict()
    dtypes = {tensor.dtype for tensor in expected.values()}
    assert dtypes == {torch.float32, torch.bfloat16}
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == expected[key].dtype and torch.equal(tensor, expected[key]), key


def test_track_heads_are_loaded_and_used(tmp_path: Path) -> None:
    images, queries = random_images(2, 42, 56)[None], torch.tensor([[[5.0, 6.0], [30.0, 20.0]]])
    source, found = load("tiny-vggt", "cpu"), load(convert("tiny-vggt", tmp_path), "cpu")
    assert isinstance(source, Vggt) and isinstance(found, Vggt)
    tracks = found.track(images, queries)
    assert torch.equal(tracks.positions[:, 0], queries)
    assert torch.equal(tracks.positions, source.track(images, queries).positions)
    assert not hasattr(load("tiny-streamvggt", "cpu"), "track")


# Published layouts ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pt", "safetensors", "module."])
def test_flat_state_dicts_of_vggt(
    kind: str,
    vggt_pt: Path,
    vggt_tensors: dict[str, Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = vggt_pt
    if kind == "safetensors":
        save_file(vggt_tensors, path := tmp_path / "a.safetensors")
    elif kind == "module.":
        torch.save(prefixed(kind, vggt_tensors), path := tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING, "ttt3r.weights"):
        network = load(path, "cpu")
    assert "fit VGGT and StreamVGGT alike; they are taken for VGGT" in caplog.text
    assert "do not state their configuration" in caplog.text
    assert type(network) is Vggt and network.config == PLAIN_VGGT
    assert network.weights.licence == "unknown"
    assert network.image_policy == ImagePolicy(70, 14, by_width=True)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, vggt_tensors[key]), key


def test_streamvggt_must_be_named(vggt_pt: Path, tmp_path: Path) -> None:
    network = load(vggt_pt, "cpu", family="streamvggt")
    assert type(network) is StreamVggt
    assert network.image_policy == ImagePolicy(70, 14)
    assert_same(network, load(vggt_pt, "cpu", family="vggt"))
    folder = convert(vggt_pt, tmp_path, family="streamvggt")
    assert type(load(folder, "cpu")) is StreamVggt
    with pytest.raises(WeightsError, match="described as weights of StreamVGGT, not of VGGT"):
        load(folder, "cpu", family="vggt")


def test_the_command_line_converts_it(
    vggt_pt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(vggt_pt), str(tmp_path / "a"), "--family", "streamvggt"]
    assert main(words) == 0, capsys.readouterr().err
    assert type(load(tmp_path / "a", "cpu")) is StreamVggt
    assert set(get_args(FamilyChoice)) == set(FAMILIES)


def test_names_of_the_catalogue_find_the_published_files(
    vggt_pt: Path,
    vggt_tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    for name in ("vggt-1b", "streamvggt"):
        filename = CATALOGUE[name].filename
        assert filename is not None
        (tmp_path / filename).symlink_to(vggt_pt)
    save_point3r(tmp_path / "point3r_512.pth", random_weights(TINY_POINT3R))
    save_fast3r(tmp_path / "fast3r_vit_large_512", random_weights(TINY_FAST3R))
    for name in ("vggt-1b", "streamvggt", "point3r_512", "fast3r_vit_large_512"):
        spec, network = CATALOGUE[name], load(name, "cpu")
        assert type(network) is NETWORKS[spec.family]
        assert network.weights == spec.info(network.weights.sha256) and network.weights.trained
        converted = load(convert(name, tmp_path / "converted" / name), "cpu")
        assert replace(converted.weights, sha256="") == replace(network.weights, sha256="")
    assert "alike" not in caplog.text  # the name says which
    # VGGT's safetensors, beside the description that is published with them.
    (tmp_path / "vggt-1b.pt").unlink()
    (tmp_path / "vggt-1b").mkdir()
    save_file(vggt_tensors, tmp_path / "vggt-1b" / "model.safetensors")
    published = {"img_size": 518, "patch_size": 14, "embed_dim": 1024}
    (tmp_path / "vggt-1b" / "config.json").write_text(json.dumps(published))
    for source in ("vggt-1b", tmp_path / "vggt-1b", tmp_path / "vggt-1b" / "model.safetensors"):
        assert load(source, "cpu").weights.licence == "VGGT License"


def test_nested_checkpoints_of_point3r(tmp_path: Path) -> None:
    tensors = random_weights(TINY_POINT3R)
    network = load(save_point3r(tmp_path / "a.pth", tensors), "cpu")
    assert type(network) is Point3r and network.config == POINT3R_SHOWN
    assert network.weights.name == "a" and network.weights.licence == "unknown"
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, with_aliases(tensors)[key]), key


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("enc_depth=2", "enc_depth=3"), "encoder_depth is 3 by the constructor call but 2"),
        (("dpt", "linear"), "head_type='linear', which is not supported; it must be 'dpt'"),
        (("('exp', 1, inf)", "('exp', 0, 1)"), "conf_mode="),
        (("RoPE100", "cosine"), "pos_embed='cosine'"),
        (("dec_num_heads=3", "dec_num_heads=5"), "do not fit together: decoder_dim=48"),
        (("dec_num_heads=3", "dec_num_heads=open"), "cannot be read"),
        (("Network", "__import__('os').x"), "cannot be read"),
    ],
)
def test_constructors_of_point3r_are_checked(
    change: tuple[str, str], match: str, tmp_path: Path
) -> None:
    call = POINT3R_CALL.replace(*change)
    with pytest.raises(WeightsError, match=match):
        load(save_point3r(tmp_path / "a.pth", random_weights(TINY_POINT3R), call))


def test_point3r_without_a_constructor_has_the_released_heads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_point3r(tmp_path / "a.pth", random_weights(TINY_POINT3R), None)
    with caplog.at_level(logging.WARNING, "ttt3r.weights"):
        config = read_weights(path).config
    assert "such as numbers of heads, is that of the released Point3R network" in caplog.text
    released = {"encoder_heads": 16, "decoder_heads": 12, "pointer_heads": 16, "image_size": 512}
    assert config == replace(POINT3R_SHOWN, **released)
    odd = random_weights(replace(TINY_POINT3R, decoder_dim=40, decoder_heads=2))
    with pytest.raises(WeightsError, match="decoder_dim=40 cannot be shared by decoder_heads=12"):
        load(save_point3r(tmp_path / "b.pth", odd, None))


def test_fast3r_with_its_published_description(tmp_path: Path) -> None:
    tensors = random_weights(TINY_FAST3R)
    assert not any("layer_rn." in key for key in tensors)  # as in the published file
    folder = save_fast3r(tmp_path / "a", tensors)
    for path in (folder, folder / "model.safetensors"):
        network = load(path, "cpu")
        assert type(network) is Fast3r and network.config == TINY_FAST3R
        assert network.state_dict().keys() == with_aliases(tensors).keys()
        assert_same(network, load("tiny-fast3r", "cpu"))


def test_fast3r_of_a_training(tmp_path: Path) -> None:
    config = replace(TINY_FAST3R, encoder_dim=64, encoder_heads=16, decoder_heads=16)
    tensors = random_weights(config)
    content = {"state_dict": prefixed("net.", with_aliases(tensors)), "epoch": 1, "loops": {}}
    torch.save(content, tmp_path / "a.ckpt")
    network = load(tmp_path / "a.ckpt", "cpu")
    assert network.config == replace(config, image_size=512)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, with_aliases(tensors)[key]), key


@pytest.mark.parametrize(
    ("part", "change", "match"),
    [
        ("decoder_args", {"depth": 5}, "decoder_depth is 5 by the configuration but 4"),
        ("decoder_args", {"depth": 10**9}, "decoder_depth is 1000000000, not an integer from 1"),
        ("decoder_args", {"num_heads": 5}, "decoder_dim=48 must be a multiple"),
        ("decoder_args", {"decoder_type": "llama"}, "decoder_type='llama', which is not supported"),
        ("encoder_args", {"embed_dim": "64"}, "cannot be read"),
        ("head_args", {"depth_mode": "exp"}, "depth_mode"),
    ],
)
def test_descriptions_of_fast3r_are_checked(
    part: str, change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    config = FAST3R_CONFIG | {part: FAST3R_CONFIG[part] | change}
    with pytest.raises(WeightsError, match=match):
        load(save_fast3r(tmp_path / "a", random_weights(TINY_FAST3R), config))


# What does not fit ------------------------------------------------------------------------------


def publish(family: str, tensors: dict[str, Tensor], folder: Path) -> Path:
    if family == "fast3r":
        return save_fast3r(folder, tensors)
    if family == "point3r":
        return save_point3r(folder / "a.pth", tensors)
    torch.save(tensors, folder / "a.pt")
    return folder / "a.pt"


PUBLISHED: dict[str, Config] = {
    "vggt": PLAIN_VGGT,
    "point3r": TINY_POINT3R,
    "fast3r": TINY_FAST3R,
}
LOST = {
    "vggt": "track_head.tracker.fmap_norm.bias",
    "point3r": "value_norm.bias",
    "fast3r": "decoder.dec_norm.bias",
}


@pytest.mark.parametrize("family", PUBLISHED)
def test_lost_and_left_over_tensors_are_listed(family: str, tmp_path: Path) -> None:
    tensors, lost = random_weights(PUBLISHED[family]), LOST[family]
    tensors["extra.weight"] = tensors.pop(lost)
    with pytest.raises(WeightsError) as caught:
        load(publish(family, tensors, tmp_path), "cpu")
    assert str(caught.value).startswith(
        f"the weights do not fit the network:\n  1 missing: {lost}\n  1 unexpected: extra.weight\n"
    )


@pytest.mark.parametrize("family", PUBLISHED)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_an_incomplete_network_is_refused(family: str, part: float, tmp_path: Path) -> None:
    items = list(random_weights(PUBLISHED[family]).items())
    for half in (items[: int(part * len(items))], items[int(part * len(items)) :]):
        with pytest.raises(
            WeightsError, match=r"missing: |tells|fit together|contradict|no network"
        ):
            load(publish(family, dict(half), tmp_path), "cpu")


def test_foreign_tensors_name_what_is_known(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "a.pt")
    assert str(caught.value) == (
        "these tensors belong to no network that ttt3r knows (CUT3R, VGGT, StreamVGGT, Point3R, "
        "Fast3R): their names begin with conv1, fc. Check that this is the right file."
    )


def test_families_are_not_confused(vggt_pt: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="unknown family 'dust3r'; choose cut3r, vggt, "):
        load(vggt_pt, family="dust3r")
    with pytest.raises(WeightsError, match="tensors of a VGGT network, not of Point3R"):
        load(vggt_pt, family="point3r")
    with pytest.raises(WeightsError, match="described as weights of Fast3R, not of CUT3R"):
        load("tiny-fast3r", family="cut3r")
    misnamed = tmp_path / "cut3r_224_linear_4.pth"
    misnamed.symlink_to(vggt_pt)
    with pytest.raises(WeightsError, match="tensors of a VGGT network, not of CUT3R"):
        load(misnamed)


@pytest.mark.parametrize("name", RANDOM)
def test_families_are_recognised_by_names(name: str) -> None:
    config = CATALOGUE[name].random_config
    assert config is not None
    names = [family.name for family in recognise(expected_shapes(config))]
    family = CATALOGUE[name].family
    assert names == (["vggt", "streamvggt"] if "vggt" in family else [family])
    assert recognise(["fc.weight"]) == recognise([]) == ()


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "flat": lambda call: {"aggregator.camera_token": torch.zeros(1), "camera_head.x": call},
    "entry": lambda call: {"model": {"value_norm.bias": torch.zeros(1)}, "optimizer": call},
    "lightning": lambda call: {"state_dict": {"net.encoder.x": torch.zeros(1)}, "loops": call},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hostile_pickles_stay_refused(layout: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save(LAYOUTS[layout](Call(os.system, f"touch {marker}")), tmp_path / "a.pt")
    for family in (None, *FAMILIES):
        with pytest.raises(WeightsError, match=r"refers to '\w+\.system'"):
            load(tmp_path / "a.pt", family=family)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("tiny-vggt", {"camera_iterations": 10**9}, "not an integer from 1 to 256"),
        ("tiny-vggt", {"camera_iterations": "4"}, "camera_iterations is '4'|describes 'vggt'"),
        ("tiny-vggt", {"dim": 2**70}, "not an integer from 1 to"),
        ("tiny-vggt", {"rope_base": -1.0}, "rope_base is -1.0, not a positive number|at least 1"),
        ("tiny-vggt", {"track": {"levels": 10**6}}, "track.levels|describes 'vggt'"),
        ("tiny-vggt", {"track": None}, "unexpected: track_head"),
        ("tiny-vggt", {"track": 3}, "describes 'vggt' weights"),
        ("tiny-vggt", {"depth": 5}, "depth is 5 by the configuration but 4 by the tensors"),
        ("tiny-streamvggt", {"camera_cache": "other"}, "describes 'streamvggt' weights"),
        ("tiny-point3r", {"decoder_depth": 10**9}, "not an integer from 1 to 256"),
        (
            "tiny-point3r",
            {"half_rope_in_encoder": 1},
            "half_rope_in_encoder is 1|describes 'point3r'",
        ),
        ("tiny-point3r", {"dpt": None}, "describes 'point3r'|dpt is None"),
        ("tiny-fast3r", {"encoder_dim": 128}, "encoder_dim is 128 by the configuration but 64"),
        ("tiny-fast3r", {"unknown": 1}, "describes 'fast3r' weights, but .*unknown fields: unk"),
        ("tiny-fast3r", None, "damaged|describes"),
    ],
)
def test_written_configurations_are_checked(
    name: str, change: dict[str, Any] | None, match: str, tmp_path: Path
) -> None:
    folder = convert(name, tmp_path)
    card = json.loads((folder / "config.json").read_text())
    card["config"] = None if change is None else card["config"] | change
    (folder / "config.json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match=match):
        load(folder, "cpu")


def test_a_folder_of_fast3r_needs_no_card_but_one_of_ours_does(tmp_path: Path) -> None:
    folder = convert("tiny-fast3r", tmp_path)
    (folder / "config.json").write_text(json.dumps(FAST3R_CONFIG))
    with pytest.raises(WeightsError, match="not a description of ttt3r weights"):
        load(folder)


# Catalogue --------------------------------------------------------------------------------------

RESTRICTED = ["vggt-1b", "streamvggt", "point3r_512", "fast3r_vit_large_512"]


@pytest.mark.parametrize("name", RESTRICTED)
def test_restrictions_are_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    spec = CATALOGUE[name]
    assert licence_notice(spec.info("0" * 64)).endswith(f"{spec.licence}, no commercial use.")
    with pytest.raises(WeightsError) as caught:
        load(name)
    message = str(caught.value)
    assert spec.origin_url in message and f"{spec.licence}, no commercial use" in message
    assert str(tmp_path / str(spec.filename)).removesuffix("/model.safetensors") in message or (
        f"put it into {tmp_path}\n" in message
    )


def test_generic_names_get_one_that_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load("streamvggt")
    assert str(caught.value) == (
        "the weights streamvggt are not on this machine.\n"
        "  Publisher: https://huggingface.co/lch01/StreamVGGT (file checkpoints.pth)\n"
        "  Licence:   CC-BY-NC-SA-4.0 AND VGGT License, no commercial use\n"
        "  SHA-256:   not published\n"
        f"Download the file and save it as {tmp_path / 'streamvggt.pth'}\n"
        "(set TTT3R_WEIGHTS to use another folder), or name the file itself. To have it load "
        "faster, run:\n"
        f"  ttt3r convert streamvggt {tmp_path / 'streamvggt'}"
    )
    with pytest.raises(WeightsError, match=r"files model\.safetensors and config\.json"):
        load("fast3r_vit_large_512")


def test_entries_are_of_the_families_that_there_are() -> None:
    assert {spec.family for spec in CATALOGUE.values()} == set(FAMILIES)
    for spec in CATALOGUE.values():
        if spec.random_config is not None:
            assert family_of(spec.random_config).name == spec.family
    assert TINY_STREAMVGGT.to_dict() == TINY_VGGT.to_dict() | {"camera_cache": "consistent"}


def test_reading_does_not_build(tmp_path: Path) -> None:
    weights = read_weights(convert("tiny-vggt", tmp_path))
    assert isinstance(weights.config, VggtConfig) and len(weights.tensors) == len(
        expected_shapes(weights.config)
    )
