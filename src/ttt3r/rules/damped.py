"""Any rule, slowed down by a constant factor."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import Evidence, Rule, RuleMemory, RuleStep
from ttt3r.rules.wrapping import Wrapping


@dataclass(frozen=True)
class Damped(Wrapping):
    """S ← S + c (S' − S), where S' is what the inner rule would make of the state.

    For a gated rule this is the gate c · β: old content lives 1/c times longer. The first frame of
    a segment is left to the inner rule.

    Args:
        rule: the rule to slow down.
        factor: c in (0, 1].

    Raises:
        SettingError: if `rule` is not a rule, or `factor` is outside (0, 1].
    """

    rule: Rule
    factor: float

    name: ClassVar[str] = "damped"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.factor <= 1.0:
            raise SettingError(f"the damping factor must be in (0, 1], not {self.factor}")

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Apply the inner rule and go `factor` of its way."""
        step = self.rule.apply(previous, candidate, evidence, memory)
        state = torch.lerp(previous, step.state, self.factor)
        return RuleStep(state, step.gate * self.factor, step.memory)
