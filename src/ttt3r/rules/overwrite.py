"""CUT3R's rule: every frame replaces the state."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ttt3r.rules.base import Evidence, EvidenceKind, Memory, RuleStep


@dataclass(frozen=True)
class Overwrite:
    """S ← Ŝ, that is β = 1 (CUT3R, arXiv 2501.12387, section 3)."""

    name: ClassVar[str] = "overwrite"
    evidence: ClassVar[frozenset[EvidenceKind]] = frozenset()

    def start(self, state: Float[Tensor, "batch tokens channels"]) -> Memory:
        """Nothing to remember."""
        return {}

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: Memory,
    ) -> RuleStep:
        """Take the candidate."""
        return RuleStep(candidate, candidate.new_ones(candidate.shape[:2]), memory)
