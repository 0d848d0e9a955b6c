import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.geometry.samples import BATCHES, SEEDS, close, generator, normal
from ttt3r.geometry.camera import default_intrinsics, unproject
from ttt3r.geometry.focal import focal_from_points

SIZE = (12, 16)


def pinhole_cloud(seed, focal, *batch):
    depth = 1 + torch.rand(*batch, *SIZE, generator=generator(seed), dtype=torch.float64)
    focals = torch.full(batch, focal, dtype=torch.float64)
    return unproject(depth, default_intrinsics(SIZE, focals))


def slow_weiszfeld(points, center, iterations=10):
    """Slow twin: a loop over pixels in numpy."""
    height, width = points.shape[:2]
    pairs = []
    for v in range(height):
        for u in range(width):
            x, y, z = points[v, u]
            with np.errstate(all="ignore"):
                slope = np.array([x / z, y / z])
            slope[~np.isfinite(slope)] = 0.0
            pairs.append((np.array([u, v]) - center, slope))
    focal = sum(p @ a for p, a in pairs) / sum(a @ a for p, a in pairs)
    for _ in range(iterations):
        weights = [1 / max(np.linalg.norm(p - focal * a), 1e-8) for p, a in pairs]
        top = sum(w * (p @ a) for w, (p, a) in zip(weights, pairs, strict=True))
        bottom = sum(w * (a @ a) for w, (p, a) in zip(weights, pairs, strict=True))
        focal = top / bottom
    return focal


@given(SEEDS, st.floats(2.0, 200.0))
@settings(max_examples=25)
def test_exact_pinhole_points_give_their_focal(seed, focal):
    estimate = focal_from_points(pinhole_cloud(seed, focal))
    close(float(estimate), focal)


@given(SEEDS, st.floats(0.01, 100.0))
@settings(max_examples=25)
def test_the_unit_of_the_points_does_not_matter(seed, unit):
    cloud = pinhole_cloud(seed, 20.0) + 0.05 * normal(seed, *SIZE, 3)
    close(focal_from_points(unit * cloud), focal_from_points(cloud))


@pytest.mark.parametrize("seed", range(3))
def test_weiszfeld_matches_its_slow_twin(seed):
    cloud = pinhole_cloud(seed, 20.0) + 0.1 * normal(seed, *SIZE, 3)
    cloud[0, 0] = 0.0
    cloud[3, 4, 2] = 0.0
    cloud[5, 5] = torch.nan
    cloud[6, 6, 0] = torch.inf
    close(
        float(focal_from_points(cloud)), float(slow_weiszfeld(cloud.numpy(), np.array([8.0, 6.0])))
    )


def test_outliers_do_not_move_it():
    cloud = pinhole_cloud(0, 20.0)
    cloud[:2, :, 0] *= 5
    assert abs(float(focal_from_points(cloud, iterations=30)) - 20.0) < 1.0


def test_no_usable_ray_is_nan():
    assert focal_from_points(torch.zeros(*SIZE, 3)).isnan()
    usable = torch.ones(2, *SIZE, dtype=torch.bool)
    usable[0] = False
    estimate = focal_from_points(pinhole_cloud(0, 20.0, 2), usable=usable)
    assert estimate.isnan().tolist() == [True, False]


def test_a_negative_focal_length_becomes_zero():
    close(float(focal_from_points(pinhole_cloud(0, -20.0))), 0.0)


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_shapes_agree(batch):
    cloud = pinhole_cloud(0, 20.0, *batch) + 0.05 * normal(1, *batch, *SIZE, 3)
    estimate = focal_from_points(cloud)
    assert estimate.shape == batch
    singles = [focal_from_points(one) for one in cloud.reshape(-1, *SIZE, 3)]
    close(estimate.flatten(), torch.stack(singles))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    estimate = focal_from_points(pinhole_cloud(0, 20.0).to(dtype))
    assert estimate.dtype == dtype
    close(float(estimate), 20.0, 1e-5)


@pytest.mark.parametrize("batch", BATCHES)
def test_pixels_that_are_not_usable_do_not_count(batch):
    cloud = pinhole_cloud(0, 20.0, *batch)
    usable = torch.rand(*batch, *SIZE, generator=generator(1)) < 0.3
    kept = torch.where(usable[..., None], cloud, pinhole_cloud(2, 35.0, *batch))
    before = kept.clone()
    estimate = focal_from_points(kept, usable=usable)
    close(estimate, torch.full(batch, 20.0, dtype=torch.float64))
    assert torch.equal(kept, before)
