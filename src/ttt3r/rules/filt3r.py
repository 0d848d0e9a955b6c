"""FILT3R's rule: a Kalman filter per token, whose noise follows how much the token changes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import Evidence, Rule, RuleMemory, RuleStep, gated, taken

TINY = 1e-6


@dataclass(frozen=True)
class Filt3r(Rule):
    """S ← S + K ⊙ (Ŝ − S) with a scalar Kalman gain per token (FILT3R, arXiv 2603.18493).

    With δ_n = ‖Ŝ_n − Ŝ'_n‖ against the candidate before, and e a running mean of mean_n δ:
    q = q_min + (q_max − q_min) σ(α (δ/e − τ)); p⁻ = γ p + q; K = p⁻ / (p⁻ + r), clipped; and
    p ← (1 − K)² p⁻ + K² r. With the published constants q leaves q_min only for tokens that
    change by more than 2.75 e; all others share the gains 1, .603, .384, .288, … → .132.

    Args:
        variance: p at the start.
        growth: γ, by which the variance grows from frame to frame.
        least_noise: q_min.
        most_noise: q_max.
        slope: α.
        threshold: τ, in units of the running mean.
        measurement: r, the noise of a candidate.
        rate: share of the new value in the running mean.
        floor: least value of the running mean.
        least_gain: of K.
        most_gain: of K.
        as_published: let the streams of a batch begin together: where one begins a segment, the
            filters of all start anew, and all take the frame whole.

    Raises:
        SettingError: if the gains or a rate are outside [0, 1], or a noise is negative.
    """

    variance: float = 1.5
    growth: float = 1.0
    least_noise: float = 0.02
    most_noise: float = 0.5
    slope: float = 20.0
    threshold: float = 3.0
    measurement: float = 1.0
    rate: float = 0.05
    floor: float = 0.01
    least_gain: float = 0.01
    most_gain: float = 0.99
    as_published: bool = False

    name: ClassVar[str] = "filt3r"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.least_gain <= self.most_gain <= 1 or not 0 <= self.rate <= 1:
            raise SettingError("gains and rates must be in [0, 1], the least gain below the most")
        if min(self.variance, self.growth, self.least_noise, self.measurement, self.floor) < 0:
            raise SettingError("variances, noises and the floor must not be negative")
        if self.most_noise < self.least_noise:
            raise SettingError("the most noise must not be below the least")

    def begins(self, is_first: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """See `Rule.begins`; as published, all streams where one does."""
        return is_first.any().expand_as(is_first) if self.as_published else is_first

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Take the candidate and remember it; there is no running mean yet, which -1 says."""
        memory = {
            "variance": candidate.new_full(candidate.shape[:2], self.variance),
            "mean_change": candidate.new_full(candidate.shape[:1], -1.0),
            "candidate": candidate,
        }
        return taken(candidate, memory)

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Predict the variance, and move each token by its gain."""
        change = (candidate - memory["candidate"]).norm(dim=-1)
        now, before = change.mean(dim=-1), memory["mean_change"]
        mean = torch.where(before < 0, now, torch.lerp(before, now, self.rate))
        mean = mean.clamp(min=self.floor)
        surprise = self.slope * (change / (mean[:, None] + TINY) - self.threshold)
        span = self.most_noise - self.least_noise
        predicted = (
            self.growth * memory["variance"] + self.least_noise + span * torch.sigmoid(surprise)
        )
        noise = max(self.measurement, TINY)
        gain = (predicted / (predicted + noise + TINY)).clamp(self.least_gain, self.most_gain)
        variance = (1 - gain).square() * predicted + gain.square() * noise
        kept = {
            "variance": variance.clamp(min=TINY),
            "mean_change": mean,
            "candidate": candidate,
        }
        return gated(previous, candidate, gain, kept)
