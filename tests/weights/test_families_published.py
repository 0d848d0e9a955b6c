"""Every family from the layout in which its weights are published."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.weights.conftest import with_hash
from tests.weights.published import (
    FAST3R_CONFIG,
    PLAIN_VGGT,
    POINT3R_CALL,
    POINT3R_SHOWN,
    assert_same,
    prefixed,
    save_fast3r,
    save_point3r,
    with_aliases,
)
from ttt3r.cli import main
from ttt3r.errors import WeightsError
from ttt3r.models.fast3r.config import TINY as TINY_FAST3R
from ttt3r.models.fast3r.network import Fast3r
from ttt3r.models.point3r.config import TINY as TINY_POINT3R
from ttt3r.models.point3r.network import Point3r
from ttt3r.models.streamvggt.network import StreamVggt
from ttt3r.models.vggt.network import Vggt
from ttt3r.types import Preparation
from ttt3r.weights import CATALOGUE, FAMILIES, convert, load
from ttt3r.weights.catalogue import RELEASED
from ttt3r.weights.random import random_weights
from ttt3r.weights.sources import read_weights


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
    assert network.preparation == Preparation(70, 14, by_width=True)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, vggt_tensors[key]), key


def test_streamvggt_must_be_named(vggt_pt: Path, tmp_path: Path) -> None:
    network = load(vggt_pt, "cpu", family="streamvggt")
    assert type(network) is StreamVggt
    assert network.preparation == Preparation(70, 14)
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
    assert main(["convert", str(vggt_pt), str(tmp_path / "b"), "--family", "vgg"]) == 2
    assert f"choose {', '.join(FAMILIES)}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_names_of_the_catalogue_find_the_published_files(
    vggt_pt: Path,
    vggt_tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    for name in ("vggt-1b", "streamvggt"):
        (tmp_path / f"{name}.pt").symlink_to(vggt_pt)
        with_hash(monkeypatch, name, None)
    save_point3r(tmp_path / "point3r_512.pth", random_weights(TINY_POINT3R))
    save_fast3r(tmp_path / "fast3r_vit_large_512", random_weights(TINY_FAST3R))
    for name in ("vggt-1b", "streamvggt", "point3r_512", "fast3r_vit_large_512"):
        spec, network = CATALOGUE[name], load(name, "cpu")
        assert type(network) is FAMILIES[spec.family].network
        known = spec.info(network.weights.sha256)
        assert replace(network.weights, config=None, preparation=None) == known and known.trained
        converted = load(convert(name, tmp_path / "converted" / name), "cpu")
        assert replace(converted.weights, sha256="") == replace(network.weights, sha256="")
    assert "alike" not in caplog.text  # the name says which
    for family, spec in RELEASED.items():  # as does the family's
        if family != "cut3r":
            assert load(family, "cpu").weights.name == spec.name
    # VGGT's safetensors, beside the description that is published with them.
    (tmp_path / "vggt-1b.pt").unlink()
    (tmp_path / "vggt-1b").mkdir()
    save_file(vggt_tensors, tmp_path / "vggt-1b" / "model.safetensors")
    published = {"img_size": 518, "patch_size": 14, "embed_dim": 1024}
    (tmp_path / "vggt-1b" / "config.json").write_text(json.dumps(published))
    for source in ("vggt-1b", tmp_path / "vggt-1b", tmp_path / "vggt-1b" / "model.safetensors"):
        assert load(source, "cpu").weights.licence == "CC-BY-NC-4.0"


def test_a_family_stands_for_the_first_of_its_released_weights(
    vggt_pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert set(RELEASED) == set(FAMILIES)
    for family, name in (("cut3r", "cut3r_512_dpt_4_64"), ("vggt", "vggt-1b")):
        with pytest.raises(WeightsError, match=f"the weights {name} are not on this machine"):
            load(family)
    with pytest.raises(WeightsError, match="and families: cut3r, fast3r, point3r, vggt"):
        load("vgg")
    convert(vggt_pt, tmp_path / "vggt", family="vggt")  # what lies there under that name counts
    assert load("vggt", "cpu").weights.name == vggt_pt.stem


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
        (
            ("dec_num_heads=3", "dec_num_heads=5"),
            "48 channels cannot be split into 5 decoder heads",
        ),
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
        config = read_weights(path)[0].config
    assert "such as numbers of heads, is that of the released Point3R network" in caplog.text
    released = {"encoder_heads": 16, "decoder_heads": 12, "pointer_heads": 16, "image_size": 512}
    assert config == replace(POINT3R_SHOWN, **released)
    odd = random_weights(replace(TINY_POINT3R, decoder_dim=40, decoder_heads=2))
    with pytest.raises(WeightsError, match="40 channels cannot be split into 12 decoder heads"):
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
        ("decoder_args", {"num_heads": 5}, "48 channels cannot be split into 5 decoder heads"),
        ("decoder_args", {"decoder_type": "llama"}, "decoder_type='llama', which is not supported"),
        ("encoder_args", {"embed_dim": "64"}, "encoder_dim is '64', not an integer from 1"),
        ("head_args", {"depth_mode": "exp"}, "depth_mode"),
    ],
)
def test_descriptions_of_fast3r_are_checked(
    part: str, change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    config = FAST3R_CONFIG | {part: FAST3R_CONFIG[part] | change}
    with pytest.raises(WeightsError, match=match):
        load(save_fast3r(tmp_path / "a", random_weights(TINY_FAST3R), config))
