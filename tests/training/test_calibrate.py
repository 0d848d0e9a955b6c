"""The confidence is shifted to where its loss is least; nothing else changes."""

import pytest
import torch

from tests.training.toy import NETWORK, Memory
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.training.calibrate import best_shift, calibrate
from ttt3r.training.data import fixed_batch
from ttt3r.training.initial import initialise
from ttt3r.training.validate import say


def test_the_best_confidence_of_an_error_is_alpha_over_it() -> None:
    """C e - α log C is least at C = α / e."""
    error = torch.full((10,), 0.1)
    shift = best_shift(torch.full((10,), 1.5), error, alpha=0.3)
    assert 1 + 0.5 * torch.tensor(shift).exp() == pytest.approx(3.0, rel=0.05)  # steps of 0.05


def test_only_the_confidence_changes_and_keeps_its_order(clips: Memory) -> None:
    model = Cut3r(NETWORK).eval()
    initialise(model, 0)
    batch = fixed_batch(clips, range(2), [0, 2])
    before, _ = say(model, batch, "ttt3r")
    shifts = calibrate(model, clips)
    after, _ = say(model, batch, "ttt3r")
    assert shifts[0] != 0
    for name in ("points", "world", "pose"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    expected = 1 + (before.confidence - 1) * torch.tensor(shifts[0]).exp()
    torch.testing.assert_close(after.confidence, expected, atol=1e-4, rtol=1e-4)
