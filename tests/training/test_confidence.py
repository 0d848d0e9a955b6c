"""The confidence is fitted to the errors, and nothing else changes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.toy import recipe, trainer
from ttt3r.errors import InputError
from ttt3r.models.base import StepOutput, Views
from ttt3r.models.cut3r import Cut3r
from ttt3r.rules.overwrite import Overwrite
from ttt3r.training.confidence import fit_confidence, pixels_of_tokens, refit_checkpoint
from ttt3r.training.data import Batch
from ttt3r.training.feed import DiskFeed


def test_pixels_of_tokens_undo_the_heads_shuffle() -> None:
    pixels = torch.arange(2 * 6 * 16.0).reshape(2, 6, 16)  # [batch, tokens, pixels]
    image = torch.nn.functional.pixel_shuffle(pixels.transpose(1, 2).unflatten(2, (2, 3)), 4)[:, 0]
    assert torch.equal(pixels_of_tokens(image, 4), pixels.flatten(0, 1))


ALPHA = 2.0


def stream(model: Cut3r, batch: Batch) -> list[StepOutput]:
    outputs = []
    state = model.initial_state(Overwrite(), len(batch.image))
    for frame in range(batch.image.shape[1]):
        tokens = model.encode(Views(image=batch.image[:, frame]))
        state, output = model.step(state, tokens, Overwrite(), ("points", "world", "pose"))
        outputs.append(output)
    return outputs


def test_only_the_confidence_changes_and_it_follows_the_error(tmp_path: Path) -> None:
    """Costs less than the best confidence that is the same everywhere."""
    one = trainer(tmp_path, tmp_path / "cache")
    one.run(steps=30)
    feed = DiskFeed(recipe(), tmp_path / "cache", 1)
    batch = feed(recipe().stages[-1], torch.Generator().manual_seed(0))
    model = one.averaged().requires_grad_(False)
    before = stream(model, batch)
    fit_confidence(model, [batch], alpha=ALPHA, steps=300)
    after = stream(model, batch)
    errors, confidences, empty = [], [], []
    for frame, (old, new) in enumerate(zip(before, after, strict=True)):
        for name in ("points", "world_points", "pose_encoding"):
            assert torch.equal(getattr(old, name), getattr(new, name)), name
        target = batch.target(frame)
        assert new.points is not None and new.confidence is not None
        distance = target.points.norm(dim=-1).clamp(min=0.3)
        errors.append(((new.points - target.points).norm(dim=-1) / distance)[target.valid])
        confidences.append(new.confidence[target.valid])
        empty.append(new.confidence[~target.valid])
    error, confidence, nothing = map(torch.cat, (errors, confidences, empty))

    def cost(valid: torch.Tensor, invalid: torch.Tensor) -> float:
        at_nothing = ALPHA * invalid.log().sum() / max(len(nothing), 1)
        return float((valid * error - ALPHA * valid.log()).mean() + at_nothing)

    same = [torch.tensor(c).expand(1) for c in (1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0)]
    constants = [cost(c.expand_as(confidence), c.expand_as(nothing)) for c in same]
    assert cost(confidence, nothing) < min(constants) - 0.01
    assert confidence.std() > 0.05


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
