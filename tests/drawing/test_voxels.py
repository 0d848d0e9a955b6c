"""Thinned clouds: against a slow twin, in any order, in bounded memory."""

import tracemalloc
from collections import defaultdict

import numpy as np
import pytest

from ttt3r.drawing.voxels import VoxelCloud
from ttt3r.errors import SettingError

Parts = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def parts(count: int, each: int, spread: float = 1.0, seed: int = 0) -> Parts:
    random = np.random.default_rng(seed)
    return [
        (
            random.normal(scale=spread, size=(each, 3)).astype(np.float32),
            random.integers(0, 256, (each, 3), np.uint8),
            random.uniform(1, 5, each).astype(np.float32),
        )
        for _ in range(count)
    ]


def twin(given: Parts, size: float) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray, float]]:
    """Cell by cell, with a dictionary."""
    cells = defaultdict(list)
    for part in given:
        for point, colour, confidence in zip(*part, strict=True):
            cells[tuple(int(x) for x in np.floor(point / size))].append((point, colour, confidence))
    return {
        cell: (
            np.mean([p.astype(float) for p, _, _ in inside], axis=0),
            np.mean([c.astype(float) for _, c, _ in inside], axis=0),
            max(confidence for _, _, confidence in inside),
        )
        for cell, inside in cells.items()
    }


def collected(given: Parts, size: float, **options) -> VoxelCloud:
    voxels = VoxelCloud(size, **options)
    for part in given:
        voxels.add(*part)
    return voxels


def assert_is(voxels: VoxelCloud, expected: dict) -> None:
    cloud = voxels.cloud()
    assert len(cloud.points) == len(voxels) == len(expected)
    for (cell, (point, colour, confidence)), *got in zip(
        sorted(expected.items()), *cloud, strict=True
    ):
        # A mean rounded to float32; a mean colour rounded to a whole number, from float32 sums.
        np.testing.assert_allclose(got[0], point, rtol=1e-6, atol=1e-6, err_msg=str(cell))
        assert np.abs(got[1] - colour).max() <= 0.5 + 1e-3
        assert got[2] == confidence


@pytest.mark.parametrize("size", [0.05, 0.3, 10.0])
def test_like_the_twin(size: float):
    given = parts(7, 200)
    assert_is(collected(given, size), twin(given, size))


def test_cells_widen_until_they_are_few_enough():
    given = parts(9, 300)
    voxels = collected(given, 0.01, most=200)
    assert len(voxels) <= 200
    doublings = np.log2(voxels.size / 0.01)
    assert doublings == round(doublings) > 0
    assert_is(voxels, twin(given, voxels.size))
    assert len(twin(given, voxels.size / 2)) > 200  # no wider than needed


def test_the_order_does_not_matter():
    given = parts(12, 150)
    one, other = collected(given, 0.1, most=500), collected(given[::-1], 0.1, most=500)
    assert one.size == other.size
    for left, right in zip(one.cloud(), other.cloud(), strict=True):
        np.testing.assert_allclose(left.astype(float), right.astype(float), rtol=1e-6, atol=1)
    np.testing.assert_allclose(one.cloud().points, other.cloud().points, rtol=1e-5, atol=1e-6)


def test_points_without_a_cell_are_counted():
    voxels = VoxelCloud(0.01)
    points = np.array([[0, 0, 0], [np.nan, 0, 0], [0, np.inf, 0], [0, 0, -1e6], [1, 2, 3]])
    voxels.add(points, np.zeros((5, 3), np.uint8))
    assert len(voxels) == 2 and voxels.left_out == 3
    assert (voxels.cloud().confidence == 1).all()


def test_nothing():
    voxels = VoxelCloud(1.0)
    voxels.add(np.empty((0, 3)), np.empty((0, 3), np.uint8))
    assert len(voxels) == 0 and voxels.cloud().points.shape == (0, 3)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_senseless_size(size: float):
    with pytest.raises(SettingError, match="above 0"):
        VoxelCloud(size)


def test_memory_does_not_grow_with_the_points():
    peaks = []
    for count in (20, 80):
        tracemalloc.start()
        voxels = VoxelCloud(0.001, most=2000)
        for seed in range(count):
            voxels.add(*parts(1, 1000, seed=seed)[0])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
