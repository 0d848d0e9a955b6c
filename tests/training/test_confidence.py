"""The confidence is fitted to the errors, and nothing else changes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.toy import recipe, trainer
from ttt3r.errors import InputError
from ttt3r.models.base import Views
from ttt3r.rules.overwrite import Overwrite
from ttt3r.training.confidence import fit_confidence, pixels_of_tokens, refit_checkpoint
from ttt3r.training.feed import DiskFeed


def test_pixels_of_tokens_undo_the_heads_shuffle() -> None:
    pixels = torch.arange(2 * 6 * 16.0).reshape(2, 6, 16)  # [batch, tokens, pixels]
    image = torch.nn.functional.pixel_shuffle(pixels.transpose(1, 2).unflatten(2, (2, 3)), 4)[:, 0]
    assert torch.equal(pixels_of_tokens(image, 4), pixels.flatten(0, 1))


def test_only_the_confidence_changes_and_it_follows_the_error(tmp_path: Path) -> None:
    one = trainer(tmp_path, tmp_path / "cache")
    one.run(steps=30)
    feed = DiskFeed(recipe(), tmp_path / "cache", 1)
    batch = feed(recipe().stages[-1], torch.Generator().manual_seed(0))
    results = []
    model = one.averaged()
    for fitted in (False, True):
        if fitted:
            fit_confidence(model, [batch], alpha=2.0, steps=200)
        with torch.no_grad():
            tokens = model.encode(Views(image=batch.image[:, 0]))
            state = model.initial_state(Overwrite(), len(batch.image))
            results.append(model.step(state, tokens, Overwrite(), ("points", "world", "pose"))[1])
    before, after = results
    for name in ("points", "world_points", "pose_encoding"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    confidence, points = after.confidence, after.points
    assert confidence is not None and points is not None
    target = batch.target(0)
    error = (points - target.points).norm(dim=-1) / target.points.norm(dim=-1).clamp(min=0.3)
    pair = torch.stack((confidence[target.valid].log(), -error[target.valid].log()))
    assert torch.corrcoef(pair)[0, 1] > 0.1


def test_a_refitted_checkpoint_goes_on(tmp_path: Path) -> None:
    one = trainer(tmp_path, tmp_path / "cache")
    with pytest.raises(InputError, match="train first"):
        refit_checkpoint(recipe(), one.checkpoint, DiskFeed(recipe(), tmp_path / "cache", 1))
    one.run(steps=3)
    before = load_file(one.checkpoint)
    refit_checkpoint(recipe(), one.checkpoint, DiskFeed(recipe(), tmp_path / "cache", 1))
    after = load_file(one.checkpoint)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".fc2." in name and "proj" in name for name in changed)
    again = trainer(tmp_path, tmp_path / "cache")
    again.run(steps=4)
    assert again.progress.step == 4
