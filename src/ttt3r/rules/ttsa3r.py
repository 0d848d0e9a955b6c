"""TTSA3R's rule: how much a token changed, and where the image changed."""

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
    check_size,
    gated,
    taken,
)


@dataclass(frozen=True)
class Ttsa3r(Rule):
    """S ← S + g ⊙ (Ŝ − S) with a temporal and a spatial factor (TTSA3R, arXiv 2601.22615).

    g_n = σ(d_n / mean_n d − threshold) · σ(max_j |Ā[n, j]| (1 − cos(f_j, f'_j))), where
    d_n = ‖Ŝ_n − Ŝ'_n‖ compares the candidate with the one before, Ā is the mean map over the
    patches j, and f, f' are the encoder's features of this frame and of the one before.
    Where no token changed at all, zero is divided by zero, and d_n / mean d is 0.

    Args:
        threshold: how large a change is, relative to the mean, that opens the first factor half.
        as_published: let frames that must not be written move the state all the same, and the
            state become NaN where no token changed at all.
    """

    threshold: float = 1.5
    as_published: bool = False

    name: ClassVar[str] = "ttsa3r"
    published_unwritten: ClassVar[Unwritten] = "state"
    reads: ClassVar[frozenset[EvidenceKind]] = frozenset({"mean_map", "patch_features"})

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Take the candidate, and remember it and the frame's features."""
        return taken(candidate, self._remember(candidate, evidence))

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Move each token by the product of both factors."""
        features, before = evidence.get("patch_features"), memory["features"]
        check_size(features, before)
        change = (candidate - memory["candidate"]).norm(dim=-1)
        least = 0.0 if self.as_published else 1e-30
        relative = change / change.mean(dim=-1, keepdim=True).clamp(min=least)
        temporal = torch.sigmoid(relative - self.threshold)
        moved = 1 - torch.cosine_similarity(features, before, dim=-1)
        weighted = evidence.get("mean_map")[..., 1:].abs() * moved[:, None]
        spatial = torch.sigmoid(weighted.amax(dim=-1))
        return gated(previous, candidate, temporal * spatial, self._remember(candidate, evidence))

    @staticmethod
    def _remember(candidate: Tensor, evidence: Evidence) -> RuleMemory:
        return {"candidate": candidate, "features": evidence.get("patch_features")}
