"""Pose graphs of similarities: against scipy, with a loop, with a loop that is wrong."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ttt3r.geometry import se3, sim3
from ttt3r.geometry.pose_graph import RIGHT, Edge, Spread, _truncated, solve

SPREAD = Spread(0.05, 0.02, 0.02)


def vectors(count: int, seed: int, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, 7, generator=generator, dtype=torch.float64)


def chain(count: int, drift: Tensor) -> list[Edge]:
    """Joins of segments, each placed far from the origin, that say `drift` of each other."""
    places = sim3.exp(vectors(count, 1, 1.0))
    return [
        Edge(number, number + 1, sim3.exp(drift[number]), places[number], SPREAD)
        for number in range(count - 1)
    ]


def errors_by_hand(corrections: Tensor, edges: list[Edge]) -> Tensor:
    said = []
    for edge in edges:
        left = (
            se3.invert(edge.place)
            @ se3.invert(edge.old_from_new)
            @ se3.invert(corrections[edge.old])
            @ corrections[edge.new]
            @ edge.place
        )
        spread = torch.tensor(
            [*[edge.spread.shift] * 3, *[edge.spread.turn] * 3, edge.spread.log_scale]
        )
        said.append(sim3.log(left) / spread.double())
    return torch.stack(said)


def test_without_loops_the_measurements_are_met():
    edges = chain(6, vectors(5, 0, 0.1))
    found = solve(6, edges).corrections
    assert torch.equal(found[0], torch.eye(4).double())
    assert float(errors_by_hand(found, edges).abs().max()) < 1e-5


def test_equals_scipy():
    """The slow twin: the same errors, derivatives by differences, another program's steps."""
    optimize = pytest.importorskip("scipy.optimize")
    edges = chain(3, vectors(2, 0, 0.05))
    edges.append(Edge(0, 2, sim3.exp(vectors(1, 2, 0.1)[0]), edges[1].place, SPREAD))

    def placed(flat: np.ndarray) -> Tensor:
        moved = sim3.exp(torch.from_numpy(flat).reshape(-1, 7))
        return torch.cat([torch.eye(4).double()[None], moved])

    best = optimize.least_squares(
        lambda flat: errors_by_hand(placed(flat), edges).flatten().numpy(),
        np.zeros(14),
        xtol=1e-12,
        ftol=1e-12,
    )
    found = solve(3, edges).corrections
    # Both stop where the sum hardly changes; near a minimum that is the root of its precision.
    torch.testing.assert_close(found, placed(best.x), atol=1e-5, rtol=0)


def test_a_loop_spreads_what_it_finds_over_the_joins():
    """Nine joins that say nothing moved, and one loop: each takes about a tenth."""
    edges = chain(10, torch.zeros(9, 7).double())
    edges = [Edge(e.old, e.new, e.old_from_new, torch.eye(4).double(), e.spread) for e in edges]
    gap = torch.tensor([0.3, 0, 0, 0, 0.2, 0, 0.1], dtype=torch.float64)
    loop = Edge(0, 9, sim3.exp(gap), torch.eye(4).double(), SPREAD, sure=False)
    found = solve(10, [*edges, loop])
    assert found.trust.tolist() == [1.0] * 10
    torch.testing.assert_close(sim3.log(found.corrections[9]), 0.9 * gap, atol=0.01, rtol=0)


@pytest.mark.parametrize("wrong", [1, 2])
def test_loops_that_contradict_the_rest_are_left_out(wrong):
    truth = sim3.exp(vectors(8, 5, 0.08))
    truth[0] = torch.eye(4)
    joins = chain(8, torch.zeros(7, 7).double())
    edges = []
    for edge in joins:  # almost right: the truth is within a few spreads of them
        right = se3.invert(truth[edge.old]) @ truth[edge.new]
        off = sim3.exp(sim3.log(right) + vectors(1, edge.old, 0.02)[0])
        edges.append(Edge(edge.old, edge.new, off, torch.eye(4).double(), SPREAD))
    for old, new in ((0, 6), (0, 7), (1, 7)):
        right = se3.invert(truth[old]) @ truth[new]
        edges.append(Edge(old, new, right, torch.eye(4).double(), SPREAD, sure=False))
    for number in range(wrong):
        far = sim3.exp(torch.tensor([2.0, -1, 1, 0.5, 1.0, 0.3, 0.5]).double() * (number + 1))
        edges.append(Edge(number, 5, far, torch.eye(4).double(), SPREAD, sure=False))
    found = solve(8, edges)
    assert found.trust[7:].tolist() == [1.0] * 3 + [0.0] * wrong
    off = sim3.log(se3.invert(truth) @ found.corrections)[1:].abs().max()
    assert float(off) < 0.1


def test_weights_go_from_all_to_none():
    squares = torch.tensor([0.0, 1.0, 0.9 * RIGHT, 5 * RIGHT, 100 * RIGHT], dtype=torch.float64)
    for sharpness in (0.01, 1.0, 100.0):
        weights = _truncated(squares, sharpness)
        assert bool(((weights >= 0) & (weights <= 1)).all()) and float(weights[0]) == 1.0
        assert bool((weights.diff() <= 0).all())
    assert _truncated(squares, 1e6).round().tolist() == [1, 1, 1, 0, 0]
