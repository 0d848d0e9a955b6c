import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.samples import SEEDS
from ttt3r.errors import InputError, MissingExtraError, SettingError
from ttt3r.evaluation.metrics.neighbours import Neighbours, searched, spatial_order


def surface(seed, count, outliers=0):
    """A wavy sheet with noise, some points repeated, and a few far away."""
    rng = np.random.default_rng(seed)
    plane = rng.uniform(-2.0, 2.0, (count, 2))
    points = np.column_stack([plane, np.sin(plane).sum(1) + rng.normal(0.0, 0.01, count)])
    points[: count // 10] = points[count // 2 : count // 2 + count // 10]
    points[:outliers] *= 1e4
    return points


def brute_force(points, queries):
    """Every distance [m, n]."""
    return np.sqrt(np.square(queries[:, None] - points).sum(-1))


@given(SEEDS, st.integers(1, 600), st.integers(1, 600), st.sampled_from([None, 0.02, 0.3]))
def test_nearest_is_that_of_all_distances(seed, count, queries, limit):
    points, asked = surface(seed, count, count // 50), surface(seed + 1, queries, queries // 50)
    distances, indices = Neighbours(points).nearest(asked, limit)
    table = brute_force(points, asked)
    near = table.min(1) < (np.inf if limit is None else limit)
    np.testing.assert_allclose(distances[near], table.min(1)[near], rtol=1e-12)
    assert np.isinf(distances[~near]).all() and (indices[~near] == count).all()
    # The point itself may be another one at the same distance.
    chosen = table[near, indices[near]]
    np.testing.assert_allclose(chosen, table.min(1)[near], rtol=1e-12)
    assert distances.dtype == np.float64 and indices.dtype == np.int64


@given(SEEDS, st.integers(30, 600))
def test_k_nearest_are_those_of_all_distances(seed, count):
    points, asked = surface(seed, count), surface(seed + 1, 300)
    for k in (1, 2, 30):
        indices = Neighbours(points).k_nearest(asked, k)
        table = brute_force(points, asked)
        found = np.take_along_axis(table, indices, 1)
        np.testing.assert_allclose(found, np.sort(table, 1)[:, :k], rtol=1e-12)
        assert all(len(set(row)) == k for row in indices)


def test_single_precision_and_other_layouts():
    points = np.asfortranarray(surface(0, 100).astype(np.float32))
    distances, indices = Neighbours(points).nearest(points[::2])
    assert not distances.any()
    np.testing.assert_array_equal(points[indices], points[::2])


def test_a_point_at_the_largest_distance_is_too_far():
    search = Neighbours(np.zeros((1, 3)))
    distances, indices = search.nearest(np.eye(3), 1.0)
    assert np.isinf(distances).all() and (indices == 1).all()
    assert search.nearest(np.eye(3), 1.0 + 1e-9)[0] == pytest.approx(np.ones(3))


def test_coinciding_points():
    points = np.ones((700, 3))
    distances, indices = Neighbours(points).nearest(np.zeros((2, 3)))
    assert distances == pytest.approx(np.sqrt([3.0, 3.0])) and (indices < 700).all()


@given(SEEDS)
def test_spatial_order_is_a_permutation_that_keeps_neighbours_together(seed):
    points = np.random.default_rng(seed).uniform(-1.0, 1.0, (2000, 3))
    order = spatial_order(points)
    assert sorted(order) == list(range(2000))
    steps = [np.linalg.norm(np.diff(p, axis=0), axis=1).mean() for p in (points, points[order])]
    assert steps[1] < 0.25 * steps[0]


def test_spatial_order_interleaves_the_bits_of_the_coordinates():
    grid = np.indices((4, 4, 4)).reshape(3, -1).T.astype(np.float64)

    def key(point):
        return sum((int(c) >> bit & 1) << 3 * bit + axis for bit in (0, 1) for axis, c in point)

    keys = [key(list(enumerate(point))) for point in grid[spatial_order(grid)]]
    assert keys == sorted(keys)


def test_a_search_structure_is_not_built_twice():
    search = Neighbours(surface(0, 10))
    assert searched(search) is search
    assert len(searched(surface(0, 10))) == 10


# Hostile input

HOSTILE = [
    (np.zeros((0, 3)), "shape"),
    (np.full((4, 3), np.nan), "4 of 4 of the points are not finite"),
    (np.array([[0.0, 0.0, 0.0], [0.0, np.inf, 0.0]]), "1 of 2"),
    (np.full((2, 3), 1e200), "not finite"),
]


@pytest.mark.parametrize(("points", "message"), HOSTILE)
def test_unusable_points(points, message):
    with pytest.raises(InputError, match=message):
        Neighbours(points)


@pytest.mark.parametrize(("queries", "message"), HOSTILE)
def test_unusable_queries(queries, message):
    with pytest.raises(InputError, match=message.replace("points", "queries")):
        Neighbours(np.eye(3)).nearest(queries)


def test_unusable_settings():
    search = Neighbours(np.eye(3))
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(SettingError, match="positive"):
            search.nearest(np.eye(3), limit)
    for k in (0, 4):
        with pytest.raises(SettingError, match="1 to 3"):
            search.k_nearest(np.eye(3), k)


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingExtraError, match=r"ttt3r\[eval\]"):
        Neighbours(np.eye(3))
