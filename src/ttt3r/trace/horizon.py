"""How long a token keeps what it held: the effective horizon."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Horizon:
    """Frames until of a token's content less than 1/e is left, as far as its gate tells.

    Of what a token held before a frame, the share 1 − β is left after it, and of what it held k
    frames ago the product of k such shares. A stretch begins, and ends with the first frame after
    which its product is below 1/e; the length of the last whole stretch is the horizon. The next
    stretch begins there.

    Attributes:
        log_left: of each token, the logarithm of the product in the stretch at hand.
        length: frames of the stretch at hand.
        last: frames of the last whole stretch; 0 if there was none.
    """

    log_left: Float64[np.ndarray, " tokens"]
    length: Float64[np.ndarray, " tokens"]
    last: Float64[np.ndarray, " tokens"]

    @classmethod
    def none(cls, tokens: int = 0) -> "Horizon":
        """Before the first gate."""
        return cls(*(np.zeros(tokens) for _ in range(3)))

    def after(self, gate: Float64[np.ndarray, " tokens"]) -> "Horizon":
        """Take in the gate of one frame; another number of tokens begins anew."""
        before = self if len(self.last) == len(gate) else Horizon.none(len(gate))
        with np.errstate(divide="ignore"):
            log_left = before.log_left + np.log1p(-np.clip(gate, 0.0, 1.0))
        length = before.length + 1
        ends = log_left < -1.0
        return Horizon(
            np.where(ends, 0.0, log_left),
            np.where(ends, 0.0, length),
            np.where(ends, length, before.last),
        )

    def restarted(self) -> "Horizon":
        """Begin new stretches: the state was taken over whole."""
        return replace(self, log_left=0 * self.log_left, length=0 * self.length)

    @property
    def frames(self) -> Float64[np.ndarray, " tokens"]:
        """The horizon of each token; a lower bound while the stretch at hand is longer."""
        return np.maximum(self.last, self.length)

    @property
    def bounded_below(self) -> int:
        """Tokens whose horizon is only a lower bound."""
        return int((self.length > self.last).sum())
