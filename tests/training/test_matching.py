"""Matches between patches, against a slow twin, and the losses that teach them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.toy import NETWORK, Memory
from ttt3r.geometry.camera import project
from ttt3r.geometry.se3 import apply
from ttt3r.training.data import Batch, fixed_batch
from ttt3r.training.matching import (
    AGREEMENT,
    NOTHING,
    MatchingProbe,
    descriptor_loss,
    matches,
    on_state_grid,
)


@pytest.fixture(scope="module")
def batch(clips: Memory) -> Batch:
    return fixed_batch(clips, range(4), [0, 2])


def test_matches_equal_their_slow_twin(batch: Batch) -> None:
    found = matches(batch, 16, 1)
    assert found.shape == (4, 6)
    assert (found != NOTHING).float().mean() > 0.3
    for b, index in np.ndindex(4, 6):
        row, column = divmod(index, 3)
        point = batch.points[b, 1, row * 16 + 8, column * 16 + 8]
        seen = apply(batch.world_from_camera[b, 1], point)
        expected = NOTHING
        if batch.valid[b, 1, row * 16 + 8, column * 16 + 8] and seen[2] > 0.05:
            u, v = (round(float(x)) for x in project(seen, batch.intrinsics[b]))
            if 0 <= u < 48 and 0 <= v < 32:
                there = batch.points[b, 0, v, u, 2]
                if abs(float(there - seen[2])) < AGREEMENT * float(seen[2]):
                    expected = v // 16 * 3 + u // 16
        assert int(found[b, index]) == expected


def test_a_frame_matches_itself(batch: Batch) -> None:
    found = matches(batch, 16, 0)
    own = torch.arange(6).expand_as(found)
    seen = found != NOTHING
    assert seen.any() and torch.equal(found[seen], own[seen])


def test_places_on_a_wider_grid_of_the_state() -> None:
    target = torch.tensor([[0, 2, NOTHING, 5, 3, 4]])
    same = on_state_grid(target, (32, 48), NETWORK)
    assert same is not None and same.tolist() == target.tolist()
    wide = replace(NETWORK, state_size=8, state_width=4)
    found = on_state_grid(target, (32, 48), wide)
    assert found is not None and found.tolist() == [[0, 2, NOTHING, 6, 4, 5]]
    assert on_state_grid(target, (48, 32), NETWORK) is None  # three rows of three do not fit


def test_attention_to_the_right_keys_costs_least() -> None:
    target = torch.tensor([[2, NOTHING, 0]])
    keys = torch.eye(4)[None, None].expand(1, 2, 4, 4) * 30
    right = torch.stack([torch.zeros(4), keys[0, 0, 2], keys[0, 0, 1], keys[0, 0, 0]])
    wrong = right.roll(1, 0)
    losses = []
    for queries in (right, wrong):
        probe = MatchingProbe(target, (0,))
        probe(queries[None, None].expand(1, 2, 4, 4), keys)
        losses.append(float(probe.loss()))
    assert losses[0] < 1e-3 < losses[1]


def test_only_the_layers_that_are_told_count() -> None:
    probe = MatchingProbe(torch.tensor([[1, 0]]), (1,))
    for _ in range(3):
        probe(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 2, 4))
    assert len(probe.losses) == 1


def test_no_match_costs_nothing() -> None:
    probe = MatchingProbe(torch.full((1, 3), NOTHING), (0,))
    probe(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 5, 4))
    assert probe.loss() == 0
    assert MatchingProbe(torch.full((1, 3), NOTHING), ()).loss() == 0
    assert descriptor_loss(torch.randn(1, 2, 3, 4), torch.full((1, 1, 3), NOTHING)) == 0


def test_tokens_that_are_alike_where_they_match_cost_least() -> None:
    first = torch.eye(4)[None]
    order = torch.tensor([[2, 0, 3, 1]])
    tokens = torch.stack((first, first[:, order[0]]), 1)
    good = descriptor_loss(tokens, order[:, None])
    bad = descriptor_loss(tokens, order[:, None].flip(-1))
    assert good < 1e-5 < 1 < bad
