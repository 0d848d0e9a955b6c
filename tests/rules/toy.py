"""A rule that is not in the package: it remembers what the last frame looked like."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ttt3r.rules import Evidence, EvidenceKind, Rule, RuleMemory, RuleStep, gated, taken
from ttt3r.rules.base import check_size


@dataclass(frozen=True)
class LastLook(Rule):
    """S ← S + β (Ŝ − S), β = 1 − weight · σ(mean_j cos(f_j, f'_j)), f' of the frame before."""

    weight: float = 1.0

    name: ClassVar[str] = "lastlook"
    reads: ClassVar[frozenset[EvidenceKind]] = frozenset({"patch_features"})

    def start(
        self, previous: torch.Tensor, candidate: torch.Tensor, evidence: Evidence
    ) -> RuleStep:
        return taken(candidate, {"features": evidence.get("patch_features")})

    def apply(
        self,
        previous: torch.Tensor,
        candidate: torch.Tensor,
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        now, before = evidence.get("patch_features"), memory["features"]
        check_size(now, before)
        alike = torch.cosine_similarity(now, before, dim=2).mean(1, keepdim=True)
        gate = (1 - self.weight * torch.sigmoid(alike)).expand(candidate.shape[:2])
        return gated(previous, candidate, gate, {"features": now})
