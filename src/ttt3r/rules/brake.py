"""A third-party rule: slow down where the state keeps moving the same way."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.rules.base import (
    Evidence,
    EvidenceKind,
    Rule,
    RuleMemory,
    RuleStep,
    Unwritten,
    confidence,
    gated,
    taken,
)


@dataclass(frozen=True)
class Brake(Rule):
    """S ← S + β k ⊙ (Ŝ − S), with β of TTT3R and k = σ(−τ cos(δ, δ')) per token.

    δ = Ŝ − S is the change that the decoder proposes, δ' the one that it proposed for the frame
    before; the factor is ½ on the second frame of a segment, which has no δ'. Published as
    "momentum" in third-party notes on TTT3R, without a paper.

    Args:
        strength: τ; 2 in the published code, 1 in the runs of its published table.
        as_published: let frames that must not be written replace δ' all the same, and streams of
            a batch share one β, see `Ttt3r`.
    """

    strength: float = 2.0
    as_published: bool = False

    name: ClassVar[str] = "brake"
    published_unwritten: ClassVar[Unwritten] = "memory"
    reads: ClassVar[frozenset[EvidenceKind]] = frozenset({"mean_logit"})

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Take the candidate; a change of zero is at right angles to all, which makes k ½."""
        return taken(candidate, {"change": torch.zeros_like(candidate)})

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Move each token by its confidence, braked."""
        change = candidate - previous
        alike = torch.cosine_similarity(change, memory["change"], dim=-1)
        brake = torch.sigmoid(-self.strength * alike)
        gate = confidence(evidence, of_batch=self.as_published) * brake
        return gated(previous, candidate, gate, {"change": change})
