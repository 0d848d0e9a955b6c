"""What an update rule is: a value that turns a candidate state into the next state.

The decoder proposes a candidate state Ŝ for each frame; the rule decides how much of it is taken,
S ← S + β ⊙ (Ŝ − S) in most rules. A rule is a frozen dataclass of constants, so it can be compared,
printed and stored. What it must remember between frames is a memory of tensors: `start` takes the
first frame of a segment and makes the memory, and `apply` takes every later frame.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.masks import pick
from ttt3r.values import Value

EvidenceKind = Literal[
    "mean_logit",
    "mean_map",
    "attention_rows",
    "mean_entropy",
    "max_entropy",
    "min_entropy",
    "patch_features",
    "projected_features",
    "image_tokens",
]
RuleMemory = Mapping[str, Tensor]
# What a frame that must not be written may still change.
Unwritten = Literal["nothing", "memory", "state"]


@dataclass(frozen=True)
class Evidence:
    """What the network observed while it made the candidate; only what the rule declared.

    The logits A[l, h, n, j] are those of the state's cross-attention to the image in decoder
    layer l and head h, scaled, after position embedding and before softmax; key j = 0 is the pose
    token, and keys j ≥ 1 are the patches. None of the kinds ever holds a layer's attention map
    of all heads: logits are formed for some queries at a time.

    Attributes:
        mean_logit: mean of A over l, h and j. Costs one dot product per token and head.
        mean_map: mean of A over l and h. Costs one product per layer.
        attention_rows: mean over l and h of softmax_j(A). Forms logits and their softmax.
        mean_entropy: mean over l and h of the entropy of the softmax of A over the patches
            alone, divided by the logarithm of their number, so that it lies in [0, 1]. Costs what
            `attention_rows` does.
        max_entropy: its largest value over l and h.
        min_entropy: its smallest value over l and h.
        patch_features: encoder tokens f of the frame.
        projected_features: the decoder's input projection of `patch_features`.
        image_tokens: what the decoder made of the patches: its last tokens, normalised.
    """

    mean_logit: Float[Tensor, "batch tokens"] | None = None
    mean_map: Float[Tensor, "batch tokens keys"] | None = None
    attention_rows: Float[Tensor, "batch tokens keys"] | None = None
    mean_entropy: Float[Tensor, "batch tokens"] | None = None
    max_entropy: Float[Tensor, "batch tokens"] | None = None
    min_entropy: Float[Tensor, "batch tokens"] | None = None
    patch_features: Float[Tensor, "batch patches encoder_channels"] | None = None
    projected_features: Float[Tensor, "batch patches channels"] | None = None
    image_tokens: Float[Tensor, "batch patches channels"] | None = None

    def get(self, kind: EvidenceKind) -> Tensor:
        """Return the evidence of one kind, which the rule must have declared."""
        found = getattr(self, kind)
        assert found is not None, f"the network gives {kind} only to a rule that declares it"
        return found

    def of(self, samples: slice) -> "Evidence":
        """Return what was observed of some samples of the batch."""
        seen = {kind: getattr(self, kind) for kind in get_args(EvidenceKind)}
        return Evidence(**{kind: item[samples] for kind, item in seen.items() if item is not None})


class RuleStep(NamedTuple):
    """Result of applying a rule: next state, the gate it used, and its memory."""

    state: Float[Tensor, "batch tokens channels"]
    gate: Float[Tensor, "batch tokens"]
    memory: RuleMemory


class Rule(Value, abc.ABC):
    """Base of update rules, which are frozen dataclasses; `rules.ttt3r` is an example.

    Attributes:
        name: of the rule in text.
        reads: kinds of evidence that it reads by itself.
        published_unwritten: what a frame that must not be written changes under a rule that has an
            option `as_published`, where that is set.
    """

    reads: ClassVar[frozenset[EvidenceKind]] = frozenset()
    published_unwritten: ClassVar[Unwritten] = "nothing"

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """Kinds of evidence that `start` and `apply` read; the network computes no others."""
        return self.reads

    @property
    def parts(self) -> "tuple[Rule, ...]":
        """Rules of the single samples of a batch; empty where all samples follow this one."""
        return ()

    @property
    def unwritten(self) -> Unwritten:
        """What a frame that must not be written may change all the same.

        Only "nothing" keeps what `Session.push(update=False)` promises; the others reproduce
        published code.
        """
        return self.published_unwritten if getattr(self, "as_published", False) else "nothing"

    def begins(self, is_first: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Which streams of a batch take a frame as the first of their segment; pure.

        Those that begin one (`is_first`). Anything else only reproduces published code.
        """
        return is_first

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Take the first frame of a segment, before which there is no memory; pure.

        Unless overridden, the candidate is taken as it is, for there is nothing yet worth
        keeping, and nothing is remembered. Every tensor of the memory has the batch as its
        first axis; the other axes may depend on the frame's size. `previous` is the state that
        every segment begins with.
        """
        return taken(candidate, {})

    def pose_reads(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        projected: Float[Tensor, "batch patches channels"],
    ) -> Bool[Tensor, "batch tokens"] | None:
        """Which tokens of the state the frame's pose token reads; None stands for all.

        The network asks before it decodes the frame, whose patches it hands over as projected into
        the decoder. At least one token of each sample must be read.
        """
        return None

    @abc.abstractmethod
    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Combine the previous state and the candidate; pure.

        The memory that is returned has the names, shapes and dtypes of the one handed in.

        Raises:
            SettingError: if the memory depends on the frame's size, and the size changed.
        """


def confidence(evidence: Evidence, *, of_batch: bool = False) -> Float[Tensor, "batch tokens"]:
    """Return β of TTT3R, σ(mean logit).

    Args:
        evidence: with the mean logit.
        of_batch: average the logits over the streams of the batch first, as published code does, so
            that all streams share one β.
    """
    logit = evidence.get("mean_logit")
    return torch.sigmoid(logit.mean(dim=0, keepdim=True).expand_as(logit) if of_batch else logit)


def taken(candidate: Float[Tensor, "batch tokens channels"], memory: RuleMemory) -> RuleStep:
    """Take the whole candidate: a gate of 1."""
    return RuleStep(candidate, candidate.new_ones(candidate.shape[:2]), memory)


def gated(
    previous: Float[Tensor, "batch tokens channels"],
    candidate: Float[Tensor, "batch tokens channels"],
    gate: Float[Tensor, "batch tokens"],
    memory: RuleMemory,
) -> RuleStep:
    """Go the share `gate` of the way to the candidate: S + g ⊙ (Ŝ − S)."""
    return RuleStep(torch.lerp(previous, candidate, gate[..., None]), gate, memory)


def check_size(now: Tensor, before: Tensor) -> None:
    """Compare what a rule remembers of a frame's patches with the next frame's patches.

    Raises:
        SettingError: if their numbers differ.
    """
    if now.shape != before.shape:
        raise SettingError(
            "this rule remembers what the last frame looked like, so all frames of a segment must "
            "have one size; start another session for images of another size"
        )


def advance(
    rule: Rule,
    previous: Float[Tensor, "batch tokens channels"],
    candidate: Float[Tensor, "batch tokens channels"],
    evidence: Evidence,
    memory: RuleMemory,
    is_first: Bool[Tensor, " batch"],
    update: Bool[Tensor, " batch"],
) -> RuleStep:
    """Let `rule` take a frame, sample by sample, under the conditions that every rule shares.

    The first frame of a segment goes to `Rule.start`, every later one to `Rule.apply`. Where
    `update` is false the state stays as it is (gate 0), and so does the memory, unless
    `Rule.unwritten` says otherwise. A segment's memory begins with its first frame, written or
    not: while none is written, the next frame is first again.

    Args:
        rule: how the candidate becomes the next state.
        previous: state before the frame.
        candidate: what the decoder proposes.
        evidence: of the kinds that the rule declares.
        memory: of the rule; empty until a stream of the batch has seen its first frame.
        is_first: samples that see the first frame of a segment, on the CPU.
        update: samples that may change, on the CPU.

    Raises:
        SettingError: if the rule's memory depends on the frame's size, and the size changed within
            a segment.
    """
    if rule.parts:
        return _advance_each(rule.parts, previous, candidate, evidence, memory, is_first, update)
    some_first, some_later = bool(is_first.any()), not bool(is_first.all())
    first = rule.start(previous, candidate, evidence) if some_first else None
    if first is not None and not _same_form(first.memory, memory):
        _check_all_first(first.memory, memory, is_first)
        some_later = False
    if first is not None and not some_later:
        step, kept = first, first.memory
    else:
        kept = memory if first is None else _pick(is_first, first.memory, memory)
        step = rule.apply(previous, candidate, evidence, kept)
        if first is not None:
            step = RuleStep(
                pick(is_first, first.state, step.state),
                pick(is_first, first.gate, step.gate),
                _pick(is_first, first.memory, step.memory),
            )
    writes = update | ~is_first if rule.unwritten == "state" else update
    return RuleStep(
        state=pick(writes, step.state, previous),
        gate=pick(writes, step.gate, torch.zeros_like(step.gate)),
        memory=step.memory if rule.unwritten != "nothing" else _pick(update, step.memory, kept),
    )


def _advance_each(
    rules: tuple[Rule, ...],
    previous: Float[Tensor, "batch tokens channels"],
    candidate: Float[Tensor, "batch tokens channels"],
    evidence: Evidence,
    memory: RuleMemory,
    is_first: Bool[Tensor, " batch"],
    update: Bool[Tensor, " batch"],
) -> RuleStep:
    """Let each sample follow its own rule; memories are named ``number.name``, a batch of one."""
    assert len(rules) == len(previous), "there must be a rule for each sample"
    steps: list[RuleStep] = []
    for number, rule in enumerate(rules):
        own, mark = slice(number, number + 1), f"{number}."
        kept = {n.removeprefix(mark): item for n, item in memory.items() if n.startswith(mark)}
        seen = (previous[own], candidate[own], evidence.of(own), kept, is_first[own], update[own])
        steps.append(advance(rule, *seen))
    return RuleStep(
        torch.cat([step.state for step in steps]),
        torch.cat([step.gate for step in steps]),
        {f"{n}.{name}": item for n, step in enumerate(steps) for name, item in step.memory.items()},
    )


def _same_form(one: RuleMemory, other: RuleMemory) -> bool:
    return {name: item.shape for name, item in one.items()} == {
        name: item.shape for name, item in other.items()
    }


def _check_all_first(
    begun: RuleMemory, memory: RuleMemory, is_first: Bool[Tensor, " batch"]
) -> None:
    """Check that nobody loses a memory that has the form of frames of another size."""
    if memory and not bool(is_first.all()):
        for name, item in begun.items():
            check_size(item, memory[name])


def _pick(mask: Bool[Tensor, " batch"], yes: RuleMemory, no: RuleMemory) -> RuleMemory:
    return {name: pick(mask, item, no[name]) for name, item in yes.items()}
