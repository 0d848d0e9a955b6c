"""Checkpoints in parts carry the weights, and little else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.toy import trainer
from ttt3r.errors import InputError
from ttt3r.training import parts
from ttt3r.training.loop import CHECKPOINT


def test_parts_join_to_a_checkpoint_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = trainer(tmp_path / "first", cache)
    first.run(steps=2)
    monkeypatch.setattr(parts, "PART_BYTES", 60_000)
    paths = parts.split(first.checkpoint, tmp_path / "parts")
    assert len(paths) > 3
    largest = max(weight.nbytes for weight in first.master.values())
    assert all(path.stat().st_size < max(60_000, largest) + 30_000 for path in paths)
    parts.join(tmp_path / "parts", tmp_path / "second" / CHECKPOINT)
    second = trainer(tmp_path / "second", cache)
    assert second.progress.step == 2
    for name, weight in first.master.items():
        assert torch.equal(weight, second.master[name])
    second.run(steps=4)
    assert load_file(second.checkpoint)


def test_missing_parts_and_existing_files_are_refused(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one = trainer(tmp_path / "one", cache)
    with pytest.raises(InputError, match="no checkpoint"):
        parts.split(one.checkpoint, tmp_path / "parts")
    one.run(steps=1)
    paths = parts.split(one.checkpoint, tmp_path / "parts")
    with pytest.raises(InputError, match="holds parts already"):
        parts.split(one.checkpoint, tmp_path / "parts")
    with pytest.raises(InputError, match="exists already"):
        parts.join(tmp_path / "parts", one.checkpoint)
    paths[0].unlink()
    with pytest.raises(InputError, match="parts"):
        parts.join(tmp_path / "parts", tmp_path / "two" / CHECKPOINT)
