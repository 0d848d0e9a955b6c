"""Similarities that fit a graph of measurements between them, of which some may be wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3, sim3

# A measurement that is right stays below this in 99 of 100 cases: χ² with 7 degrees of freedom.
RIGHT = 18.475
STEPS, ROUNDS = 50, 100
SETTLED = 1e-10
FASTER = 1.4  # by how much a round sharpens the loss (Yang et al. 2020, remark 5)


class Spread(NamedTuple):
    """How far a right measurement may be off: standard deviations.

    Attributes:
        shift: in the frame of the edge, in its unit.
        turn: in radians.
        log_scale: of the logarithm of the scale.
    """

    shift: float
    turn: float
    log_scale: float


@dataclass(frozen=True)
class Edge:
    """A measurement: where one node's content belongs as another has it.

    Attributes:
        old: number of a node.
        new: number of another.
        old_from_new: similarity that moves what the new node placed to where the old one has it.
        place: where the two meet: similarity from a camera's own frame and unit to the world. What
            is left of the measurement is judged there, so that it does not depend on how far
            from the world's origin that is.
        spread: how far a right measurement may be off.
        sure: whether it is right for certain; others are left out where they contradict.
    """

    old: int
    new: int
    old_from_new: Float[Tensor, "4 4"]
    place: Float[Tensor, "4 4"]
    spread: Spread
    sure: bool = True


class Solution(NamedTuple):
    """What fits best.

    Attributes:
        corrections: one similarity for each node, which moves what it placed; node 0 stays.
        trust: weight of each edge, from 0 (left out) to 1.
    """

    corrections: Float[Tensor, "nodes 4 4"]
    trust: Float[Tensor, " edges"]


def solve(count: int, edges: Sequence[Edge]) -> Solution:
    """Find the corrections that minimise the sum of squared errors of the edges.

    The error of an edge is the logarithm of place⁻¹ old_from_new⁻¹ C_old⁻¹ C_new place, divided by
    its spread. The minimum is found by Gauss and Newton's method, damped where a step does not help
    (Levenberg and Marquardt). Edges that are not sure have a truncated loss: above `RIGHT` they
    count for nothing. It is reached from a convex one in rounds (graduated non-convexity: Yang,
    Antonante, Tzoumas, Carlone, RA-L 2020, equations 11 to 14), so that the starting point does not
    decide which edges are believed.

    Args:
        count: number of nodes; each is to be linked with node 0 by sure edges.
        edges: the measurements, at least one.
    """
    graph = _Graph(count, edges)
    trust = torch.ones(len(edges), dtype=torch.float64)
    corrections = graph.minimise(graph.start, trust)
    loose = ~torch.tensor([edge.sure for edge in edges])
    if not bool(loose.any()):
        return Solution(corrections, trust)
    squares = graph.squares(corrections)[loose]
    if float(squares.max()) <= RIGHT:
        return Solution(corrections, trust)
    sharpness = RIGHT / (2 * float(squares.max()) - RIGHT)
    for _ in range(ROUNDS):
        trust[loose] = _truncated(squares, sharpness)
        corrections = graph.minimise(corrections, trust)
        if _decided(trust):
            break
        squares = graph.squares(corrections)[loose]
        sharpness *= FASTER
    return Solution(corrections, trust)


def _truncated(squares: Float[Tensor, " edges"], sharpness: float) -> Float[Tensor, " edges"]:
    """Weights of the truncated loss (Yang et al. 2020, equation 14); `sharpness` is their μ."""
    weights = (RIGHT * sharpness * (sharpness + 1) / squares.clamp(min=1e-300)).sqrt() - sharpness
    weights = torch.where(squares <= sharpness / (sharpness + 1) * RIGHT, 1.0, weights)
    return torch.where(squares >= (sharpness + 1) / sharpness * RIGHT, 0.0, weights)


def _decided(trust: Float[Tensor, " edges"]) -> bool:
    return bool(((trust < 1e-6) | (trust > 1 - 1e-6)).all())


class _Graph:
    """The edges as one batch."""

    def __init__(self, count: int, edges: Sequence[Edge]) -> None:
        self.count = count
        self.old, self.new = (
            torch.tensor([getattr(edge, name) for edge in edges]) for name in ("old", "new")
        )
        self.place = torch.stack([edge.place for edge in edges]).double()
        measured = torch.stack([edge.old_from_new for edge in edges]).double()
        self.before = se3.invert(self.place) @ se3.invert(measured)
        spread = [[*[e.spread.shift] * 3, *[e.spread.turn] * 3, e.spread.log_scale] for e in edges]
        self.precision = 1 / torch.tensor(spread, dtype=torch.float64)
        self.start = torch.eye(4, dtype=torch.float64).expand(count, 4, 4)

    def errors(self, corrections: Float[Tensor, "nodes 4 4"]) -> Float[Tensor, "edges 7"]:
        """What is left of each edge, in units of its spread."""
        between = se3.invert(corrections[self.old]) @ corrections[self.new]
        return sim3.log(self.before @ between @ self.place) * self.precision

    def squares(self, corrections: Float[Tensor, "nodes 4 4"]) -> Float[Tensor, " edges"]:
        """Squared length of what is left of each edge."""
        return self.errors(corrections).square().sum(1)

    def minimise(
        self, corrections: Float[Tensor, "nodes 4 4"], trust: Float[Tensor, " edges"]
    ) -> Float[Tensor, "nodes 4 4"]:
        """Go to the nearest minimum of the weighted sum of squares."""
        damping = 1e-9
        cost = float((trust * self.squares(corrections)).sum())
        for _ in range(STEPS):
            normal, gradient = self._normal_equations(corrections, trust)
            # Damped in proportion to the diagonal, which is above 0: each node has a sure edge.
            raised = normal + torch.diag(damping * normal.diagonal())
            step = torch.linalg.solve(raised, -gradient).reshape(-1, 7)
            moved = corrections.clone()
            moved[1:] = corrections[1:] @ sim3.exp(step)
            after = float((trust * self.squares(moved)).sum())
            if after < cost:
                gain, cost, corrections = cost - after, after, moved
                damping = max(damping / 10, 1e-12)
                if gain <= SETTLED * (cost + SETTLED):
                    break
            elif damping > 1e6 or float(step.abs().max()) < SETTLED:
                break
            else:
                damping *= 10
        return corrections

    def _normal_equations(
        self, corrections: Float[Tensor, "nodes 4 4"], trust: Float[Tensor, " edges"]
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, " n"]]:
        """Jᵀ W J and Jᵀ W e over the nodes but the first; changes are C exp(δ)."""
        between = se3.invert(corrections[self.old]) @ corrections[self.new]
        error = sim3.log(self.before @ between @ self.place)
        slope = self.precision[..., None] * sim3.log_derivative(error)
        back = se3.invert(self.place)
        by_new = slope @ sim3.adjoint(back)
        by_old = -slope @ sim3.adjoint(back @ se3.invert(between))
        residual = error * self.precision
        size = self.count
        normal = torch.zeros(size * size, 7, 7, dtype=torch.float64)
        gradient = torch.zeros(size, 7, dtype=torch.float64)
        parts = ((self.old, by_old), (self.new, by_new))
        for row, left in parts:
            weighted = (trust[:, None, None] * left).mT
            gradient.index_add_(0, row, (weighted @ residual[..., None]).squeeze(-1))
            for column, right in parts:
                normal.index_add_(0, row * size + column, weighted @ right)
        square = normal.reshape(size, size, 7, 7).transpose(1, 2).reshape(7 * size, 7 * size)
        return square[7:, 7:], gradient[1:].flatten()
