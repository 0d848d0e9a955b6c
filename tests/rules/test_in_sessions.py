"""Every registered rule in sessions: saved, forked, reset, in batches, and only looked at."""

import pytest
import torch

from tests.networks import random_images, random_tiny
from tests.rules.test_rules import EXAMPLES
from tests.stream.test_session import assert_same, images
from ttt3r import values
from ttt3r.models.base import Views
from ttt3r.rules import Rule
from ttt3r.stream.session import Session

every_rule = pytest.mark.parametrize("rule", EXAMPLES.values(), ids=list(EXAMPLES))
# A batch of products rounds in another order than one product: some tens of float32 eps, and
# recal3r's ranks do not change by them here.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@every_rule
@pytest.mark.parametrize("stop", [1, 4])
def test_saved_and_forked_across_a_reset(rule: Rule, stop, tmp_path):
    model, stream = random_tiny(), images(6)
    whole = Session(model, rule, reset=3)
    expected = [whole.push(image) for image in stream]
    half = Session(model, values.to_text(rule), reset=3)
    for image in stream[:stop]:
        half.push(image)
    fork = half.fork()
    half.save(tmp_path / "session")
    resumed = Session.load(tmp_path / "session", model)
    assert resumed.rule == rule
    for image, prediction in zip(stream[stop:], expected[stop:], strict=True):
        assert_same(resumed.push(image), prediction)
        assert_same(fork.push(image), prediction)


@every_rule
def test_a_frame_that_is_only_looked_at_changes_nothing(rule: Rule):
    session = Session(random_tiny(), rule)
    stream = images(5)
    for image in stream[:3]:
        session.push(image)
    before = session.state.to_tensors()
    for image in stream[3:]:
        session.push(image, update=False)
    after = session.state.to_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@every_rule
def test_an_unwritten_first_frame_leaves_no_trace(rule: Rule):
    stream = images(4)
    plain, looked = Session(random_tiny(), rule), Session(random_tiny(), rule)
    looked.push(stream[3], update=False)
    for image in stream:
        one, other = plain.push(image), looked.push(image)
        assert torch.equal(one.points, other.points)
    for name, item in plain.state.to_tensors().items():
        assert torch.equal(item, looked.state.to_tensors()[name]), name


@every_rule
@torch.no_grad()
def test_one_stream_of_a_batch_is_reset(rule: Rule):
    """It goes on as a fresh one would, and its neighbour as if nothing had happened."""
    model, looks = random_tiny(), random_images(5)

    def run(batch: int, begin: int, reset_at: int | None):
        state = model.initial_state(rule, batch)
        for t in range(begin, len(looks)):
            if t == reset_at:
                state = model.reset(state, rule, torch.tensor([True, False]))
            tokens = model.encode(Views(looks[t].expand(batch, -1, -1, -1)))
            state, _ = model.step(state, tokens, rule, ())
        return state.to_tensors()

    both, fresh, untouched = run(2, 0, 2), run(1, 2, None), run(1, 0, None)
    for name, item in both.items():
        torch.testing.assert_close(item[0], fresh[name][0], **CLOSE)
        torch.testing.assert_close(item[1], untouched[name][0], **CLOSE)


@every_rule
def test_another_size_after_a_reset(rule: Rule):
    session = Session(random_tiny(), rule, reset=2)
    first, second = images(2)
    session.push(first)
    session.push(second)
    session._progress = session._progress.__class__(
        session.model.reset(session.state, rule, torch.tensor([True])),
        session.index,
        session.segment,
        session.world_from_segment,
    )
    assert session.push(first[:32].copy()).points.shape == (32, 64, 3)
