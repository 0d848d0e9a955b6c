"""Agreement of neighbouring views, on a plane whose depth is known everywhere."""

import math

import torch

from ttt3r.geometry import se3
from ttt3r.geometry.agreement import agreement, some_points
from ttt3r.geometry.camera import default_intrinsics, pixel_grid, unproject
from ttt3r.geometry.rotation import angle

SIZE = (24, 32)
INTRINSICS = default_intrinsics(SIZE, torch.tensor(30.0))


def wall(pose: torch.Tensor, distance: float = 2.0) -> torch.Tensor:
    """Depth of the wall z = distance, as a camera sees it that may have moved and turned."""
    pixels = pixel_grid(SIZE, INTRINSICS)
    ones = torch.ones(*SIZE, 1)
    rays = torch.cat([pixels, ones], -1) @ torch.linalg.inv(INTRINSICS).mT
    directions = rays @ pose[:3, :3].mT
    return (distance - pose[2, 3]) / directions[..., 2]


def moved(x: float, turn: float) -> torch.Tensor:
    pose = torch.eye(4)
    c, s = math.cos(turn), math.sin(turn)
    pose[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[0, 3] = x
    return pose


def test_true_depths_agree_and_others_do_not():
    one, other = moved(0.0, 0.0), moved(0.2, 0.1)
    points = some_points(unproject(wall(one), INTRINSICS), one, 200)
    assert 150 <= len(points) <= 250
    depth = wall(other)
    assert agreement(points, other, INTRINSICS, depth) == 1.0
    assert agreement(points, other, INTRINSICS, 1.2 * depth) == 0.0
    assert agreement(points, other, INTRINSICS, 1.05 * depth) == 1.0
    half = depth.clone()
    half[:, 16:] *= 2
    assert 0.3 < agreement(points, other, INTRINSICS, half) < 0.7


def test_the_unit_does_not_matter():
    one, other = moved(0.0, 0.0), moved(0.2, 0.1)
    scaled = other.clone()
    scaled[:3, 3] *= 100
    points = some_points(unproject(wall(one), INTRINSICS), one, 200)
    depth = wall(other)
    depth[:, :10] *= 1.5
    assert agreement(100 * points, scaled, INTRINSICS, 100 * depth) == agreement(
        points, other, INTRINSICS, depth
    )


def test_nothing_to_compare():
    pose = torch.eye(4)
    points = some_points(unproject(wall(pose), INTRINSICS), pose, 200)
    assert math.isnan(agreement(points, moved(0.0, math.pi), INTRINSICS, wall(pose)))
    assert math.isnan(agreement(points, pose, INTRINSICS, torch.zeros(SIZE)))
    assert math.isnan(agreement(points, torch.full((4, 4), torch.nan), INTRINSICS, wall(pose)))
    assert len(some_points(points.reshape(1, -1, 3), torch.full((4, 4), torch.nan), 10)) == 0


def test_angles():
    for turn in (0.0, 1e-7, 0.3, math.pi - 1e-7, math.pi):
        pose = moved(0.0, 0.0).double()
        c, s = math.cos(turn), math.sin(turn)
        pose[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
        # Cosine and sine are rounded, which is a few float64 eps of an angle.
        assert abs(float(angle(pose[:3, :3])) - turn) < 1e-15 * 8
    assert float(angle(se3.invert(pose)[:3, :3])) > 3
