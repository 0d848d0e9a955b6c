"""A judgement of each frame: whether the network is at home, drifts, or is lost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

from ttt3r.types import Health, Quality

HEALTHS: tuple[Health, ...] = ("in-domain", "drifting", "lost")
FIRST = 8  # frames of a segment whose confidence is what later ones are compared with
MEMORY = 8.0  # frames over which the agreement is averaged, with weights that fall off
# With the built-in weights, on held-out synthetic streams: 94 % of the frames of short stretches
# lie above the first, 99 % of the frames of unrelated scenes below the second, as
# `python -m benchmarks.health` measures.
DRIFTING, LOST = 0.78, 0.65


@dataclass(frozen=True)
class Judge:
    """What the next frame is judged against.

    Attributes:
        confident: frames of the segment with a confidence, so far.
        first: mean confidence of the first of them.
        compared: frames of the segment with an agreement, so far.
        agreement: running mean of these; NaN before the first.
    """

    confident: float = 0.0
    first: float = float("nan")
    compared: float = 0.0
    agreement: float = float("nan")

    def look(self, agreement: float, confidence: float) -> "tuple[Judge, Quality]":
        """Judge a frame.

        Args:
            agreement: of the frame with the one before; NaN if there is none.
            confidence: mean over the frame; NaN if there is none.
        """
        after = self
        if isfinite(confidence):
            if self.confident < FIRST:
                count = self.confident + 1
                first = confidence if count == 1 else self.first + (confidence - self.first) / count
                after = replace(after, first=first)
            after = replace(after, confident=self.confident + 1)
        if isfinite(agreement):
            count = min(self.compared + 1, MEMORY)
            mean = self.agreement if count > 1 else agreement
            mean += (agreement - mean) / count
            after = replace(after, compared=self.compared + 1, agreement=mean)
        relative = confidence / after.first if after.first > 0 else float("nan")
        quality = Quality(judged(after.agreement), known(agreement), known(relative))
        return after, quality


def judged(agreement: float) -> Health | None:
    """The health that a running mean of agreements stands for; None if there is none."""
    if not isfinite(agreement):
        return None
    return HEALTHS[(agreement < DRIFTING) + (agreement < LOST)]


def known(value: float) -> float | None:
    """The value, or None if it is not finite."""
    return value if isfinite(value) else None


def worst(shares: Sequence[float]) -> Health:
    """What a run is called whose frames are in-domain, drifting and lost with these shares.

    It is lost or drifting if more than a tenth of its frames are (lost ones count as drifting too).
    """
    if shares[2] > 0.1:
        return "lost"
    return "drifting" if shares[1] + shares[2] > 0.1 else "in-domain"
