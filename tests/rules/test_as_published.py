"""`as_published` brings back what published code does to batches, and to equal frames."""

import dataclasses

import pytest
import torch

from tests.networks import random_images, random_tiny
from tests.rules.test_rules import B, evidence, only, started, states
from ttt3r import values
from ttt3r.models.base import Views
from ttt3r.rules import Brake, Damped, Filt3r, Memix, Ortho, Recal3r, Rule, Ttsa3r, Ttt3r, parse

SHARED = {
    "ttt3r": Ttt3r(as_published=True),
    "damped": Damped(Ttt3r(as_published=True), 0.5),
    "memix": Memix(Ttt3r(as_published=True), 0.4),
    "brake": Brake(as_published=True),
    "ortho": Ortho(as_published=True),
    "recal3r": Recal3r(as_published=True),
}


def test_is_off_unless_asked_for():
    for name in ("ttt3r", "brake", "ortho", "recal3r", "ttsa3r", "filt3r"):
        rule = parse(name)
        assert getattr(rule, "as_published") is False  # noqa: B009
        assert parse(f"{name}(as_published=True)") == dataclasses.replace(rule, as_published=True)
        assert values.to_text(rule) == name


def apply(rule: Rule, previous, candidate, given, memory):
    return rule.apply(previous, candidate, only(rule.evidence, given), memory)


@pytest.mark.parametrize("rule", SHARED.values(), ids=list(SHARED))
def test_streams_of_a_batch_share_what_published_code_averages(rule: Rule):
    """A change of one stream's evidence reaches the others; a batch of equals is as one stream."""
    (previous, candidate), given = states(), evidence()
    memory = started(rule)
    moved = dataclasses.replace(
        given,
        mean_logit=given.mean_logit + torch.tensor([2.0, 0, 0])[:, None],
        image_tokens=given.image_tokens * torch.tensor([2.0, 1, 1])[:, None, None],
    )
    one, other = (apply(rule, previous, candidate, found, memory) for found in (given, moved))
    assert not torch.allclose(one.state[1:], other.state[1:], atol=1e-3)
    alike = [item[:1].expand_as(item) for item in (previous, candidate)]
    same = dataclasses.replace(
        given,
        **{
            field.name: getattr(given, field.name)[:1].expand_as(getattr(given, field.name))
            for field in dataclasses.fields(given)
        },
    )
    ours = apply(rule, *alike, same, {key: m[:1].expand_as(m) for key, m in memory.items()})
    single = dataclasses.replace(
        given, **{f.name: getattr(given, f.name)[:1] for f in dataclasses.fields(given)}
    )
    alone = apply(
        rule, previous[:1], candidate[:1], single, {key: m[:1] for key, m in memory.items()}
    )
    torch.testing.assert_close(ours.state, alone.state.expand_as(ours.state))


def test_the_shared_gate_is_that_of_the_mean_logit():
    (previous, candidate), given = states(), evidence()
    gate = apply(Ttt3r(as_published=True), previous, candidate, given, {}).gate
    expected = given.mean_logit.mean(0).sigmoid()
    torch.testing.assert_close(gate, expected.expand(B, -1))


def test_equal_candidates_leave_no_number():
    """Zero is divided by zero, and nothing repairs the state afterwards."""
    (previous, candidate), given = states(), evidence()
    for rule in (Ttsa3r(as_published=True), Memix(Ttsa3r(as_published=True), 0.4)):
        declared = only(rule.evidence, given)
        step = rule.start(previous, candidate, declared)
        step = rule.apply(step.state, candidate, declared, step.memory)
        written = step.gate != 0
        assert step.gate[written].isnan().all() and written.any()
        step = rule.apply(step.state, states(7)[1], declared, step.memory)
        assert step.state.isnan().any()
        ours = dataclasses.replace(rule, **_ours(rule))
        assert ours.apply(previous, candidate, declared, _memory(ours, given)).gate.isfinite().all()


def _ours(rule: Rule) -> dict[str, object]:
    return {"rule": Ttsa3r()} if isinstance(rule, Memix) else {"as_published": False}


def _memory(rule: Rule, given):
    previous, candidate = states()
    return rule.start(previous, candidate, only(rule.evidence, given)).memory


@torch.no_grad()
@pytest.mark.parametrize("wrap", [lambda rule: rule, lambda rule: Damped(rule, 0.5)])
def test_filters_of_a_batch_start_together(wrap):
    """One stream's reset: the next frame is a first one for its neighbour too, pose and all."""
    model, images = random_tiny(), random_images(5)
    tokens = [model.encode(Views(image.expand(2, -1, -1, -1))) for image in images]

    def run(rule: Rule):
        state, gates, poses = model.initial_state(rule, 2), [], []
        for index, frame in enumerate(tokens):
            if index == 3:
                state = model.reset(state, rule, torch.tensor([True, False]))
            state, output = model.step(state, frame, rule, ("pose",))
            gates.append(output.gate)
            poses.append(output.pose_encoding)
        return state, torch.stack(gates), torch.stack(poses)

    state, gates, poses = run(wrap(Filt3r(as_published=True)))
    ours, right, places = run(wrap(Filt3r()))
    assert (gates[3] == 1).all() and (right[3, 0] == 1).all() and (right[3, 1] < 1).all()
    torch.testing.assert_close(gates[4, 0], gates[4, 1])  # one schedule from here on
    torch.testing.assert_close(gates[:3], right[:3])
    assert not torch.allclose(poses[3, 1], places[3, 1], atol=1e-3)  # read with the learned token
    torch.testing.assert_close(state.tokens[0], ours.tokens[0])
