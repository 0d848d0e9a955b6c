"""A family registered from outside the package by one `add_family` works everywhere."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ttt3r
from tests.cli.conftest import make_clip
from tests.models.toy import DRIFT, Drift, DriftConfig
from tests.stream.test_session import assert_same, images
from ttt3r.cli import main
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models import registry
from ttt3r.runs.reader import Run
from ttt3r.stream.session import Session
from ttt3r.weights import convert
from ttt3r.weights.catalogue import CATALOGUE, add_family

PACKAGE = Path(ttt3r.__file__).parent


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for known in (registry.FAMILIES, CATALOGUE):
        for name in ("drift", "tiny-drift"):  # are taken out again when the test has ended
            monkeypatch.setitem(known, name, None)
            monkeypatch.delitem(known, name)
    with pytest.raises(WeightsError, match="tiny-drift"):
        ttt3r.load("tiny-drift")
    add_family(DRIFT)


def test_a_session_streams_saves_and_goes_on(tmp_path):
    model, stream = ttt3r.load("tiny-drift"), images(5)
    assert isinstance(model, Drift)
    whole = Session(model, "ttt3r", reset=3)
    expected = [whole.push(image) for image in stream]
    half = Session(model, "ttt3r", reset=3)
    for image in stream[:2]:
        half.push(image)
    half.save(tmp_path / "session")
    resumed = Session.load(tmp_path / "session", model)
    for image, prediction in zip(stream[2:], expected[2:], strict=True):
        assert_same(resumed.push(image), prediction)
    assert expected[2].world_from_camera[0, 3] == pytest.approx(0.2)


def test_the_command_line_takes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "walk.mp4", 4)
    assert main(["run", str(clip), "--model", "tiny-drift", "--device", "cpu", "--out", "a"]) == 0
    assert len(Run.open("a")) == 4
    assert main(["export", "a", "--to", "ply", "--out", "a.ply"]) == 0
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "tiny-drift" in said and ", drift." in said


@pytest.mark.parametrize("family", [None, "drift"])
def test_files_are_recognised_and_converted(tmp_path, family):
    tensors = ttt3r.load("tiny-drift").state_dict()
    save_file(tensors, tmp_path / "drift.safetensors")
    network = ttt3r.load(tmp_path / "drift.safetensors", family=family)
    assert isinstance(network, Drift) and network.config == DriftConfig()
    convert(tmp_path / "drift.safetensors", tmp_path / "there")
    again = ttt3r.load(tmp_path / "there").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_an_evaluation_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "eval --task pose --protocol synthetic/stride1/8 --sequences stream-0"
    assert main([*words.split(), "--model", "tiny-drift", "--out", "ev"]) == 0


def test_names_are_given_once():
    with pytest.raises(SettingError, match="'drift' is taken"):
        add_family(DRIFT)


def test_no_file_of_the_package_names_it():
    words = ["grep", "-rliw", "drift", str(PACKAGE / "models"), str(PACKAGE / "weights")]
    found = subprocess.run([*words, "--include=*.py"], check=False, capture_output=True, text=True)
    assert found.stdout == ""
