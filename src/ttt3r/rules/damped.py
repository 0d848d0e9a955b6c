"""Any rule, slowed down by a constant factor."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import Evidence, EvidenceKind, Memory, Rule, RuleStep


@dataclass(frozen=True)
class Damped:
    """S ← S + c (S' − S), where S' is what the inner rule would make of the state.

    For a gated rule this is the gate c · β: old content lives 1/c times longer.

    Args:
        rule: the rule to slow down.
        factor: c in (0, 1].

    Raises:
        SettingError: if `factor` is outside (0, 1].
    """

    rule: Rule
    factor: float

    name: ClassVar[str] = "damped"

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise SettingError(f"damped takes a rule and a factor, not {self.rule!r}")
        if not 0.0 < self.factor <= 1.0:
            raise SettingError(f"the damping factor must be in (0, 1], not {self.factor}")

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """The inner rule's."""
        return self.rule.evidence

    def start(self, state: Float[Tensor, "batch tokens channels"]) -> Memory:
        """Start the inner rule."""
        return self.rule.start(state)

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: Memory,
    ) -> RuleStep:
        """Apply the inner rule and go `factor` of its way."""
        step = self.rule.apply(previous, candidate, evidence, memory)
        state = torch.lerp(previous, step.state, self.factor)
        return RuleStep(state, step.gate * self.factor, step.memory)
