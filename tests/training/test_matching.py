"""Matches between patches, against a slow twin, and the loss that teaches them."""

import pytest
import torch

from ttt3r.geometry.camera import project
from ttt3r.geometry.se3 import apply, invert
from ttt3r.training.cache import Shard
from ttt3r.training.data import Batch, Clips, draw_batch
from ttt3r.training.loop import backwards
from ttt3r.training.matching import NOTHING, MatchingProbe, matches


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clips")
    shard = Shard(5, 4, 3, (48, 64), moving=0.0)
    save_file(shard.render(), folder / shard.name)
    clips = Clips(folder, [shard])
    return draw_batch(clips, 4, 2, (48, 64), torch.Generator().manual_seed(0))


def test_matches_equal_their_slow_twin(batch: Batch) -> None:
    found = matches(batch, 16)
    assert found.shape == (4, 12)
    assert (found != NOTHING).float().mean() > 0.3
    for b in range(4):
        for index in range(12):
            row, column = divmod(index, 4)
            point = batch.points[b, 1, row * 16 + 8, column * 16 + 8]
            poses = batch.world_from_camera[b]
            seen = apply(invert(poses[0]) @ poses[1], point)
            expected = NOTHING
            if batch.valid[b, 1, row * 16 + 8, column * 16 + 8] and seen[2] > 0:
                u, v = (round(float(x)) for x in project(seen, batch.intrinsics[b, 0]))
                if 0 <= u < 64 and 0 <= v < 48:
                    there = batch.points[b, 0, v, u, 2]
                    if abs(float(there - seen[2])) < 0.05 * float(seen[2]):
                        expected = v // 16 * 4 + u // 16
            assert int(found[b, index]) == expected


def test_a_frame_matches_itself(batch: Batch) -> None:
    still = Batch(*(value[:, :1].expand_as(value) for value in vars(batch).values()))
    found = matches(still, 16)
    own = torch.arange(12).expand_as(found)
    seen = found != NOTHING
    assert seen.any() and torch.equal(found[seen], own[seen])


def test_backwards_twice_is_the_same_pair(batch: Batch) -> None:
    again = backwards(backwards(batch))
    for name, value in vars(batch).items():
        assert torch.allclose(getattr(again, name), value, atol=1e-5), name


def test_attention_to_the_right_keys_costs_least() -> None:
    target = torch.tensor([[2, NOTHING, 0]])
    keys = torch.eye(4)[None, None].expand(1, 2, 4, 4) * 30
    right = torch.stack([torch.zeros(4), keys[0, 0, 2], keys[0, 0, 1], keys[0, 0, 0]])
    wrong = right.roll(1, 0)
    losses = []
    for queries in (right, wrong):
        probe = MatchingProbe(target)
        probe(queries[None, None].expand(1, 2, 4, 4), keys)
        losses.append(float(probe.loss()))
    assert losses[0] < 1e-3 < losses[1]


def test_no_match_costs_nothing() -> None:
    probe = MatchingProbe(torch.full((1, 3), NOTHING))
    probe(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 5, 4))
    assert probe.loss() == 0
