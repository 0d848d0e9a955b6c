"""A rule of your own: `PYTHONPATH=. ttt3r run VIDEO --rule "examples.own_update_rule:Warm(4)"`."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ttt3r.rules import EvidenceKind, Rule, gated, register, taken


@register
@dataclass(frozen=True)
class Warm(Rule):
    """Overwrite a segment's first frames, then learn at TTT3R's rate."""

    frames: int = 8

    name: ClassVar[str] = "warm"
    reads: ClassVar[frozenset[EvidenceKind]] = frozenset({"mean_logit"})

    def start(self, previous, candidate, evidence):
        """Take the first frame, and count."""
        return taken(candidate, {"age": candidate.new_ones(len(candidate))})

    def apply(self, previous, candidate, evidence, memory):
        """Take later frames."""
        young = memory["age"] < self.frames
        beta = torch.sigmoid(evidence.get("mean_logit"))
        gate = torch.where(young[:, None], 1.0, beta)
        return gated(previous, candidate, gate, {"age": memory["age"] + 1})
