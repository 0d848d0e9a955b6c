"""What rules around another rule have in common."""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import Evidence, EvidenceKind, Rule, RuleMemory, RuleStep, Unwritten


class Wrapping(Rule):
    """A rule around the rule in its field `rule`; unless overridden, all is as that one has it.

    Attributes:
        outermost: whether no other rule may be around this one.

    Raises:
        SettingError: if the inner rule must be the outermost one.
    """

    rule: Rule
    outermost: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.rule, Wrapping) and self.rule.outermost:
            raise SettingError(
                f"{self.rule.name} must be outermost: write {self.rule.name}({self.name}(…), …)"
            )

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """The inner rule's."""
        return self.rule.evidence

    @property
    def unwritten(self) -> Unwritten:
        """The inner rule's."""
        return self.rule.unwritten

    def begins(self, is_first: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """As the inner rule has it."""
        return self.rule.begins(is_first)

    def pose_reads(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        projected: Float[Tensor, "batch patches channels"],
    ) -> Bool[Tensor, "batch tokens"] | None:
        """As the inner rule has it."""
        return self.rule.pose_reads(previous, projected)

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Start the inner rule."""
        return self.rule.start(previous, candidate, evidence)

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Apply the inner rule."""
        return self.rule.apply(previous, candidate, evidence, memory)
