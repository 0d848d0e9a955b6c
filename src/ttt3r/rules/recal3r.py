"""ReCal3R's rule: what attention is sure of, weighed against how far a token has drifted."""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
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
    gated,
    taken,
)


@dataclass(frozen=True)
class Recal3r(Rule):
    """S ← S + g ⊙ (Ŝ − S) with a gate from attention, pressure and drift (arXiv 2607.05356).

    * β of TTT3R; pressure m ← keep · m + (1 − keep) β, from 0; trust t = β e^{−m} σ(ρ − 0.2), where
      ρ = mean_j ‖D f_j − y_j‖ / mean_j ‖D f_j‖ compares what the decoder was given of each patch
      with what it made of it.
    * h: rank, from 0 to 1, of a token's attention entropy over the patches.
    * π: 1 − (rank of ‖S − S₀‖ + 1) / N, from the token that drifted most to the one that drifted
      least; ½ where all drifted alike.
    * γ = π (1 − h) / (π (1 − h) + (1 − π) h), R = 1 − γ (1 − 4 γ (1 − γ)),
      x = (1 − R) t + base · R, and g = ½ x + ½ mean_n x, clipped to [0, 1].

    Args:
        keep: share of the old pressure.
        base: gate of a token that nothing speaks for.
        entropy: how the entropies of layers and heads become one.
        as_published: let frames that must not be written raise the pressure all the same, and
            streams of a batch share one ρ.

    Raises:
        SettingError: if `keep` or `base` is outside [0, 1].
    """

    keep: float = 0.95
    base: float = 0.1
    entropy: Literal["mean", "max", "min"] = "mean"
    as_published: bool = False

    name: ClassVar[str] = "recal3r"
    published_unwritten: ClassVar[Unwritten] = "memory"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep <= 1 or not 0 <= self.base <= 1:
            raise SettingError("keep and base of recal3r must be in [0, 1]")

    @property
    def _entropy_kind(self) -> EvidenceKind:
        return cast(EvidenceKind, f"{self.entropy}_entropy")

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """The gate's logit, one entropy per token, and both ends of the decoder."""
        return frozenset({"mean_logit", "projected_features", "image_tokens", self._entropy_kind})

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Take the candidate, and remember where every token began."""
        memory = {"pressure": candidate.new_zeros(candidate.shape[:2]), "initial": previous}
        return taken(candidate, memory)

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Move each token by its recalibrated confidence."""
        beta = confidence(evidence)
        pressure = torch.lerp(beta, memory["pressure"], self.keep)
        given, made = evidence.get("projected_features"), evidence.get("image_tokens")
        over = (0, 1) if self.as_published else 1
        length = given.norm(dim=-1).mean(over, keepdim=True)
        residual = (given - made).norm(dim=-1).mean(over, keepdim=True)
        worth = torch.sigmoid(residual / (length + 1e-6) - 0.2)
        trust = beta * torch.exp(-pressure) * worth
        doubt = self._doubt(evidence.get(self._entropy_kind), previous - memory["initial"])
        gate = (1 - doubt) * trust + self.base * doubt
        gate = (0.5 * gate + 0.5 * gate.mean(dim=-1, keepdim=True)).clamp(0.0, 1.0)
        kept = {"pressure": pressure, "initial": memory["initial"]}
        return gated(previous, candidate, gate, kept)

    @staticmethod
    def _doubt(
        entropy: Float[Tensor, "batch tokens"], drift: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch tokens"]:
        """R: large where attention and drift do not agree that a token may move."""
        count, far = entropy.shape[-1], drift.norm(dim=-1)
        spread = ranks(entropy) / max(count - 1, 1)
        near = 1 - (ranks(far) + 1) / count
        alike = far.amax(dim=-1, keepdim=True) == far.amin(dim=-1, keepdim=True)
        near = torch.where(alike, 0.5, near)
        agree = near * (1 - spread)
        share = agree / (agree + (1 - near) * spread + 1e-8)
        return 1 - share * (1 - 4 * share * (1 - share))


def ranks(values: Float[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
    """Position of each value in ascending order, from 0; equal values in the order they have."""
    order = values.argsort(dim=-1, stable=True)
    places = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places).to(values.dtype)
