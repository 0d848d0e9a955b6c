"""A frame that is looked at but not remembered leaves no trace, in any family."""

import pytest
import torch

from tests.networks import random_images
from ttt3r.models.adapters import as_stream
from ttt3r.models.base import Views
from ttt3r.models.registry import FAMILIES
from ttt3r.stream.session import Session
from ttt3r.weights import CATALOGUE, load

TINY = {spec.family: spec.name for spec in CATALOGUE.values() if spec.random_config is not None}


def test_every_family_has_a_tiny_network():
    assert TINY.keys() == FAMILIES.keys()


@torch.no_grad()
@pytest.mark.parametrize("before", [0, 2], ids=["at the start", "later"])
@pytest.mark.parametrize("family", FAMILIES)
def test_where_update_is_false_nothing_changes(family: str, before: int):
    model = as_stream(load(TINY[family], "cpu"))
    patch = model.preparation.patch
    rule, images = model.parse_rule(), random_images(before + 2, 3 * patch, 4 * patch).clamp(-1, 1)
    tokens = [model.encode(Views(image[None])) for image in images]
    state = model.initial_state(rule)
    for seen in tokens[:before]:
        state, _ = model.step(state, seen, rule)
    looked, said = model.step(state, tokens[before], rule, update=torch.tensor([False]))
    assert said.points is not None
    old, new = state.to_tensors(), looked.to_tensors()
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    with_look, without = (model.step(s, tokens[-1], rule)[1] for s in (looked, state))
    for name, tensor in without.tensors().items():
        assert torch.equal(getattr(with_look, name), tensor), name


@torch.no_grad()
def test_a_segment_begins_with_the_first_frame_that_is_remembered():
    model = load(TINY["cut3r"], "cpu")
    images = random_images(3, 48, 64).clamp(-1, 1)
    session, fresh = Session(model, reset=2), Session(model)
    session.push(images[0])
    session.push(images[1], update=False)  # the frame that begins the next segment
    assert session.segment == 1 and session.state.age.tolist() == [0]
    assert torch.equal(session.push(images[2]).points, fresh.push(images[2]).points)
