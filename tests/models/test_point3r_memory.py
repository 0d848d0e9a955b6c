"""How frames enter Point3R's memory, against slow twins."""

import dataclasses

import pytest
import torch

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.models.point3r.memory import (
    MEMORY_RULES,
    Append,
    Fuse,
    MemoryRule,
    Pointers,
    choose,
    nearest_pointers,
)


def random_pointers(counts, patches, seed, spread=1.0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    shape = (len(counts), max(counts))
    positions, features = (torch.rand(*shape, c, generator=g, dtype=dtype) for c in (3, 5))
    known = Pointers(positions * spread, features, torch.tensor(counts))
    absent = (torch.arange(max(counts)) >= known.count[:, None])[..., None]
    known = dataclasses.replace(
        known,
        positions=positions.masked_fill(absent, 0.0) * spread,
        features=features.masked_fill(absent, 0.0),
    )
    new = [torch.rand(len(counts), patches, c, generator=g, dtype=dtype) for c in (3, 5)]
    return known, new[0] * spread, new[1]


def fuse_slowly(known, positions, features, units):
    """Slow twin of `Fuse` for one stream: lists of pointers, one patch after the other."""
    places, contents = list(known.positions[0]), list(known.features[0])
    box = torch.stack([*places, *positions[0]])
    threshold = float(((box.amax(0) - box.amin(0)) / units).square().sum().sqrt())
    chosen: dict[int, list[int]] = {}
    added = []
    for n, place_ in enumerate(positions[0]):
        distances = [float((place_ - other).square().sum().sqrt()) for other in places]
        nearest = distances.index(min(distances)) if distances else -1
        if not distances or distances[nearest] >= threshold:
            added.append(n)
        else:
            chosen.setdefault(nearest, []).append(n)
    for j, patches in chosen.items():
        places[j] = positions[0, patches].mean(0)
        contents[j] = features[0, patches].mean(0)
    places += [positions[0, n] for n in added]
    contents += [features[0, n] for n in added]
    return torch.stack(places), torch.stack(contents)


@pytest.mark.parametrize("counts", [(30, 7, 0), (1, 1, 1), (0, 0, 0), (40, 40, 40)])
@pytest.mark.parametrize("units", [1, 4, 20])
def test_fusion_equals_its_slow_twin(counts, units):
    for seed in range(4):
        known, positions, features = random_pointers(counts, 15, seed, dtype=torch.float64)
        after = Fuse(units).remember(known, positions, features)
        assert after.positions.shape[1] == int(after.count.max())
        for b, count in enumerate(counts):
            one = Pointers(
                known.positions[b : b + 1, :count],
                known.features[b : b + 1, :count],
                known.count[b : b + 1],
            )
            places, contents = fuse_slowly(one, positions[b : b + 1], features[b : b + 1], units)
            assert int(after.count[b]) == len(places)
            torch.testing.assert_close(after.positions[b, : len(places)], places)
            torch.testing.assert_close(after.features[b, : len(places)], contents)
            assert not after.positions[b, len(places) :].any()


def test_nothing_is_fused_where_all_is_one_point():
    """The box has no size, so no distance is below the threshold."""
    point = torch.full((1, 4, 3), 0.5)
    known = Pointers(point[:, :1], torch.zeros(1, 1, 5), torch.tensor([1]))
    after = Fuse().remember(known, point, torch.ones(1, 4, 5))
    assert after.count.tolist() == [5] and after.features[0, 0].eq(0).all()


def test_broken_points_spoil_no_pointer():
    known, positions, features = random_pointers((20,), 6, 0)
    positions[0, 2] = float("nan")
    after = Fuse(2).remember(known, positions, features)
    assert after.positions[0, :20].isfinite().all()


def test_appending():
    known, positions, features = random_pointers((3, 0, 5), 4, 0)
    after = Append().remember(known, positions, features)
    assert after.count.tolist() == [7, 4, 9]
    for b, count in enumerate(known.count.tolist()):
        rows = torch.cat((known.positions[b, :count], positions[b]))
        assert torch.equal(after.positions[b, : len(rows)], rows)
        rows = torch.cat((known.features[b, :count], features[b]))
        assert torch.equal(after.features[b, : len(rows)], rows)


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_nearest_pointers_by_blocks(block):
    known, positions, _ = random_pointers((30, 9, 0), 15, 1)
    known.positions[0, 20] = known.positions[0, 3]  # of two nearest pointers, the first
    positions[0, 0] = known.positions[0, 3]
    distance, nearest = nearest_pointers(positions, known, block)
    assert nearest[0, 0] == 3 and distance[0, 0] == 0
    for b, count in enumerate((30, 9)):
        apart = (positions[b][:, None] - known.positions[b, :count]).norm(dim=-1)
        torch.testing.assert_close(distance[b], apart.amin(1))
        assert torch.equal(apart.gather(1, nearest[b][:, None])[:, 0], apart.amin(1))
    assert distance[2].isinf().all()


def test_distances_far_from_the_origin():
    """Here the expanded square loses the distances; the direct one does not."""
    known, positions, _ = random_pointers((200,), 60, 2, spread=0.01)
    shift = 100.0
    far = dataclasses.replace(known, positions=known.positions + shift)
    exact = (far.positions[0].double() - (positions + shift)[0].double()[:, None]).norm(dim=-1)
    distance, _ = nearest_pointers(positions + shift, far)
    torch.testing.assert_close(distance[0].double(), exact.amin(1), rtol=1e-6, atol=0.0)
    expanded = torch.cdist(
        positions + shift, far.positions, compute_mode="use_mm_for_euclid_dist"
    ).amin(2)
    assert (expanded[0].double() - exact.amin(1)).abs().max() > 1e-3


def test_choosing_streams():
    known, _, _ = random_pointers((3, 6, 2), 1, 0)
    other, _, _ = random_pointers((5, 1, 4), 1, 1)
    chosen = choose(torch.tensor([True, False, False]), known, other)
    assert chosen.count.tolist() == [3, 1, 4] and chosen.positions.shape == (3, 4, 3)
    assert torch.equal(chosen.features[0, :3], known.features[0, :3])
    assert torch.equal(chosen.features[2], other.features[2, :4])


@pytest.mark.parametrize(
    ("text", "rule"),
    [("fuse", Fuse(20)), ("fuse(40)", Fuse(40)), ("fuse(units=3)", Fuse(3)), ("append", Append())],
)
def test_rules_are_read_and_written(text, rule):
    assert MEMORY_RULES.parse(text) == rule and MEMORY_RULES.parse(rule) is rule
    assert MEMORY_RULES.parse(values.to_text(rule)) == rule
    assert isinstance(rule, MemoryRule) and MEMORY_RULES.classes[rule.name] is type(rule)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttt3r", "append, fuse"),
        ("fuse(0)", "at least 1"),
        ("fuse('x')", r"wrong arguments|of type int"),
        ("append(3)", "wrong arguments"),
        ("", "cannot read"),
    ],
)
def test_texts_that_name_no_rule(text, message):
    with pytest.raises(SettingError, match=message):
        MEMORY_RULES.parse(text)
