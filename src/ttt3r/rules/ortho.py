"""A third-party rule: hold back the part of a change that goes on in its usual direction."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import (
    Evidence,
    EvidenceKind,
    Rule,
    RuleMemory,
    RuleStep,
    Unwritten,
    confidence,
    taken,
)


@dataclass(frozen=True)
class Ortho(Rule):
    """S ← S + β ⊙ (a (δ − δ∥) + b δ∥), with β of TTT3R, δ = Ŝ − S and δ∥ = ⟨δ, d⟩ d.

    d is the usual direction of a token's changes: a running mean of δ/‖δ‖, kept at length 1, which
    takes in the new change first. On the second frame of a segment there is none yet, and the
    whole change counts as new. Published as "ortho" in third-party notes on TTT3R, without a paper.

    The share E = cos²(δ, d) of a change that lies along d may set b anew for each token, by its
    running mean Ē: b + (a − b) Ē ("linear"), or a where Ē > ½, else b ("threshold").

    Args:
        across: a, the factor of what is new.
        along: b, the factor of what goes on.
        keep: share of the old value in the running means.
        adaptive: how Ē sets b; "none" leaves it.
        as_published: let frames that must not be written move d and Ē all the same, and streams
            of a batch share one β, see `Ttt3r`.

    Raises:
        SettingError: if a factor or `keep` is outside [0, 1].
    """

    across: float = 0.5
    along: float = 0.05
    keep: float = 0.95
    adaptive: Literal["none", "linear", "threshold"] = "none"
    as_published: bool = False

    name: ClassVar[str] = "ortho"
    published_unwritten: ClassVar[Unwritten] = "memory"
    reads: ClassVar[frozenset[EvidenceKind]] = frozenset({"mean_logit"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= share <= 1 for share in (self.across, self.along, self.keep)):
            raise SettingError("across, along and keep of ortho must be in [0, 1]")

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Take the candidate; no direction yet (zero), and no energy (-1)."""
        memory = {
            "direction": torch.zeros_like(candidate),
            "energy": candidate.new_full(candidate.shape[:2], -1.0),
        }
        return taken(candidate, memory)

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Split each token's change along and across its usual direction."""
        change, before = candidate - previous, memory["direction"]
        unit = F.normalize(change, dim=-1, eps=1e-8)
        direction = torch.lerp(unit, before, self.keep)
        direction = F.normalize(direction, dim=-1, eps=1e-8)
        known = before.square().sum(-1, keepdim=True) > 0
        along = (change * direction).sum(-1, keepdim=True) * direction * known
        energy = self._energy(unit, direction, memory["energy"], known[..., 0])
        moved = self.across * (change - along) + self._along(energy)[..., None] * along
        gate = confidence(evidence, of_batch=self.as_published)
        kept = {"direction": direction, "energy": energy}
        return RuleStep(previous + gate[..., None] * moved, gate, kept)

    def _energy(self, unit: Tensor, direction: Tensor, before: Tensor, known: Tensor) -> Tensor:
        """Running mean of the share of changes that goes on; -1 while no direction is known."""
        now = (unit * direction).sum(-1).square()
        mean = torch.where(before < 0, now, torch.lerp(now, before, self.keep))
        return torch.where(known, mean, before)

    def _along(self, energy: Tensor) -> Tensor:
        """The factor b of each token."""
        if self.adaptive == "none":
            return torch.full_like(energy, self.along)
        if self.adaptive == "linear":
            return self.along + (self.across - self.along) * energy.clamp(min=0.0)
        return torch.where(energy > 0.5, self.across, self.along).to(energy)
