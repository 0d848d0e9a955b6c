"""Damaged weight files raise `WeightsError`, whatever the damage; never anything else."""

import argparse
import contextlib
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ttt3r.checkpoints.reading import read_checkpoint
from ttt3r.errors import WeightsError

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3).T,
    "b": torch.zeros(3).half(),
    "c": torch.ones(2).to(torch.float8_e4m3fn),
}
ODD = {"d": torch.eye(2).to_sparse(), ("nested", (1, 2)): torch.Size([1])}


def write(kind: str, path: Path) -> None:
    if kind == "safetensors":
        save_file({key: value.contiguous() for key, value in TENSORS.items()}, path, {"k": "v"})
        return
    content = {"args": argparse.Namespace(model="X(Y())"), "model": TENSORS | ODD}
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def number(data: bytearray, rng: random.Random) -> None:
    """Put an extreme length or offset somewhere."""
    form = rng.choice(["<B", "<H", "<I", "<Q"])
    top = 2 ** (8 * struct.calcsize(form))
    at = rng.randrange(len(data))
    raw = struct.pack(form, rng.choice([0, 1, top - 1, top // 2, top // 2 - 1]))
    data[at : at + len(raw)] = raw


def cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 8, 100, len(data)])]


def repeat(data: bytearray, rng: random.Random) -> None:
    start, at = rng.randrange(len(data)), rng.randrange(len(data))
    data[at:at] = data[start : start + rng.choice([1, 4, 50])]


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, number, cut, repeat)


def fuzz(kind: str, tmp_path: Path, count: int, seed: int) -> None:
    suffix = "safetensors" if kind == "safetensors" else "pth"
    path = tmp_path / f"a.{suffix}"
    write(kind, path)
    whole = path.read_bytes()
    rng, refused = random.Random(seed), 0

    for trial in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 6])):
            if data:
                rng.choice(MUTATIONS)(data, rng)
        path = tmp_path / f"{trial % 2}.{suffix}"  # a file that is mapped is not written over
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(data))
        with contextlib.suppress(WeightsError):
            refused += 1
            for tensor in read_checkpoint(path).tensors.values():
                tensor.float().sum()
            refused -= 1
    assert refused > count // 4


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damage_raises_nothing_but_weights_errors(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, 1_000, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_much_damage_raises_nothing_but_weights_errors(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, 30_000, seed=1)
