"""TTT3R's rule: the alignment confidence between state and frame is the learning rate."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ttt3r.rules.base import (
    Evidence,
    EvidenceKind,
    Rule,
    RuleMemory,
    RuleStep,
    confidence,
    gated,
)


@dataclass(frozen=True)
class Ttt3r(Rule):
    """S ← S + β ⊙ (Ŝ − S) with β = σ(mean logit) per token (TTT3R, arXiv 2509.26645, section 4).

    The mean runs over layers, heads and all keys of the state's cross-attention. As
    mean_j ⟨q, k_j⟩ = ⟨q, mean_j k_j⟩, no attention map is needed for it.

    Args:
        as_published: average the logits over the streams of a batch too, which then share one β.
    """

    as_published: bool = False

    name: ClassVar[str] = "ttt3r"
    reads: ClassVar[frozenset[EvidenceKind]] = frozenset({"mean_logit"})

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Move each token towards the candidate by its own confidence."""
        gate = confidence(evidence, of_batch=self.as_published)
        return gated(previous, candidate, gate, memory)
