import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_sequences import DATA
from ttt3r.evaluation.datasets.seven_scenes import (
    COLOR_FROM_DEPTH,
    COLOR_INTRINSICS,
    DEPTH_INTRINSICS,
    project_depth,
)

REAL = DATA / "redkitchen_short" / "depth"


def pinhole(focal, u, v):
    return np.array([[focal, 0.0, u], [0.0, focal, v], [0.0, 0.0, 1.0]])


def slow_projection(depth, source, target, target_from_source):
    """The readable twin: one pixel after the other."""
    height, width = depth.shape
    result = np.zeros((height, width), np.float32)
    for v in range(height):
        for u in range(width):
            z = float(depth[v, u])
            if not (0 < z < np.inf):
                continue
            point = z * np.linalg.solve(source, [u, v, 1.0])
            moved = (target_from_source @ [*point, 1.0])[:3]
            if moved[2] <= 0:
                continue
            x, y, w = target @ moved
            column, row = int(np.floor(x / w + 0.5)), int(np.floor(y / w + 0.5))
            if 0 <= column < width and 0 <= row < height:
                present = result[row, column]
                if present == 0 or w < present:
                    result[row, column] = w
    return result


def random_depth(seed, shape):
    random = np.random.default_rng(seed)
    depth = random.uniform(0.3, 4.0, shape).astype(np.float32)
    depth[random.uniform(size=shape) < 0.2] = 0.0
    return depth


@pytest.mark.parametrize("seed", range(4))
def test_as_pixel_by_pixel(seed):
    depth = random_depth(seed, (30, 40))
    depth[3, 4:7] = np.nan, np.inf, -1.0
    source, target = pinhole(37.0, 20.0, 15.0), pinhole(33.0, 20.0, 15.0)
    transform = COLOR_FROM_DEPTH.copy()
    transform[:3, 3] += np.random.default_rng(seed).normal(size=3) * 0.3  # some end up behind
    fast = project_depth(depth, source, target, transform)
    slow = slow_projection(depth, source, target, transform)
    assert fast.dtype == np.float32 and (fast > 0).mean() > 0.1
    np.testing.assert_allclose(fast, slow, rtol=1e-6)


def test_the_same_camera_sees_the_same():
    depth = random_depth(0, (12, 16))
    camera = pinhole(20.0, 7.5, 5.5)
    np.testing.assert_allclose(project_depth(depth, camera, camera, np.eye(4)), depth, rtol=1e-6)


def test_the_nearest_point_stays_whatever_the_order():
    camera, shrunk = pinhole(1.0, 0.0, 0.0), pinhole(0.1, 0.0, 0.0)
    for row in ([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]):
        depth = np.array([row], np.float32)
        np.testing.assert_array_equal(
            project_depth(depth, camera, shrunk, np.eye(4)), [[1.0, 0.0, 0.0]]
        )


def test_moving_aside_by_hand():
    # At 2 m, half a metre to the left is 10 pixels · 0.5 / 2 = 2.5 pixels, which rounds to 2.
    depth = np.zeros((1, 9), np.float32)
    depth[0, 6] = 2.0
    aside = np.eye(4)
    aside[0, 3] = -0.5
    result = project_depth(depth, pinhole(10.0, 0.0, 0.0), pinhole(10.0, 0.0, 0.0), aside)
    np.testing.assert_array_equal(np.flatnonzero(result), [4])


def test_nothing_known_or_nothing_ahead():
    camera = pinhole(10.0, 2.0, 2.0)
    nothing = np.zeros((4, 5), np.float32)
    np.testing.assert_array_equal(project_depth(nothing, camera, camera, np.eye(4)), nothing)
    behind = np.eye(4)
    behind[2, 3] = -9.0
    depth = random_depth(0, (4, 5))
    np.testing.assert_array_equal(project_depth(depth, camera, camera, behind), nothing)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real maps in {REAL}; set TTT3R_DATA")
def test_real_maps_lie_where_ours_do():
    """A hint only: these maps were projected by another program, and hold 1 to 3 m of kitchen."""
    seen = np.zeros((480, 640), bool)
    for path in sorted(REAL.iterdir()):
        seen |= np.array(Image.open(path)) > 0
    reached = np.zeros_like(seen)
    for z in (0.9, 1.5, 2.9):
        flat = np.full(seen.shape, z, np.float32)
        reached |= project_depth(flat, DEPTH_INTRINSICS, COLOR_INTRINSICS, COLOR_FROM_DEPTH) > 0
    np.testing.assert_array_equal(
        np.flatnonzero(seen.any(1))[[0, -1]], np.flatnonzero(reached.any(1))[[0, -1]]
    )
    # The opposite direction of the calibration leaves out more than 5 %.
    assert (seen & ~reached).mean() < 0.002
