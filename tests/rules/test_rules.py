"""Laws that every registered rule must obey, and what each does exactly."""

import dataclasses

import pytest
import torch

from ttt3r import rules, values
from ttt3r.errors import SettingError
from ttt3r.rules import REGISTRY, Damped, Evidence, Overwrite, Rule, Ttt3r, advance

EXAMPLES: dict[str, Rule] = {
    "overwrite": Overwrite(),
    "ttt3r": Ttt3r(),
    "damped": Damped(Ttt3r(), 0.5),
}
B, S, C, N, CE = 3, 5, 8, 6, 12


def evidence(seed: int = 0) -> Evidence:
    g = torch.Generator().manual_seed(seed)
    return Evidence(
        mean_logit=torch.randn(B, S, generator=g),
        mean_map=torch.randn(B, S, N + 1, generator=g),
        attention_rows=torch.randn(B, S, N + 1, generator=g).softmax(-1),
        patch_features=torch.randn(B, N, CE, generator=g),
        projected_features=torch.randn(B, N, C, generator=g),
    )


def only(kinds, full: Evidence) -> Evidence:
    return Evidence(**{kind: getattr(full, kind) for kind in kinds})


def states(seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, S, C, generator=g), torch.randn(B, S, C, generator=g)


def test_every_registered_rule_has_an_example():
    assert EXAMPLES.keys() == REGISTRY.keys()
    for name, rule in EXAMPLES.items():
        assert type(rule) is REGISTRY[name] and rule.name == name


@pytest.mark.parametrize("rule", EXAMPLES.values(), ids=list(EXAMPLES))
class TestEveryRule:
    def test_is_a_value(self, rule):
        assert isinstance(rule, Rule)
        assert rules.parse(values.to_text(rule)) == rule
        assert hash(rule) == hash(rules.parse(values.to_text(rule)))
        with pytest.raises(dataclasses.FrozenInstanceError):
            rule.anything = 1

    def test_is_pure_and_reads_only_what_it_declares(self, rule):
        previous, candidate = states()
        full, memory = evidence(), rule.start(previous)
        given = only(rule.evidence, full)
        copies = previous.clone(), candidate.clone()
        first = rule.apply(previous, candidate, given, memory)
        again = rule.apply(previous, candidate, given, memory)
        assert torch.equal(first.state, again.state) and torch.equal(first.gate, again.gate)
        assert torch.equal(previous, copies[0]) and torch.equal(candidate, copies[1])
        assert first.state.shape == (B, S, C) and first.gate.shape == (B, S)
        assert first.memory.keys() == memory.keys()

    def test_samples_are_independent(self, rule):
        previous, candidate = states()
        given, memory = only(rule.evidence, evidence()), rule.start(previous)
        whole = rule.apply(previous, candidate, given, memory)
        for b in range(B):
            one = slice(b, b + 1)
            part = Evidence(
                **{
                    f.name: getattr(given, f.name)[one]
                    for f in dataclasses.fields(given)
                    if getattr(given, f.name) is not None
                }
            )
            single = rule.apply(
                previous[one], candidate[one], part, {k: v[one] for k, v in memory.items()}
            )
            torch.testing.assert_close(whole.state[one], single.state)
            torch.testing.assert_close(whole.gate[one], single.gate)

    def test_gate_is_a_share(self, rule):
        previous, candidate = states()
        step = rule.apply(
            previous, candidate, only(rule.evidence, evidence()), rule.start(previous)
        )
        assert ((step.gate >= 0) & (step.gate <= 1)).all()

    def test_first_frames_and_masks(self, rule):
        previous, candidate = states()
        given, memory = only(rule.evidence, evidence()), rule.start(previous)
        first = torch.tensor([True, False, True])
        update = torch.tensor([True, True, False])
        step = advance(rule, previous, candidate, given, memory, first, update)
        plain = rule.apply(previous, candidate, given, memory)
        assert torch.equal(step.state[0], candidate[0]) and (step.gate[0] == 1).all()
        assert torch.equal(step.state[1], plain.state[1])
        assert torch.equal(step.gate[1], plain.gate[1])
        assert torch.equal(step.state[2], previous[2]) and (step.gate[2] == 0).all()


def test_overwrite_takes_the_candidate():
    previous, candidate = states()
    step = Overwrite().apply(previous, candidate, Evidence(), {})
    assert torch.equal(step.state, candidate) and (step.gate == 1).all()


def test_ttt3r_moves_by_the_sigmoid_of_the_mean_logit():
    previous, candidate = states()
    given = evidence()
    step = Ttt3r().apply(previous, candidate, given, {})
    gate = 1 / (1 + (-given.mean_logit).exp())
    expected = gate[..., None] * candidate + (1 - gate[..., None]) * previous
    torch.testing.assert_close(step.gate, gate)
    torch.testing.assert_close(step.state, expected)


def test_damping_scales_the_gate():
    previous, candidate = states()
    given = evidence()
    gate = Ttt3r().apply(previous, candidate, given, {}).gate
    for factor in (1.0, 0.5, 1 / 3):
        step = Damped(Ttt3r(), factor).apply(previous, candidate, given, {})
        torch.testing.assert_close(step.gate, factor * gate)
        expected = previous + factor * gate[..., None] * (candidate - previous)
        torch.testing.assert_close(step.state, expected)
    for factor in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(SettingError):
            Damped(Ttt3r(), factor)
