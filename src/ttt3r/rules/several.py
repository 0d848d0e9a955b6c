"""A rule for each sample of a batch, so that one batch compares rules."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.rules.base import Evidence, EvidenceKind, Rule, RuleMemory, RuleStep


@dataclass(frozen=True)
class Several(Rule):
    """Sample i of a batch follows rule i; what the decoders compute is shared.

    Not a rule for users, and in no registry: it has no meaning for a single stream. Its memories
    are batches of one, so a state under it can be stepped, but neither saved nor reset in part.

    Args:
        rules: one for each sample.
    """

    rules: tuple[Rule, ...]

    name: ClassVar[str] = "several"

    @property
    def parts(self) -> tuple[Rule, ...]:
        """The rules."""
        return self.rules

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """What any of the rules reads."""
        return frozenset().union(*(rule.evidence for rule in self.rules))

    def begins(self, is_first: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Each sample as its rule has it."""
        parts = zip(self.rules, is_first.split(1), strict=True)
        return torch.cat([rule.begins(first) for rule, first in parts])

    def pose_reads(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        projected: Float[Tensor, "batch patches channels"],
    ) -> Bool[Tensor, "batch tokens"] | None:
        """Each sample as its rule has it; None if no rule confines anything."""
        parts = zip(self.rules, previous.split(1), projected.split(1), strict=True)
        read = [rule.pose_reads(state, patches) for rule, state, patches in parts]
        if all(part is None for part in read):
            return None
        whole = previous.new_ones(previous[:1].shape[:2], dtype=torch.bool)
        return torch.cat([whole if part is None else part for part in read])

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Never called: `rules.advance` asks the parts."""
        raise NotImplementedError("each sample has a rule of its own, see `parts`")
