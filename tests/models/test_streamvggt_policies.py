"""Cache policies: what they keep, and how they are written."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.models.streamvggt.cache import frame_similarity
from ttt3r.models.streamvggt.policies import (
    POLICIES,
    CachePolicy,
    Diverse,
    KeepAll,
    Window,
)


def never():
    raise AssertionError("this policy has no use for similarities")


def similarity_of(points: torch.Tensor) -> torch.Tensor:
    return -torch.cdist(points, points)


def most_diverse(alike: torch.Tensor, frames: int) -> list[int]:
    """Slow twin: look at every pair, again and again."""
    left, last = list(range(len(alike))), len(alike) - 1
    while len(left) > frames:
        pairs = [(i, j) for i in left for j in left if i < j and (i, j) != (0, last)]
        older, newer = max(pairs, key=lambda pair: (float(alike[pair]), -pair[0], -pair[1]))
        left.remove(newer if older == 0 else older)
    return left


def test_all_and_window():
    assert KeepAll().keep(4, never) == [0, 1, 2, 3] and KeepAll().frames is None
    assert Window(3).keep(4, never) == [0, 2, 3]
    assert Window(2).keep(6, never) == [0, 5]


@given(st.integers(3, 9), st.integers(2, 8), st.integers(0, 1000))
def test_diverse_equals_its_slow_twin(count, frames, seed):
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    alike = similarity_of(points)
    kept = Diverse(frames).keep(count, lambda: alike)
    assert kept == most_diverse(alike, frames)
    assert kept == sorted(set(kept)) and len(kept) == min(count, frames)
    assert {0, count - 1} <= set(kept)


def test_diverse_spreads_out():
    """Along a line, with the camera waiting at 1, what is left covers the line."""
    places = torch.tensor([0.0, 1.0, 1.01, 1.02, 2.0, 3.0, 3.1])[:, None]
    assert Diverse(4).keep(7, lambda: similarity_of(places)) == [0, 3, 4, 6]


def test_similarity_is_the_mean_cosine():
    keys = [torch.randn(2, 5, 3, 4) for _ in range(3)]
    found = frame_similarity(keys)
    for i in range(5):
        for j in range(5):
            cosines = [
                torch.cosine_similarity(block[head, i, token], block[head, j, token], dim=0)
                for block in keys
                for head in range(2)
                for token in range(3)
            ]
            torch.testing.assert_close(found[i, j], torch.stack(cosines).mean())


@pytest.mark.parametrize(
    ("text", "policy"),
    [("keep_all", KeepAll()), ("window(32)", Window(32)), ("diverse(frames=8)", Diverse(8))],
)
def test_policies_are_read_and_written(text, policy):
    assert POLICIES.parse(text) == policy and POLICIES.parse(policy) is policy
    assert POLICIES.parse(values.to_text(policy)) == policy
    assert isinstance(policy, CachePolicy) and POLICIES.classes[policy.name] is type(policy)


@pytest.mark.parametrize("text", ["", "windows(3)", "window", "window(1)", "window('a')", "3"])
def test_policies_that_make_no_sense(text):
    with pytest.raises(SettingError):
        POLICIES.parse(text)
