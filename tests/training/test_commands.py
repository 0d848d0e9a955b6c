"""The command that trains, as a user types it: rendering, and a team of two processes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.training.toy import NETWORK
from ttt3r.training.loop import CHECKPOINT, LOG
from ttt3r.training.plot import VALIDATION

RECIPE = """
name = "toy"
seed = 1
size = [32, 48]
[clips]
count = 16
frames = 2
validation = 16
validation_frames = 2
[[stages]]
name = "pairs"
steps = 2
frames = 2
batch = 1
span = [1, 1]
[network]
"""


def sizes() -> str:
    """The toy network in TOML."""
    names = {"image_size", "stem", "head", "rgb_head"}
    chosen = {
        name: value
        for name, value in asdict(NETWORK).items()
        if name in names or name.startswith(("encoder", "ray_", "decoder", "state", "memory"))
    }
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in chosen.items())


@pytest.mark.slow  # renders 32 clips and starts five processes, each of which imports torch
def test_two_processes_train_together_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(RECIPE + sizes())
    words = ["train", "toy.toml", "--folder", "out", "--workers", "2", "--validate-every", "1"]
    command = [sys.executable, "-m", "ttt3r.training", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for steps in ("1", "2"):
        result = subprocess.run(
            [*command, "--steps", steps],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert f"step {steps} " in result.stdout
    out = tmp_path / "out"
    assert (out / CHECKPOINT).exists()
    for name in (LOG, VALIDATION):
        assert len((out / name).read_text().splitlines()) == 2, name


def test_the_entry_defines_nothing() -> None:
    """What lies in a package's `__main__` cannot be sent to the processes of a team."""
    import ttt3r.training.__main__ as entry

    own = [name for name, item in vars(entry).items() if callable(item) and name[0] != "_"]
    assert own == ["main"] and entry.main.__module__ == "ttt3r.training.commands"
