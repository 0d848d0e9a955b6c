"""Weights that do not fit the network they are taken for, in every family."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.weights.published import (
    FAST3R_CONFIG,
    PLAIN_VGGT,
    RANDOM,
    save_fast3r,
    save_point3r,
)
from tests.weights.test_malicious import Call
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.config import NetworkConfig
from ttt3r.models.fast3r.config import TINY as TINY_FAST3R
from ttt3r.models.point3r.config import TINY as TINY_POINT3R
from ttt3r.models.registry import recognise
from ttt3r.weights import CATALOGUE, FAMILIES, convert, load
from ttt3r.weights.network import expected_shapes
from ttt3r.weights.random import random_weights


def publish(family: str, tensors: dict[str, Tensor], folder: Path) -> Path:
    if family == "fast3r":
        return save_fast3r(folder, tensors)
    if family == "point3r":
        return save_point3r(folder / "a.pth", tensors)
    torch.save(tensors, folder / "a.pt")
    return folder / "a.pt"


PUBLISHED: dict[str, NetworkConfig] = {
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
