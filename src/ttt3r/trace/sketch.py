"""Mean, least and most of numbers over time, in bounded memory: bins that double when full."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

BINS = 256  # an even number


class Row(NamedTuple):
    """One frame: for each value its mean, least and most; NaN where it is not known."""

    mean: Float64[np.ndarray, " values"]
    least: Float64[np.ndarray, " values"]
    most: Float64[np.ndarray, " values"]


class Bin(NamedTuple):
    """Some frames in a row.

    Attributes:
        known: frames in which each value was known.
        total: sum of their means.
        least: NaN where a value was never known.
        most: likewise.
    """

    known: Int64[np.ndarray, " values"]
    total: Float64[np.ndarray, " values"]
    least: Float64[np.ndarray, " values"]
    most: Float64[np.ndarray, " values"]

    @classmethod
    def of(cls, row: Row) -> "Bin":
        """A bin of one frame; what is not finite counts as not known."""
        known = np.isfinite(row.mean) & np.isfinite(row.least) & np.isfinite(row.most)
        ends = (np.where(known, end, np.nan) for end in (row.least, row.most))
        return cls(known.astype(np.int64), np.where(known, row.mean, 0.0), *ends)

    def joined(self, later: "Bin") -> "Bin":
        """This bin and the one after it as one."""
        return Bin(
            self.known + later.known,
            self.total + later.total,
            np.fmin(self.least, later.least),
            np.fmax(self.most, later.most),
        )


@dataclass(frozen=True)
class Sketch:
    """What is kept of any number of frames: at most `most` bins of equal width.

    When all bins are full, each two neighbours become one and the width doubles. Number, least and
    most of a bin are what they would be if all frames had been kept; so is the mean, up to the
    order of a sum in float64.

    Attributes:
        width: frames of a bin; the last one may have fewer.
        frames: frames taken in.
        bins: oldest first.
        most: bins at most, an even number.
    """

    width: int = 1
    frames: int = 0
    bins: tuple[Bin, ...] = ()
    most: int = BINS

    def add(self, row: Row) -> "Sketch":
        """Take in the next frame."""
        if self.frames == self.width * self.most:
            return self._halved().add(row)
        new, bins = Bin.of(row), self.bins
        if self.frames % self.width:
            bins, new = bins[:-1], bins[-1].joined(new)
        return replace(self, frames=self.frames + 1, bins=(*bins, new))

    def _halved(self) -> "Sketch":
        pairs = zip(self.bins[::2], self.bins[1::2], strict=True)
        joined = tuple(one.joined(other) for one, other in pairs)
        return replace(self, width=2 * self.width, bins=joined)

    @property
    def firsts(self) -> list[int]:
        """Number of each bin's first frame."""
        return [number * self.width for number in range(len(self.bins))]

    def column(self, values: slice) -> Bin:
        """Some values over time, [bins, values]."""
        return Bin(*(np.stack([bin[part][values] for bin in self.bins]) for part in range(4)))

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, of which the first axis of most is that of the bins."""
        numbers = torch.tensor([self.width, self.frames, self.most])
        if not self.bins:
            return {"numbers": numbers}
        whole = self.column(slice(None))
        parts = dict(zip(Bin._fields, map(torch.from_numpy, whole), strict=True))
        return {"numbers": numbers, **parts}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Sketch":
        """Read what `to_tensors` gave.

        Raises:
            KeyError, ValueError: if it is something else.
        """
        width, frames, most = tensors["numbers"].tolist()
        parts = [tensors[name].numpy() for name in Bin._fields] if frames else []
        count = -(-frames // width)
        if any(part.ndim != 2 or len(part) != count for part in parts) or count > most:
            raise ValueError("the numbers of bins do not agree")
        bins = tuple(Bin(*rows) for rows in zip(*parts, strict=True))
        return cls(width, frames, bins, most)


def means(column: Bin) -> Float64[np.ndarray, "bins values"]:
    """The mean of each value in each bin; NaN where it was never known."""
    counts = np.maximum(column.known, 1)
    return np.where(column.known > 0, column.total / counts, np.nan)
