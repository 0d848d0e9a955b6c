"""Laws that every registered rule must obey, and what each does exactly."""

import dataclasses

import pytest
import torch

from tests.networks import random_images, random_tiny
from tests.rules.toy import LastLook
from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.models.base import Views
from ttt3r.rules import (
    REGISTRY,
    Brake,
    Damped,
    Evidence,
    Filt3r,
    Memix,
    Ortho,
    Overwrite,
    Paced,
    Recal3r,
    Rule,
    RuleMemory,
    Split,
    Ttsa3r,
    Ttt3r,
    advance,
)

EXAMPLES: dict[str, Rule] = {
    "overwrite": Overwrite(),
    "ttt3r": Ttt3r(),
    "damped": Damped(Ttt3r(), 0.5),
    "ttsa3r": Ttsa3r(),
    "memix": Memix(Ttsa3r(), 0.4),
    "filt3r": Filt3r(),
    "recal3r": Recal3r(entropy="max"),
    "brake": Brake(),
    "ortho": Ortho(adaptive="linear"),
    "paced": Paced(Ortho()),
    "split": Split(Brake(), Damped(Ortho(), 0.5)),
}
RULES = {**EXAMPLES, "lastlook": LastLook(), "damped lastlook": Damped(LastLook(0.5), 0.5)}
WITH_TOY = values.Registry("rule", [*REGISTRY.classes.values(), LastLook])
B, S, C, N, CE = 3, 5, 8, 6, 12


def evidence(seed: int = 0) -> Evidence:
    g = torch.Generator().manual_seed(seed)
    return Evidence(
        mean_logit=torch.randn(B, S, generator=g),
        mean_map=torch.randn(B, S, N + 1, generator=g),
        attention_rows=torch.randn(B, S, N + 1, generator=g).softmax(-1),
        mean_entropy=torch.rand(B, S, generator=g),
        max_entropy=torch.rand(B, S, generator=g),
        min_entropy=torch.rand(B, S, generator=g),
        patch_features=torch.randn(B, N, CE, generator=g),
        projected_features=torch.randn(B, N, C, generator=g),
        image_tokens=torch.randn(B, N, C, generator=g),
    )


def only(kinds, full: Evidence) -> Evidence:
    return Evidence(**{kind: getattr(full, kind) for kind in kinds})


def states(seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, S, C, generator=g), torch.randn(B, S, C, generator=g)


def started(rule: Rule) -> RuleMemory:
    """What the rule remembers of another first frame."""
    previous, candidate = states(3)
    return rule.start(previous, candidate, only(rule.evidence, evidence(4))).memory


def test_every_registered_rule_has_an_example():
    assert EXAMPLES.keys() == set(REGISTRY.names)
    for name, rule in EXAMPLES.items():
        assert type(rule) is REGISTRY.classes[name] and rule.name == name


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
class TestEveryRule:
    def test_is_a_value(self, rule):
        assert isinstance(rule, Rule)
        again = WITH_TOY.parse(values.to_text(rule))
        assert again == rule and hash(again) == hash(rule)
        with pytest.raises(dataclasses.FrozenInstanceError):
            rule.anything = 1

    def test_is_pure_and_reads_only_what_it_declares(self, rule):
        previous, candidate = states()
        given = only(rule.evidence, evidence())
        memory = started(rule)
        copies = previous.clone(), candidate.clone()
        first = rule.apply(previous, candidate, given, memory)
        again = rule.apply(previous, candidate, given, memory)
        assert torch.equal(first.state, again.state) and torch.equal(first.gate, again.gate)
        assert torch.equal(previous, copies[0]) and torch.equal(candidate, copies[1])
        assert first.state.shape == (B, S, C) and first.gate.shape == (B, S)
        assert first.memory.keys() == memory.keys()

    def test_samples_are_independent(self, rule):
        previous, candidate = states()
        given = only(rule.evidence, evidence())
        memory = started(rule)
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
        memory = started(rule)
        for seed in range(5):
            previous, candidate = states(seed)
            step = rule.apply(previous, candidate, only(rule.evidence, evidence(seed)), memory)
            assert ((step.gate >= 0) & (step.gate <= 1)).all()
            memory = step.memory

    def test_takes_the_first_candidate(self, rule):
        """Whole, but for what a rule never writes."""
        previous, candidate = states()
        step = rule.start(previous, candidate, only(rule.evidence, evidence()))
        kept = 2 if isinstance(rule, Memix) else 0  # tokens of each sample: 0.4 of 5
        assert ((step.gate == 1).sum(1) == S - kept).all()
        assert ((step.gate == 0).sum(1) == kept).all()
        expected = torch.where(step.gate[..., None] == 1, candidate, previous)
        assert torch.equal(step.state, expected)

    def test_the_same_frame_twice_leaves_numbers(self, rule):
        """Changes of zero, cosines of zero vectors, equal ranks."""
        previous, candidate = states()
        given = only(rule.evidence, evidence())
        memory = rule.start(previous, candidate, given).memory
        for before, after in ((previous, candidate), (candidate, candidate), (previous, previous)):
            step = rule.apply(before, after, given, memory)
            assert step.state.isfinite().all() and step.gate.isfinite().all()
            assert all(item.isfinite().all() for item in step.memory.values())
            memory = step.memory

    def test_first_frames_and_masks(self, rule):
        previous, candidate = states()
        given = only(rule.evidence, evidence())
        memory = started(rule)
        first = torch.tensor([True, False, True])
        update = torch.tensor([True, True, False])
        step = advance(rule, previous, candidate, given, memory, first, update)
        plain = rule.apply(previous, candidate, given, memory)
        begins = rule.start(previous, candidate, given)
        assert torch.equal(step.state[0], begins.state[0])
        assert torch.equal(step.gate[0], begins.gate[0])
        assert torch.equal(step.state[1], plain.state[1])
        assert torch.equal(step.gate[1], plain.gate[1])
        assert torch.equal(step.state[2], previous[2]) and (step.gate[2] == 0).all()
        begun = begins.memory
        for name, item in step.memory.items():
            assert torch.equal(item[0], begun[name][0])
            assert torch.equal(item[1], plain.memory[name][1])
            assert torch.equal(item[2], begun[name][2])  # to be overwritten: still no frame

    def test_streams_of_a_batch_may_start_at_different_times(self, rule):
        """Each stream of a batch, begun when it likes, is as it would be alone."""
        begins = [0, 2, 1]
        looks = [(states(10 + t), only(rule.evidence, evidence(20 + t))) for t in range(5)]
        memory, state, age = {}, torch.zeros(B, S, C), torch.zeros(B, dtype=torch.long)
        for t, ((_, candidate), given) in enumerate(looks):
            update = torch.tensor([t >= begin for begin in begins])
            step = advance(rule, state, candidate, given, memory, age == 0, update)
            state, memory, age = step.state, step.memory, age + update
        for b, begin in enumerate(begins):
            alone, kept = torch.zeros(1, S, C), {}
            for t, ((_, candidate), given) in enumerate(looks[begin:]):
                one = Evidence(**{kind: getattr(given, kind)[b : b + 1] for kind in rule.evidence})
                seen = (alone, candidate[b : b + 1], one, kept)
                now = torch.tensor([True])
                step = advance(rule, *seen, now if t == 0 else ~now, now)
                alone, kept = step.state, step.memory
            torch.testing.assert_close(state[b], alone[0])
            for name, item in kept.items():
                torch.testing.assert_close(memory[name][b], item[0])


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


def test_sparse_reading_follows_the_selection_among_the_old_tokens():
    (previous, _), projected = states(), evidence().projected_features
    sparse = Memix(Ttt3r(), 0.4, sparse_read=True)
    reads = sparse.pose_reads(previous, projected)
    assert torch.equal(reads, sparse.select(previous, projected)) and (reads.sum(1) == 3).all()
    for around in (Damped(sparse, 0.5), Paced(sparse), Split(sparse, Ttt3r()), Memix(sparse)):
        assert torch.equal(around.pose_reads(previous, projected), reads)
    assert Memix(Ttt3r(), 0.4).pose_reads(previous, projected) is None
    assert Ttt3r().pose_reads(previous, projected) is None


@torch.no_grad()
def test_sparse_reading_moves_the_pose():
    model, image = random_tiny(), Views(random_images(1))
    poses = [
        model.step(model.initial_state(rule), model.encode(image), rule, ("pose",))[1].pose_encoding
        for keep in (0.4, 0.0)
        for rule in (Memix(keep=keep), Memix(keep=keep, sparse_read=True))
    ]
    assert (poses[0] - poses[1]).abs().max() > 1e-3
    torch.testing.assert_close(poses[2], poses[3])  # all are selected


def test_split_is_outermost_and_asks_the_pose_memory_for_what_it_has():
    assert Split(Ttsa3r(), Filt3r()).evidence == Ttsa3r().evidence
    for wrong in (Ttsa3r(), Memix(), Recal3r(), Paced(Ttt3r())):
        with pytest.raises(SettingError, match="pose memory cannot follow"):
            Split(Ttt3r(), wrong)
    inner = Split(Ttt3r(), Ttt3r())
    for wrap in (lambda: Damped(inner, 0.5), lambda: Memix(inner), lambda: Split(Ttt3r(), inner)):
        with pytest.raises(SettingError, match="outermost"):
            wrap()
