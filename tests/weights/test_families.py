"""Every family from a name and back, and what the catalogue says of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.networks import random_images
from tests.weights.published import OURS, RANDOM, assert_same, look
from ttt3r.errors import WeightsError
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.models.registry import family_of
from ttt3r.models.streamvggt.config import TINY as TINY_STREAMVGGT
from ttt3r.models.vggt.config import TINY as TINY_VGGT
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.network import Vggt
from ttt3r.weights import CATALOGUE, FAMILIES, convert, licence_notice, load
from ttt3r.weights.network import expected_shapes
from ttt3r.weights.sources import read_weights


@pytest.mark.parametrize("name", OURS)
def test_names_give_networks_with_everything_set(name: str) -> None:
    network, spec = load(name, "cpu"), CATALOGUE[name]
    assert type(network) is FAMILIES[spec.family].network
    assert isinstance(network, StreamModel) == (spec.family in ("streamvggt", "point3r"))
    assert isinstance(network, StreamModel | SetModel)
    assert network.weights.name == name and not network.weights.trained
    assert len(network.weights.sha256) == 64
    # What is written down beside the weights is what the network itself says.
    assert network.preparation == family_of(network.config).network(network.config).preparation
    assert network.preparation.size == spec.image_size
    assert network.capabilities.metric_scale == (spec.family == "point3r")
    assert network.capabilities.outputs == ("points", "pose", "world")
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
        assert found.preparation == source.preparation
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
    network = load(name, "cpu", "bfloat16")
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


# Catalogue --------------------------------------------------------------------------------------

RESTRICTED = [name for name, spec in CATALOGUE.items() if spec.files]


@pytest.mark.parametrize("name", RESTRICTED)
def test_restrictions_are_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    spec = CATALOGUE[name]
    assert licence_notice(spec.info("0" * 64)).endswith(f"{spec.licence}, no commercial use.")
    with pytest.raises(WeightsError) as caught:
        load(name)
    message = str(caught.value)
    assert spec.origin_url in message and f"{spec.licence}, no commercial use" in message
    assert f"ttt3r fetch {name}\n" in message and str(spec.originals) in message
    assert all(file.name in message for file in spec.files)


def test_entries_are_of_the_families_that_there_are() -> None:
    assert {spec.family for spec in CATALOGUE.values()} == set(FAMILIES)
    for spec in CATALOGUE.values():
        if spec.random_config is not None:
            assert family_of(spec.random_config).name == spec.family
    assert TINY_STREAMVGGT.to_dict() == TINY_VGGT.to_dict() | {"camera_cache": "consistent"}


def test_reading_does_not_build(tmp_path: Path) -> None:
    info, tensors = read_weights(convert("tiny-vggt", tmp_path))
    assert isinstance(info.config, VggtConfig)
    assert tensors.keys() == expected_shapes(info.config).keys()
