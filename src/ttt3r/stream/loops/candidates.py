"""Pairs of frames that may show the same place, from the encoder's features alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Thresholds are ours, and not tuned to any data: verification decides.
PER_SEGMENT = 8  # frames of each segment that are compared
MOST_FRAMES = 2048  # that are compared at all; longer runs compare fewer of each segment
LEAST_ALIKE = 0.3  # cosine of what two frames have beyond the mean of all
APART = 2  # segments that two places are apart at least: neighbours share frames anyway
PER_NEW = 2  # older segments that are tried for each


class Candidate(NamedTuple):
    """Two frames that look alike.

    Attributes:
        old, new: numbers of the frames.
        old_segment, new_segment: the segments they are in.
        alike: cosine of their centred features.
    """

    old: int
    new: int
    old_segment: int
    new_segment: int
    alike: float


def chosen_frames(segments: Int[Tensor, " frames"]) -> Int[Tensor, " chosen"]:
    """Choose some frames of each segment, evenly from its first to its last.

    Args:
        segments: segment of each frame of a run, in order.
    """
    numbers, counts = segments.unique_consecutive(return_counts=True)
    each = max(1, min(PER_SEGMENT, MOST_FRAMES // len(numbers)))
    ends = counts.cumsum(0)
    chosen = []
    for start, count in zip((ends - counts).tolist(), counts.tolist(), strict=True):
        some = torch.linspace(start, start + count - 1, min(each, count)).round().long()
        chosen.append(some.unique())
    return torch.cat(chosen)


def find_candidates(
    features: Float[Tensor, "frames channels"],
    frames: Int[Tensor, " frames"],
    segments: Int[Tensor, " frames"],
) -> list[Candidate]:
    """Find pairs of segments that may meet, the most alike first.

    Each pair of segments is judged by its two frames that are most alike. Of pairs that differ by
    a neighbour on one side only, the most alike one is kept.

    Args:
        features: mean feature of each frame.
        frames: their numbers.
        segments: the segments they are in, in order.
    """
    centred = features.double() - features.double().mean(0)
    centred = torch.nn.functional.normalize(centred, dim=1)
    alike = centred @ centred.T
    apart = segments[None, :] - segments[:, None] >= APART
    alike = torch.where(apart, alike, -torch.inf)
    found: list[Candidate] = []
    taken: dict[int, int] = {}
    order = alike.flatten().argsort(descending=True, stable=True)
    for place in order[: int(apart.sum())].tolist():
        row, column = divmod(place, len(frames))
        value = float(alike[row, column])
        if value < LEAST_ALIKE:
            break
        old, new = int(segments[row]), int(segments[column])
        if taken.get(new, 0) >= PER_NEW or any(_beside(old, new, other) for other in found):
            continue
        taken[new] = taken.get(new, 0) + 1
        found.append(Candidate(int(frames[row]), int(frames[column]), old, new, value))
    return found


def _beside(old: int, new: int, other: Candidate) -> bool:
    """Whether a pair of segments is one that was found, or its neighbour on one side."""
    steps = abs(old - other.old_segment), abs(new - other.new_segment)
    return sum(steps) <= 1
