"""Update rules against numbers of the authors' code.

Each golden is followed twice: by the rule alone, fed with the evidence that the golden holds, and
by the whole network, where the published loop does what a session does.
"""

from functools import cache

import pytest
import torch

from tests.goldens import goldens, load_npz
from tests.networks import reference_tiny
from tests.parity.test_cut3r import close, close_points, frames
from ttt3r.models.base import Tokens, Views
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.rules import (
    Brake,
    Damped,
    Evidence,
    Filt3r,
    Memix,
    Ortho,
    Overwrite,
    Recal3r,
    Rule,
    Ttsa3r,
    Ttt3r,
    advance,
)
from ttt3r.types import Reading

# A rule and its loop's oddities: what the files of one rule say, and how they were made.
FILES = sorted(
    path.stem for path in goldens("rules").glob("*.npz") if not path.stem.startswith("features")
)
# Names of evidence, ours to the golden's.
KNOWN = {
    "mean_logit": "gate_logit",
    "mean_map": "mean_map",
    "mean_entropy": "row_entropy",
    "max_entropy": "row_entropy",
    "image_tokens": "image_tokens_last",
}
# Names of memories, ours to the golden's; compared after every view.
MEMORIES = {"variance": "p", "pressure": "pressure", "direction": "direction"}


def number(golden, name: str) -> float:
    return float(golden[f"hp_{name}"])


def rule_of(name: str, golden) -> Rule:
    """The rule that a golden was made with."""
    kind = name.split("_")[0]
    if kind == "ttsa3r":
        return Ttsa3r(number(golden, "threshold"), as_published=True)
    if kind == "filt3r":
        names = ("p_init", "gamma_p", "q_min", "q_max", "alpha_q", "tau_q", "fixed_r")
        names += ("ema_beta_delta", "ema_delta_floor", "k_min", "k_max")
        return Filt3r(*(number(golden, name) for name in names), as_published=True)
    if kind == "recal3r":
        reduce = str(golden["hp_entropy_head_reduce"])
        return Recal3r(number(golden, "decay"), number(golden, "beta_base"), reduce, True)
    if kind == "damped":
        return Damped(Ttt3r(as_published=True), number(golden, "random_gate_p"))
    if kind == "brake":
        return Brake(number(golden, "momentum_tau"), as_published=True)
    if kind == "ortho":
        kept = (number(golden, f"ortho_{part}") for part in ("alpha_novel", "alpha_drift", "beta"))
        adaptive = str(golden.get("hp_ortho_adaptive", "none")).replace("match", "linear")
        return Ortho(*kept, adaptive=adaptive, as_published=True)
    assert kind == "memix"
    bases = {"cut": Overwrite(), "ttt": Ttt3r(), "ttsa": Ttsa3r(as_published=True)}
    asked = min(int(golden["hp_num_patches"]), golden["state_before"].shape[-2])
    keep = 1 - int(golden["hp_topk"]) / asked
    protect = -1 if golden["hp_update_anchor"] else int(golden["hp_anchor_idx"])
    chunks = 0 if golden["hp_num_patches"] >= 768 else asked
    base, sparse = bases[str(golden["hp_variant"]).split("_")[0]], golden["hp_pose_sparse_read"]
    return Memix(base, keep, chunks, protect, bool(sparse))


class Recording:
    """A golden as tensors with a batch axis, and which views its loop takes as first ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.golden = load_npz("rules", name)
        self.batched = name.endswith("batch2")
        self.update = self.tensor("update")
        self.reset = self.tensor("reset")
        self.frame = self.tensor("view_frame_index")
        self.views = len(self.update)
        self.features = load_npz("rules", f"features_{name.split('_')[1]}")

    def tensor(self, key: str) -> torch.Tensor:
        """An array [view, …] as [view, batch, …]."""
        found = torch.from_numpy(self.golden[key])
        return found if self.batched and found.ndim > 1 else found[:, None]

    def at(self, key: str, view: int) -> torch.Tensor:
        return self.tensor(key)[view]

    def is_first(self, view: int) -> torch.Tensor:
        """Views that the published loop exempts from the rule, sample by sample."""
        if view == 0:
            return torch.ones_like(self.update[0])
        parallel = self.name.endswith("parallelreset")
        if "exempt" in self.golden:
            first = self.at("exempt", view).expand_as(self.update[0])
        elif self.name.startswith("filt3r") and not parallel:
            first = self.reset[view - 1].expand_as(self.update[0])
        else:
            first = torch.zeros_like(self.update[0])
        return first

    def previous(self, view: int) -> torch.Tensor:
        if view:
            return self.at("state_after", view - 1)
        before = torch.from_numpy(self.golden["state_before"])
        return before if self.batched else before[None]

    def evidence(self, view: int, rule: Rule) -> Evidence:
        index = self.frame[view]
        found = {kind: self.at(key, view) for kind, key in KNOWN.items() if key in self.golden}
        for kind, key in (("patch_features", "feat"), ("projected_features", "projected")):
            found[kind] = torch.from_numpy(self.features[key])[index]
        return Evidence(**{kind: found[kind] for kind in rule.evidence})

    def after_view(self, memory, view: int):
        """What the published loop leaves of a rule's memory after a view, which may reset."""
        kind = self.name.split("_")[0]
        if kind == "filt3r":  # takes its first mean also from a frame that is not written
            mean, theirs = memory["mean_change"], self.at("delta_ema", view)
            missing = (mean < 0) & theirs.isfinite() & ~self.update[view]
            memory = memory | {"mean_change": torch.where(missing, theirs, mean)}
        if not self.reset[view].any() or kind in ("ttsa3r", "memix"):
            return memory
        if kind == "filt3r" and self.name.endswith("parallelreset"):
            # The filter starts anew, and the next candidate counts as 1 away from the one before.
            candidate = self.at("state_candidate", view + 1).clone()
            candidate[..., 0] += 1
            variance = torch.full_like(memory["variance"], number(self.golden, "p_init"))
            change = torch.full_like(memory["mean_change"], -1.0)
            return {"variance": variance, "mean_change": change, "candidate": candidate}
        if kind == "recal3r":  # one sample's reset clears the pressure of all
            return memory | {"pressure": torch.zeros_like(memory["pressure"])}
        if kind == "ortho" and self.name.endswith("parallelreset"):
            return memory
        return {name: torch.zeros_like(item) for name, item in memory.items()}


def near(actual, expected, absolute: float, what, relative: float = 0.0) -> None:
    """Assert closeness; there may be nothing to compare."""
    torch.testing.assert_close(
        actual, expected, rtol=relative, atol=absolute, msg=lambda text: f"{what}: {text}"
    )


def check_memories(recording: Recording, memory, view: int) -> None:
    """Compare a memory with the golden's, unless the view ends with a reset."""
    if recording.reset[view].any():
        return
    for ours, theirs in MEMORIES.items():
        if ours in memory and theirs in recording.golden:
            expected = recording.at(theirs, view)
            known = expected.isfinite()
            near(memory[ours][known], expected[known], 1e-6, (theirs, view))
    for ours, theirs in (("mean_change", "delta_ema"), ("energy", "drift_energy_ema")):
        if ours in memory and theirs in recording.golden:
            expected = recording.at(theirs, view)
            known = expected.isfinite() & (memory[ours] >= 0)
            # Values of up to 4: some float32 eps of them.
            near(memory[ours][known], expected[known], 1e-6, (theirs, view), relative=5e-7)


@pytest.mark.parametrize("name", FILES)
def test_rule_alone(name):
    recording = Recording(name)
    rule, memory = rule_of(name, recording.golden), {}
    for view in range(recording.views):
        update, reset = recording.update[view], recording.reset[view]
        step = advance(
            rule,
            recording.previous(view),
            recording.at("state_candidate", view),
            recording.evidence(view, rule),
            memory,
            rule.begins(recording.is_first(view)),
            update,
        )
        near(step.gate, recording.at("gate", view), 1e-6, f"gate {view}")
        expected = recording.at("state_after", view)[~reset]
        near(step.state[~reset], expected, 2e-6, f"state {view}")
        check_memories(recording, step.memory, view)
        if "selected" in recording.golden:
            assert isinstance(rule, Memix)
            candidate = recording.at("state_candidate", view)
            chosen = rule.select(
                candidate, recording.evidence(view, rule).get("projected_features")
            )
            assert torch.equal(chosen, recording.at("selected", view))
        memory = recording.after_view(step.memory, view)


def followed_until(recording: Recording) -> list[int]:
    """Of each sample, how many views a session takes as the published loop does.

    To a session the frame after one that began a segment without being written is first again, and
    the frame after a reset always is.
    """
    kind, variant = recording.name.split("_")[0], recording.name.rpartition("_")[2]
    samples, every = recording.reset.shape[1], recording.views
    if not recording.update[0].all():
        return [1] * samples
    if variant not in ("parallelreset", "batch2") and kind not in ("memix", "ttsa3r"):
        return [every] * samples
    over = recording.reset if kind == "memix" else recording.reset.any(1, keepdim=True)
    ends = [sample.nonzero().flatten().tolist() for sample in over.expand(-1, samples).T]
    return [1 + end[0] if end else every for end in ends]


def test_what_is_followed():
    """Each golden in part at least, most of them whole."""
    until = {name: followed_until(Recording(name)) for name in FILES}
    assert len(until) == 65 and all(min(ends) > 0 for ends in until.values())
    assert sum(min(ends) >= 12 for ends in until.values()) > 30
    assert until["memix_linear_ttt_batch2"] == [4, 6]


@cache
def encoded(model: Cut3r) -> Tokens:
    """All frames, as the rules' goldens share them."""
    return model.encode(Views(frames()))


@pytest.fixture
def given(monkeypatch) -> list[Evidence]:
    """What the network gives to the rule of the state, frame by frame; the last is the latest."""
    found = []

    def watched(rule, previous, candidate, evidence, *rest):
        if candidate.shape[-1] == 32:  # the pose memory's is wider
            found.append(evidence)
        return advance(rule, previous, candidate, evidence, *rest)

    monkeypatch.setattr("ttt3r.models.cut3r.network.advance", watched)
    return found


@pytest.mark.parametrize("name", FILES)
def test_through_the_network(name, given):
    """Ten layers of float32 stand between the image and the gate; their kernels differ."""
    recording = Recording(name)
    rule, model = rule_of(name, recording.golden), reference_tiny(f"tiny_{name.split('_')[1]}")
    seen, until = encoded(model), followed_until(recording)
    state, dense = model.initial_state(rule, len(until)), recording.golden.get("dense_views", ())
    for view in range(max(until)):
        at, outputs = recording.frame[view], ["pose"]
        tokens = Tokens(seen.features[at], seen.size, seen.has_image[at])
        if view in dense:
            outputs += ["points", "world"] if view == dense[-1] else ["points"]
        state, output = model.step(state, tokens, rule, outputs, recording.update[view])
        if recording.reset[view].any():
            state = model.reset(state, rule, recording.reset[view])
        found = {
            "camera_pose": output.pose_encoding,
            "gate": output.gate,
            "state_after": state.tokens,
        }
        known = {KNOWN[kind]: getattr(given[-1], kind) for kind in rule.evidence & KNOWN.keys()}
        found |= {key: value for key, value in known.items() if key in recording.golden}
        for sample in (sample for sample, end in enumerate(until) if view < end):
            for key, ours in found.items():
                expected, what = recording.at(key, view)[sample], f"{key} {view} of {sample}"
                if expected.isfinite().all():  # some loops look at nothing on first frames
                    close(ours[sample], expected, atol=1e-5 if key == "gate" else 1e-4, what=what)
        if view in dense:
            compare_maps(output, recording.golden, list(dense).index(view))


def compare_maps(output: Reading, golden, index: int) -> None:
    """Compare samples of the maps of one frame, and of the world's where they are there.

    Confidences are powers of e, and points of linear heads are mirrored by the sign of z, which
    rounding decides near 0.
    """
    part = (0, slice(1, None, 4), slice(2, None, 4))
    close_points(output.points[part], golden["pts3d_in_self_view_sub4"][index], outliers=0.005)
    close(output.confidence[part], golden["conf_self_sub4"][index], rtol=1e-3)
    if output.world_points is not None:
        close_points(output.world_points[part], golden["pts3d_in_other_view_sub4_last"])
        close(output.world_confidence[part], golden["conf_sub4_last"], rtol=1e-3)


def test_features_are_those_that_the_rules_were_fed():
    for kind in ("dpt", "linear"):
        model, golden = reference_tiny(f"tiny_{kind}"), load_npz("rules", f"features_{kind}")
        features = encoded(model).features
        close(features, golden["feat"], what="features")
        close(model.decoder_embed(features), golden["projected"], what="projected features")
