"""Closes the loops of a run: finds places that were seen twice, and moves the segments to fit."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3, sim3
from ttt3r.geometry.pose_graph import Edge, Spread, solve
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.runs.placement import Placement
from ttt3r.runs.reader import Run
from ttt3r.stream.loops.candidates import APART, chosen_frames, find_candidates
from ttt3r.stream.loops.remembered import Remembered
from ttt3r.stream.loops.verify import Loop, place_of, verify

logger = logging.getLogger("ttt3r.loops")

# How far measurements that are right may be off: shift as a share of the median depth, turn in
# radians, logarithm of the scale. Ours, and not tuned to any data. A join bears what drifted within
# its segments too, so it is half as sure as a loop, which was seen from both sides.
JOIN, LOOP = Spread(0.1, 0.04, 0.06), Spread(0.05, 0.02, 0.03)


class Gap(NamedTuple):
    """How far two segments are apart where they should meet.

    Attributes:
        shift: in the run's unit.
        turn: in degrees.
        scale: factor, at least 1.
    """

    shift: float
    turn: float
    scale: float

    def __str__(self) -> str:
        return f"{self.shift:.3g} apart, turned by {self.turn:.2g}°, scale {self.scale:.3f}"


@dataclass(frozen=True)
class ClosedLoop:
    """A place that was seen twice.

    Attributes:
        old, new: numbers of the frames.
        before, after: how far their segments were apart there, and are now.
        used: whether it moved the run; one that contradicts the others does not.
    """

    old: int
    new: int
    before: Gap
    after: Gap
    used: bool


@dataclass(frozen=True)
class Closing:
    """What was found.

    Attributes:
        loops: the places that were seen twice.
        tried: how many pairs of frames looked alike.
    """

    loops: tuple[ClosedLoop, ...]
    tried: int

    @property
    def used(self) -> tuple[ClosedLoop, ...]:
        """The loops that moved the run."""
        return tuple(loop for loop in self.loops if loop.used)


def close_loops(
    run: Run,
    model: StreamModel | SetModel,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Closing:
    """Find the loops of a run and move its segments to fit, in `placement.json`.

    Frames stay as they are. What an earlier closing did is done anew; a similarity of the whole run
    is kept. Without a loop the segments are where the stream placed them.

    Args:
        run: a run with points and poses; with fewer than three segments there is nothing to close.
        model: the network that made it.
        progress: told what goes on, how much of it is done, and how much there is.

    Raises:
        RunError: if another network made the run, or it lacks points or poses.
        SettingError: if the network looks once at each segment, and so remembers none.
    """
    remembered = Remembered(run, model)
    count = int(remembered.segments.max()) + 1 if len(remembered.segments) else 0
    if count <= APART:
        return Closing((), 0)
    frames = chosen_frames(remembered.segments)
    features = []
    for number, index in enumerate(frames.tolist()):
        features.append(remembered.encode(index).features[0].float().mean(0).cpu())
        progress("comparing", number + 1, len(frames))
    candidates = find_candidates(torch.stack(features), frames, remembered.segments[frames])
    found: list[Loop] = []
    for number, candidate in enumerate(candidates):
        loop = verify(remembered, candidate)
        logger.debug("%s: %s", candidate, "no loop" if loop is None else "a loop")
        found += [] if loop is None else [loop]
        progress("verifying", number + 1, len(candidates))
    corrections, loops = _corrected(count, _joins(remembered, count), found)
    placement = Placement.read(run.folder)
    used = sum(loop.used for loop in loops)
    text = f"{used} {'loop' if used == 1 else 'loops'} closed" if used else ""
    moved = tuple(corrections) if used else ()
    replace(placement, segments=moved, segments_text=text).write(run.folder)
    return Closing(loops, len(candidates))


def _joins(remembered: Remembered, count: int) -> list[Edge]:
    """The joins of the stream itself, each where the older segment ends."""
    edges = []
    for segment in range(count - 1):
        place = torch.eye(4, dtype=torch.float64)
        for index in reversed(remembered.frames_of(segment)):
            found = place_of(remembered.frame(index))
            if found is not None:
                place = found
                break
        edges.append(Edge(segment, segment + 1, torch.eye(4).double(), place, JOIN))
    return edges


def _corrected(
    count: int, joins: list[Edge], found: Sequence[Loop]
) -> tuple[Float[Tensor, "segments 4 4"], tuple[ClosedLoop, ...]]:
    """Corrections of all segments, and what became of the loops."""
    edges = list(joins)
    for loop in found:
        old, new = loop.candidate.old_segment, loop.candidate.new_segment
        for said in loop.old_from_new:
            edges.append(Edge(old, new, said, loop.place, LOOP, sure=False))
    if not found:
        return torch.eye(4, dtype=torch.float64).expand(count, 4, 4), ()
    corrections, trust = solve(count, edges)
    closed = []
    for number, loop in enumerate(found):
        candidate = loop.candidate
        own = trust[len(joins) + 2 * number :][:2]
        nowhere = torch.eye(4, dtype=torch.float64)
        moved = corrections[candidate.old_segment], corrections[candidate.new_segment]
        gaps = _gap(loop, nowhere, nowhere), _gap(loop, *moved)
        closed.append(ClosedLoop(candidate.old, candidate.new, *gaps, bool((own > 0.5).any())))
    return corrections, tuple(closed)


def _gap(loop: Loop, old: Float[Tensor, "4 4"], new: Float[Tensor, "4 4"]) -> Gap:
    """How far two segments are apart where the newer frame was taken, by what it saw itself."""
    measured = se3.invert(loop.old_from_new[0])
    left = se3.invert(loop.place) @ measured @ se3.invert(old) @ new @ loop.place
    vector = sim3.log(left)
    unit = float(se3.similarity_scale(loop.place))
    return Gap(
        unit * float(left[:3, 3].norm()),
        math.degrees(float(vector[3:6].norm())),
        math.exp(abs(float(vector[6]))),
    )
