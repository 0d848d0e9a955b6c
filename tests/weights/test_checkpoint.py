"""Reading checkpoints of every kind, whole and broken."""

import argparse
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ttt3r.checkpoints import pickles
from ttt3r.checkpoints.reading import read_checkpoint
from ttt3r.errors import WeightsError

TENSORS = {
    "float32": torch.arange(12.0).reshape(3, 4),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "part": torch.arange(40.0)[5:25].reshape(4, 5)[:, 1:3],
    "float16": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "bfloat16": torch.tensor([[1.5]], dtype=torch.bfloat16),
    "float64": torch.tensor([1.1], dtype=torch.float64),
    "int64": torch.tensor([2**40]),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
    "parameter": nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_read_as_they_were_saved(legacy: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(
        {"args": argparse.Namespace(model="text"), "model": OrderedDict(TENSORS), "epoch": 1},
        path,
        _use_new_zipfile_serialization=not legacy,
        pickle_protocol=protocol,
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint.model_string == "text"
    assert list(checkpoint.tensors) == list(TENSORS)
    for key, tensor in checkpoint.tensors.items():
        assert tensor.dtype == TENSORS[key].dtype, key
        assert torch.equal(tensor, TENSORS[key]), key


def test_a_bare_state_dict_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(nn.Linear(2, 3).state_dict(), path)  # an OrderedDict with attributes
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.tensors) == {"weight", "bias"}
    assert checkpoint.model_string is None


def test_what_training_leaves_behind_is_ignored(tmp_path: Path) -> None:
    network = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "a.pth"
    torch.save(
        {
            "args": {"model": "text", "output": Path("runs/1"), "seen": {1, 2}},
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": {"scale": 65536.0},
            "best_so_far": np.float64(0.5),
            "counts": defaultdict(int, {"a": 1}),
            "size": torch.Size([1, 2]),
            "device": torch.device("cpu"),
        },
        path,
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint.model_string == "text"
    assert torch.equal(checkpoint.tensors["weight"], network.weight)


def test_tensors_do_not_write_back(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.zeros(4)}}, path)
    before = path.read_bytes()
    read_checkpoint(path).tensors["a"].fill_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("arguments", [None, 3, {"model": 3}, SimpleNamespace, {}])
def test_unusable_arguments_count_as_absent(arguments: object, tmp_path: Path) -> None:
    if arguments is SimpleNamespace:
        arguments = argparse.Namespace(other=1)
    path = tmp_path / "a.pth"
    torch.save({"args": arguments, "model": {"a": torch.zeros(1)}}, path)
    assert read_checkpoint(path).model_string is None


def test_truncated_files_are_refused(tiny_linear_pth: Path, tmp_path: Path) -> None:
    whole = tiny_linear_pth.read_bytes()
    path = tmp_path / "a.pth"
    for length in (1, 3, 64, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="Download it again"):
            read_checkpoint(path)


def test_truncated_legacy_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.zeros(99)}}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in (2, 20, 100, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="Download it again"):
            read_checkpoint(path)


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "there is no weight file"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_text("some notes"), "not a PyTorch checkpoint"),
        (lambda path: path.write_text("<!doctype html><html>"), "a web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec"), "Git LFS"),
        (_zip_of_text, "a zip archive but not a PyTorch checkpoint"),
        (lambda path: torch.save([1, 2], path), "holds no dictionary"),
        (lambda path: torch.save({"epoch": 1, "best": 2}, path), "its entries are best, epoch"),
        (lambda path: torch.save({"model": {}}, path), "no dictionary of tensors under 'model'"),
        (lambda path: torch.save({"model": {"a": 1}}, path), "no dictionary of tensors"),
        (lambda path: torch.save({"model": {1: torch.zeros(1)}}, path), "no dictionary of tensors"),
    ],
)  # fmt: skip
def test_other_files_are_refused(write: object, match: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    assert callable(write)
    write(path)
    with pytest.raises(WeightsError, match=match):
        read_checkpoint(path)


def test_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, b"big" if name.endswith("byteorder") else content)
    with pytest.raises(WeightsError, match="byte order"):
        read_checkpoint(path)


def test_no_instruction_is_both_a_constant_and_an_action() -> None:
    known = [set(pickles.CONSTANTS), set(pickles._NEW), set(pickles._METHODS)]
    assert sum(map(len, known)) == len(set.union(*known))
