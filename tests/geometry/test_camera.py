import math

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.geometry.samples import (
    BATCHES,
    SEEDS,
    close,
    generator,
    random_intrinsics,
    random_rigid,
)
from ttt3r.geometry.camera import (
    default_intrinsics,
    pixel_grid,
    project,
    ray_map,
    unproject,
)

SIZE = (6, 9)


def random_depth(seed, *batch):
    return 0.5 + torch.rand(*batch, *SIZE, generator=generator(seed), dtype=torch.float64)


@given(SEEDS)
def test_projecting_unprojected_depth_gives_the_pixels_back(seed):
    intrinsics, depth = random_intrinsics(seed), random_depth(seed + 1)
    points = unproject(depth, intrinsics)
    close(points[..., 2], depth)
    close(project(points, intrinsics), pixel_grid(SIZE, like=depth))


@given(SEEDS)
def test_projection_forgets_scale(seed):
    intrinsics = random_intrinsics(seed)
    points = unproject(random_depth(seed), intrinsics)
    close(project(3.0 * points, intrinsics), project(points, intrinsics))


def test_skew_is_honoured():
    intrinsics = random_intrinsics(0)
    intrinsics[0, 1] = 2.5
    depth = random_depth(1)
    close(project(unproject(depth, intrinsics), intrinsics), pixel_grid(SIZE, like=depth))


def test_pixel_grid_is_column_then_row():
    grid = pixel_grid((2, 3), like=torch.zeros(1))
    assert grid.tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]


def test_default_intrinsics():
    matrix = default_intrinsics((5, 8), torch.tensor([10.0, 20.0]))
    assert matrix[1].tolist() == [[20, 0, 4], [0, 20, 2], [0, 0, 1]]
    assert default_intrinsics((5, 8), torch.tensor(3.0)).shape == (3, 3)


def slow_ray_map(pose, intrinsics, size):
    rays = np.zeros((*size, 6))
    for v in range(size[0]):
        for u in range(size[1]):
            d = pose[:3, :3] @ np.linalg.inv(intrinsics) @ np.array([u, v, 1.0]) + pose[:3, 3]
            rays[v, u] = np.concatenate([pose[:3, 3], d / np.linalg.norm(d)])
    return rays


@pytest.mark.parametrize("batch", BATCHES)
def test_ray_map_matches_its_slow_twin(batch):
    poses, intrinsics = random_rigid(0, *batch), random_intrinsics(1, *batch)
    rays = ray_map(poses, intrinsics, SIZE)
    assert rays.shape == (*batch, *SIZE, 6)
    loops = zip(poses.reshape(-1, 4, 4), intrinsics.reshape(-1, 3, 3), strict=True)
    slow = np.stack([slow_ray_map(p.numpy(), k.numpy(), SIZE) for p, k in loops])
    close(rays.reshape(-1, *SIZE, 6), torch.from_numpy(slow))


def test_rays_of_a_camera_at_the_origin_are_its_pixels():
    pose, intrinsics = torch.eye(4), default_intrinsics(SIZE, torch.tensor(50.0))
    rays = ray_map(pose, intrinsics, SIZE)
    assert rays[..., :3].abs().max() == 0
    close(project(rays[..., 3:], intrinsics), pixel_grid(SIZE, like=pose), 1e-5)
    assert math.isclose(float(rays[SIZE[0] // 2, SIZE[1] // 2, 5]), 1.0)


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_shapes_agree(batch):
    intrinsics, depth = random_intrinsics(0, *batch), random_depth(1, *batch)
    points = unproject(depth, intrinsics)
    pixels = project(points, intrinsics)
    assert points.shape == (*batch, *SIZE, 3)
    assert pixels.shape == (*batch, *SIZE, 2)
    first = (0,) * len(batch)
    close(unproject(depth[first], intrinsics[first]), points[first])
    close(project(points[first][0], intrinsics[first]), pixels[first][0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    pose, intrinsics = random_rigid(0, dtype=dtype), random_intrinsics(0, dtype=dtype)
    depth = torch.ones(SIZE, dtype=dtype)
    assert ray_map(pose, intrinsics, SIZE).dtype == dtype
    assert project(unproject(depth, intrinsics), intrinsics).dtype == dtype
