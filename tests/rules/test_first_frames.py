"""What each rule does with the first frame of a segment, as docs/rules.md tells it."""

import re

import pytest
import torch

from tests.goldens import PROJECT_ROOT
from tests.networks import random_images, random_tiny
from tests.rules.test_rules import EXAMPLES
from ttt3r.models.base import Views
from ttt3r.rules import REGISTRY, Rule

WHOLE, SELECTED = "1", "1, or 0 where kept"


def documented() -> dict[str, str]:
    """The gate of first frames in the table of the page, rule by rule."""
    page = (PROJECT_ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    part = page.split("## First frames")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in part.splitlines() if "|" in row
    ]
    return {name: row[1] for row in rows[2:] for name in re.findall(r"`(\w+)", row[0])}


def test_the_page_names_every_rule():
    assert documented().keys() == set(REGISTRY.names)
    assert set(documented().values()) == {WHOLE, SELECTED}


@torch.no_grad()
@pytest.mark.parametrize("rule", EXAMPLES.values(), ids=list(EXAMPLES))
def test_gate_of_first_frames(rule: Rule):
    """At the start, after a reset, and again where the first one was not written."""
    model, images = random_tiny(), random_images(6)
    tokens = [model.encode(Views(image[None])) for image in images]
    state, begin = model.initial_state(rule), model.initial_state(rule)
    for index, frame in enumerate(tokens):
        if index == 3:
            state = model.reset(state, rule, torch.tensor([True]))
        before, update = state, torch.tensor([index != 3])
        state, output = model.step(state, frame, rule, (), update)
        if index == 3:
            assert not output.gate.any() and torch.equal(state.tokens, begin.tokens)
            continue
        if index not in (0, 4):
            assert rule.name == "overwrite" or (output.gate < 1).any()
            continue
        kept = output.gate == 0
        assert ((output.gate == 1) | kept).all()
        assert bool(kept.any()) == (documented()[rule.name] == SELECTED)
        assert torch.equal(state.tokens[kept], begin.tokens[kept])
        whole, _ = model.step(before, frame, REGISTRY.parse("overwrite"), ())
        assert torch.equal(state.tokens[~kept], whole.tokens[~kept])
        # A rule of the pose memory reads logits, which takes another way: some float32 eps.
        torch.testing.assert_close(state.pose_memory, whole.pose_memory, rtol=1e-4, atol=1e-5)
