"""A rule registered from outside the package by one `add` works everywhere."""

import pytest
import torch

from tests.networks import random_tiny
from tests.rules.toy import LastLook
from tests.stream.test_session import assert_same, images
from ttt3r import rules
from ttt3r.errors import SettingError
from ttt3r.models.base import Views
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.stream.session import Session

TEXT = "damped(lastlook(weight=0.5), 0.5)"


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(rules.REGISTRY, "classes", dict(rules.REGISTRY.classes))
    with pytest.raises(SettingError, match="unknown rule"):
        rules.parse("lastlook")
    rules.REGISTRY.add(LastLook)


@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_saved_and_resumed_across_a_reset(tmp_path, stop):
    """Also before the first frame, when nothing is remembered, and just after a reset."""
    model, stream = random_tiny(), images(6)
    whole = Session(model, TEXT, reset=3)
    expected = [whole.push(image) for image in stream]
    half = Session(model, TEXT, reset=3)
    for image in stream[:stop]:
        half.push(image)
    fork = half.fork()
    half.save(tmp_path / "session")
    resumed = Session.load(tmp_path / "session", model)
    assert resumed.rule == half.rule
    for image, prediction in zip(stream[stop:], expected[stop:], strict=True):
        assert_same(resumed.push(image), prediction)
        assert_same(fork.push(image), prediction)


def test_it_remembers_the_patch_features_of_the_last_frame():
    model, stream = random_tiny(), images(3)
    session = Session(model, "lastlook")
    assert dict(session.state.rule_memory) == {}
    for image in stream:
        session.push(image)
    pixels = (torch.from_numpy(stream[-1]).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        features = model.encode(Views(pixels)).features
    assert torch.equal(session.state.rule_memory["features"], features)
    session.push(stream[0], update=False)
    assert torch.equal(session.state.rule_memory["features"], features)


@torch.no_grad()
def test_one_stream_of_a_batch_is_reset():
    """It goes on as a fresh one would, and its neighbour as if nothing had happened."""
    model, rule = random_tiny(), rules.parse("lastlook")
    looks = [
        (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
        for image in images(4)
    ]

    def run(batch: int, begin: int, reset_at: int | None):
        state = model.initial_state(rule, batch)
        for t in range(begin, len(looks)):
            if t == reset_at:
                state = model.reset(state, rule, torch.tensor([True, False]))
            tokens = model.encode(Views(looks[t].expand(batch, -1, -1, -1)))
            state, _ = model.step(state, tokens, rule)
        return state.to_tensors()

    both, fresh, untouched = run(2, 0, 2), run(1, 2, None), run(1, 0, None)
    for name, item in both.items():  # products of a batch of two may round in another order
        torch.testing.assert_close(item[0], fresh[name][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(item[1], untouched[name][0], rtol=1e-4, atol=1e-5)


def test_another_number_of_patches_within_a_segment_is_refused():
    session = Session(random_tiny(), "lastlook")
    session.push(images(1)[0])
    before = session.state
    with pytest.raises(SettingError, match="one size"):
        session.push(images(1)[0][:32].copy())
    assert session.state is before


def test_in_a_run(tmp_path):
    stream = images(4)
    found = list(reconstruct(stream, model=random_tiny(), rule=TEXT, size=64, out=tmp_path / "run"))
    assert len(found) == 4 and found[-1].gate is not None
