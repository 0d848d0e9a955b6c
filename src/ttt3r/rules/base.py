"""What an update rule is: a value that turns a candidate state into the next state.

The decoder proposes a candidate state Ŝ for each frame; the rule decides how much of it is taken,
S ← S + β ⊙ (Ŝ − S) in most rules. A rule is a frozen dataclass of constants, so it can be compared,
printed and stored; whatever it must remember between frames is a memory of tensors that it is
handed and hands back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EvidenceKind = Literal[
    "mean_logit", "mean_map", "attention_rows", "patch_features", "projected_features"
]
Memory = Mapping[str, Tensor]


@dataclass(frozen=True)
class Evidence:
    """What the network observed while it made the candidate; only what the rule declared.

    The logits A[l, h, n, j] are those of the state's cross-attention to the image in decoder
    layer l and head h, scaled, after position embedding and before softmax; key j = 0 is the pose
    token.

    Attributes:
        mean_logit: mean of A over l, h and j. Costs one dot product per token and head.
        mean_map: mean of A over l and h. Costs one product per layer.
        attention_rows: mean over l and h of softmax_j(A). Materialises attention, so it is slow.
        patch_features: encoder tokens f of the frame.
        projected_features: the decoder's input projection of `patch_features`.
    """

    mean_logit: Float[Tensor, "batch tokens"] | None = None
    mean_map: Float[Tensor, "batch tokens keys"] | None = None
    attention_rows: Float[Tensor, "batch tokens keys"] | None = None
    patch_features: Float[Tensor, "batch patches encoder_channels"] | None = None
    projected_features: Float[Tensor, "batch patches channels"] | None = None


class RuleStep(NamedTuple):
    """Result of applying a rule: next state, the gate it used, and its memory."""

    state: Float[Tensor, "batch tokens channels"]
    gate: Float[Tensor, "batch tokens"]
    memory: Memory


@runtime_checkable
class Rule(Protocol):
    """An update rule. Implementations are frozen dataclasses; see `rules.ttt3r` for an example."""

    name: ClassVar[str]

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """Kinds of evidence that `apply` reads; the network computes no others."""
        ...

    def start(self, state: Float[Tensor, "batch tokens channels"]) -> Memory:
        """Memory at the beginning of a segment; every tensor's first axis is the batch."""
        ...

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: Memory,
    ) -> RuleStep:
        """Combine the previous state and the candidate; pure."""
        ...


def advance(
    rule: Rule,
    previous: Float[Tensor, "batch tokens channels"],
    candidate: Float[Tensor, "batch tokens channels"],
    evidence: Evidence,
    memory: Memory,
    first: Bool[Tensor, " batch"],
    update: Bool[Tensor, " batch"],
) -> RuleStep:
    """Apply `rule` under the two conditions every rule shares, sample by sample.

    On the first frame of a segment the candidate is taken as it is (gate 1), because there is
    nothing yet worth keeping. Where `update` is false neither state nor memory changes (gate 0).
    """
    step = rule.apply(previous, candidate, evidence, memory)
    state = torch.where(first[:, None, None], candidate, step.state)
    gate = torch.where(first[:, None], torch.ones_like(step.gate), step.gate)
    return RuleStep(
        state=torch.where(update[:, None, None], state, previous),
        gate=gate * update[:, None],
        memory={
            name: torch.where(broadcast_to_rank(update, value.ndim), value, memory[name])
            for name, value in step.memory.items()
        },
    )


def broadcast_to_rank(mask: Bool[Tensor, " batch"], rank: int) -> Tensor:
    """Reshape a per-sample mask to [batch, 1, …] so that it broadcasts over `rank` axes."""
    return mask.reshape(-1, *(1,) * (rank - 1))
