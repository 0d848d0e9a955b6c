"""CUT3R's rule: every frame replaces the state."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ttt3r.rules.base import Evidence, Rule, RuleMemory, RuleStep, taken


@dataclass(frozen=True)
class Overwrite(Rule):
    """S ← Ŝ, that is β = 1 (CUT3R, arXiv 2501.12387, section 3)."""

    name: ClassVar[str] = "overwrite"

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Take the candidate."""
        return taken(candidate, memory)
