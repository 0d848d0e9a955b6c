"""Training on a CUDA device; run with -m gpu."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.toy import Memory, recipe
from ttt3r.scenes import make_clip
from ttt3r.training.loop import Trainer
from ttt3r.training.plot import read_log

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_training_on_the_device_runs_resumes_and_learns(tmp_path: Path) -> None:
    clips = Memory.render(first_seed=5, count=6, frames=4)
    toy = replace(recipe(), precision="bfloat16", compile=True)
    for steps in (30, 150):
        Trainer(toy, tmp_path, clips, device="cuda").run(steps=steps)
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl")]
    assert len(losses) == 150
    assert sum(losses[130:]) < 0.8 * sum(losses[:20])


def test_clips_are_the_same_on_the_device_but_for_rounding() -> None:
    here, there = make_clip(5, 2, (48, 64)), make_clip(5, 2, (48, 64), device="cuda")
    close = (here.depth - there.depth).abs() < 1e-3 * here.depth + 1e-4
    assert close.float().mean() > 0.995
    off = (here.image.int() - there.image.int()).abs()
    assert off.float().mean() < 1.0
