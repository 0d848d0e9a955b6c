import math

import pytest
import torch
from hypothesis import given, settings

from tests.geometry.samples import BATCHES, SEEDS, close, generator, normal, random_rigid
from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics, pixel_grid, project, unproject
from ttt3r.geometry.pnp import (
    candidate_focals,
    focal_from_confident_points,
    poses_from_world_points,
    refine_pose,
    search_focals,
    solve_pnp,
)

SIZE = (24, 32)
FOCAL = 30.0
INTRINSICS = default_intrinsics(SIZE, torch.tensor(FOCAL, dtype=torch.float64))


def view(seed, *batch, flat=False):
    """A pointmap in the world and the pose of the camera that sees it."""
    depth = 2 + 2 * torch.rand(*batch, *SIZE, generator=generator(seed), dtype=torch.float64)
    if flat:
        depth = torch.full_like(depth, 3.0)
    pose = random_rigid(seed + 1, *batch)
    return se3.apply(pose, unproject(depth, INTRINSICS.expand(*batch, 3, 3))), pose


def pixels():
    return pixel_grid(SIZE, like=INTRINSICS)


@given(SEEDS)
@settings(max_examples=10)
def test_finds_the_pose_among_outliers(seed):
    points, pose = view(seed)
    wrong = torch.rand(SIZE, generator=generator(seed + 2)) < 0.4
    points[wrong] += 3 * normal(seed + 3, int(wrong.sum()), 3)
    points[0, 0] = torch.nan
    found = solve_pnp(points.flatten(0, 1), pixels().flatten(0, 1), INTRINSICS, threshold=1.0)
    assert found is not None
    # A stray point may land within the threshold of its pixel and pull a little.
    close(found.world_from_camera, pose, 2e-2)
    inliers = found.inliers.reshape(SIZE)
    assert not inliers[0, 0] and (inliers | wrong)[1:].all()
    assert (inliers & wrong).sum() < 0.2 * wrong.sum()
    seen = se3.apply(se3.invert(found.world_from_camera), points)
    near = (project(seen, INTRINSICS) - pixels()).norm(dim=-1) < 1.0
    assert torch.equal(inliers, near & (seen[..., 2] > 0))


@given(SEEDS)
@settings(max_examples=10)
def test_a_flat_scene_is_no_special_case(seed):
    points, pose = view(seed, flat=True)
    close(poses_from_world_points(points, INTRINSICS), pose, 1e-6)


def test_skew_and_unequal_focal_lengths():
    matrix = torch.tensor([[30.0, 2.0, 15.0], [0.0, 40.0, 12.0], [0.0, 0.0, 1.0]]).double()
    depth = 2 + torch.rand(SIZE, generator=generator(0), dtype=torch.float64)
    pose = random_rigid(0)
    points = se3.apply(pose, unproject(depth, matrix))
    close(poses_from_world_points(points, matrix), pose, 1e-6)


def slow_cost(pose, points, at):
    """Slow twin of the refinement's cost: a loop over points in plain numbers."""
    total = 0.0
    for point, pixel in zip(points.tolist(), at.tolist(), strict=True):
        x, y, z = (
            sum(r * p for r, p in zip(row, [*point, 1.0], strict=True)) for row in pose.tolist()[:3]
        )
        u, v = FOCAL * x / z + SIZE[1] // 2, FOCAL * y / z + SIZE[0] // 2
        total += (u - pixel[0]) ** 2 + (v - pixel[1]) ** 2
    return total


def test_refinement_ends_where_nothing_nearby_is_better():
    points, pose = view(0)
    points = (points + 0.05 * normal(1, *SIZE, 3)).flatten(0, 1)[::7]
    at = pixels().flatten(0, 1)[::7]
    turn = se3.pose_from_encoding(torch.tensor([0.1, -0.1, 0.1, 1.0, 0.05, -0.05, 0.02]).double())
    start = turn @ se3.invert(pose)
    best = refine_pose(start, points, at, INTRINSICS)
    least = slow_cost(best, points, at)
    assert least < 0.1 * slow_cost(start, points, at)
    errors = (project(se3.apply(best, points), INTRINSICS) - at).square().sum()
    assert float(errors) == pytest.approx(least)
    for axis in range(6):
        for step in (-1e-3, 1e-3):
            change = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
            change[axis if axis < 3 else axis + 1] = step
            nearby = se3.pose_from_encoding(change) @ best
            assert slow_cost(nearby, points, at) > least


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_shapes_agree(batch):
    points, pose = view(0, *batch)
    points = points + 0.01 * normal(1, *points.shape)
    found = poses_from_world_points(points, INTRINSICS.expand(*batch, 3, 3))
    close(found, pose, 2e-2)
    first = (0,) * len(batch)
    close(found[first], poses_from_world_points(points[first], INTRINSICS), 0.0)


def test_pixels_that_are_not_usable_do_not_count():
    points, pose = view(0)
    usable = torch.rand(SIZE, generator=generator(1)) < 0.2
    shifted = torch.where(usable[..., None], points, points + 0.5)
    close(poses_from_world_points(shifted, INTRINSICS, usable), pose, 1e-6)


def test_equal_seeds_give_equal_poses_and_leave_the_global_state_alone():
    points, _ = view(0)
    points = points + 0.1 * normal(1, *SIZE, 3)
    before = torch.random.get_rng_state()
    poses = [poses_from_world_points(points, INTRINSICS, iterations=3, seed=s) for s in (5, 5)]
    assert torch.equal(*poses)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dtype_is_kept():
    points, pose = view(0)
    found = poses_from_world_points(points.float(), INTRINSICS.float())
    assert found.dtype == torch.float32
    close(found, pose.float(), 1e-4)


@pytest.mark.parametrize("kind", ["nan", "few", "one point", "no focal", "nan focal", "noise"])
def test_a_view_without_a_pose_is_nan(kind):
    points, _ = view(0)
    matrix = INTRINSICS.clone()
    if kind == "nan":
        points[:] = torch.nan
    elif kind == "few":
        points.view(-1, 3)[3:] = torch.nan
    elif kind == "one point":
        points[:] = points[0, 0].clone()
    elif kind == "no focal":
        matrix[0, 0] = matrix[1, 1] = 0.0
    elif kind == "nan focal":
        matrix[0, 0] = torch.nan
    else:
        points = normal(0, *SIZE, 3)
    found = poses_from_world_points(points, matrix, threshold=1e-3)
    assert found.isnan().all()


def test_settings_are_checked():
    points, _ = view(0)
    with pytest.raises(SettingError, match="must be positive"):
        poses_from_world_points(points, INTRINSICS, threshold=0.0)
    with pytest.raises(SettingError, match="must be positive"):
        poses_from_world_points(points, INTRINSICS, iterations=0)


@pytest.mark.parametrize(("seed", "focal"), [(0, 17.0), (1, 31.5), (2, 60.0), (3, 95.0)])
def test_the_search_finds_a_focal_length_among_outliers(seed, focal):
    depth = 2 + 2 * torch.rand(SIZE, generator=generator(seed), dtype=torch.float64)
    matrix = default_intrinsics(SIZE, torch.tensor(focal, dtype=torch.float64))
    points = se3.apply(random_rigid(seed + 1), unproject(depth, matrix))
    wrong = torch.rand(SIZE, generator=generator(seed + 2)) < 0.2
    points[wrong] += 3 * normal(seed + 3, int(wrong.sum()), 3)
    found = float(search_focals(points, threshold=1.0, seed=seed, prefer="residuals"))
    assert found in candidate_focals(SIZE).tolist()
    assert found == pytest.approx(focal, rel=0.02)  # candidates are steps of 1.8 %
    # Counting inliers alone cannot tell apart the candidates under which all points agree, and
    # samples with outliers move the count by a few points: far off is all that must not be.
    assert float(search_focals(points, threshold=1.0, seed=seed)) == pytest.approx(focal, rel=0.2)


def test_ties_make_focal_lengths_short_unless_residuals_count():
    """At a threshold of five pixels all points agree with many focal lengths."""
    points, _ = view(0)
    shortest, best = (float(search_focals(points, prefer=p)) for p in ("inliers", "residuals"))
    assert 0.5 * FOCAL < shortest < 0.9 * FOCAL
    assert best == pytest.approx(FOCAL, rel=0.02)
    matrix = default_intrinsics(SIZE, torch.tensor(shortest).double())
    found = solve_pnp(points.flatten(0, 1), pixels().flatten(0, 1), matrix)
    assert found is not None and found.inliers.all()


@pytest.mark.slow
def test_focal_lengths_are_searched_view_by_view():
    focals = torch.tensor([[20.0, 30.0, 40.0], [50.0, 60.0, 70.0]], dtype=torch.float64)
    depth = 2 + 2 * torch.rand(2, 3, *SIZE, generator=generator(0), dtype=torch.float64)
    points = se3.apply(random_rigid(1, 2, 3), unproject(depth, default_intrinsics(SIZE, focals)))
    usable = torch.rand(2, 3, *SIZE, generator=generator(1)) < 0.3
    shifted = torch.where(usable[..., None], points, points + 0.5)
    before = torch.random.get_rng_state()
    found = search_focals(shifted, usable, threshold=1.0, prefer="residuals")
    torch.testing.assert_close(found, focals, rtol=0.03, atol=0.0)
    alone = search_focals(shifted[1, 2], usable[1, 2], threshold=1.0, prefer="residuals")
    assert alone.shape == () and alone == found[1, 2]
    assert torch.equal(torch.random.get_rng_state(), before)
    single = search_focals(points.float(), threshold=1.0, prefer="residuals")
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, focals.float(), rtol=0.03, atol=0.0)


def test_large_views_are_searched_by_a_sample():
    size = (72, 96)
    matrix = default_intrinsics(size, torch.tensor(90.0).double())
    depth = 2 + 2 * torch.rand(size, generator=generator(0), dtype=torch.float64)
    points = se3.apply(random_rigid(1), unproject(depth, matrix))
    found = [search_focals(points, seed=seed, prefer="residuals") for seed in (3, 3)]
    assert torch.equal(*found) and float(found[0]) == pytest.approx(90.0, rel=0.02)


@pytest.mark.parametrize("kind", ["nan", "few", "one point", "noise"])
@pytest.mark.parametrize("prefer", ["inliers", "residuals"])
def test_a_view_without_a_focal_length_is_nan(kind, prefer):
    points, _ = view(0)
    if kind == "nan":
        points[:] = torch.nan
    elif kind == "few":
        points.view(-1, 3)[3:] = torch.nan
    elif kind == "one point":
        points[:] = points[0, 0].clone()
    else:
        points = normal(0, *SIZE, 3)
    assert search_focals(points, threshold=1e-3, prefer=prefer).isnan()


def test_settings_of_the_search_are_checked():
    points, _ = view(0)
    for wrong in ({"threshold": 0.0}, {"iterations": 0}):
        with pytest.raises(SettingError, match="must be positive"):
            search_focals(points, **wrong)


@pytest.mark.parametrize("batch", BATCHES)
def test_focal_leaves_out_the_least_confident(batch):
    focals = torch.full(batch, FOCAL, dtype=torch.float64)
    depth = 2 + torch.rand(*batch, *SIZE, generator=generator(0), dtype=torch.float64)
    points = unproject(depth, default_intrinsics(SIZE, focals))
    doubtful = torch.rand(*batch, *SIZE, generator=generator(1)) < 0.05
    confidence = torch.where(doubtful, 1.0, 2.0 + depth)
    points[doubtful] *= torch.tensor([9.0, 9.0, 1.0], dtype=torch.float64)
    close(focal_from_confident_points(points, confidence), focals)
    assert (focal_from_confident_points(points, confidence, quantile=0.0) != focals).all()


def test_focal_of_no_usable_point_is_nan():
    nothing = torch.full((*SIZE, 3), torch.nan)
    assert math.isnan(focal_from_confident_points(nothing, torch.ones(SIZE)))
