"""How uncertain means and ratios over sequences are: the bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

DRAWS, SHARE = 4000, 0.95


class Interval(NamedTuple):
    """A mean over sequences, and where it lies for other draws of as many sequences."""

    mean: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """As tables show it."""
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    @property
    def verdict(self) -> str:
        """What a ratio of errors says of a rule."""
        if self.high < 1:
            return "better"
        return "worse" if self.low > 1 else "no difference seen"


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean and its percentile interval over draws with replacement.

    Args:
        values: one per sequence.
        seed: of the draws.
    """
    given = np.array(values, dtype=np.float64)
    return _interval(float(given.mean()), given[_draws(len(given), seed)].mean(axis=1))


def bootstrap_ratio(pairs: Float[np.ndarray, "sequences 2"], seed: int = 0) -> Interval:
    """Return the mean of the first numbers over the mean of the second ones, and its interval.

    Args:
        pairs: two numbers per sequence, which are drawn together.
        seed: of the draws.
    """
    given = np.asarray(pairs, dtype=np.float64)
    first, second = given.mean(axis=0)
    means = given[_draws(len(given), seed)].mean(axis=1)
    return _interval(float(first / second), means[:, 0] / means[:, 1])


def geometric(pairs: Float[np.ndarray, "sequences 2"], seed: int = 0) -> Interval:
    """Return the geometric mean of first over second numbers, and its interval.

    Args:
        pairs: two numbers above 0 per sequence.
        seed: of the draws.
    """
    first, second = np.asarray(pairs, dtype=np.float64).T
    logs = bootstrap(np.log(first / second).tolist(), seed)
    return Interval(*(float(np.exp(value)) for value in logs))


def _draws(count: int, seed: int) -> Int[np.ndarray, "draws sequences"]:
    return np.random.default_rng(seed).choice(count, (DRAWS, count))


def _interval(mean: float, drawn: Float[np.ndarray, " draws"]) -> Interval:
    edge = (1 - SHARE) / 2
    low, high = np.quantile(drawn, (edge, 1 - edge))
    return Interval(mean, float(low), float(high))
