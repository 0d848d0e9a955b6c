import math

import numpy as np
import pytest
from hypothesis import given

from tests.evaluation.trajectories import random_trajectory
from tests.geometry.samples import SEEDS
from ttt3r.errors import InputError
from ttt3r.evaluation.baselines import (
    best_constant_depth,
    constant_velocity,
    mean_depth_image,
    static_camera,
    static_camera_errors,
)
from ttt3r.evaluation.metrics.depth import depth_errors
from ttt3r.evaluation.metrics.trajectory import ate, rpe, trajectory_errors


@given(SEEDS)
def test_no_constant_beats_the_best(seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 9.0, (4, 5))
    truth[rng.uniform(size=truth.shape) < 0.2] = 0.0

    def score(constant):
        return depth_errors(np.full_like(truth, constant), truth, "metric").abs_rel

    least = score(best_constant_depth([truth]))
    assert least <= min(score(c) for c in np.linspace(0.1, 9.0, 200)) + 1e-12


def test_best_constant_by_hand():
    near, far = np.array([[1.0, np.nan]]), np.array([[4.0], [4.0], [0.0], [80.0]])
    # 1/g of 1, ¼ and ¼: the near depth outweighs the two far ones.
    assert best_constant_depth([near, far], max_depth=70.0) == 1.0
    assert best_constant_depth([far], max_depth=70.0) == 4.0
    with pytest.raises(InputError, match="no true depth"):
        best_constant_depth([np.zeros((2, 2))])


def test_mean_depth_image_is_the_mean_where_depth_is_known():
    maps = np.array([[[1.0, 2.0, 0.0]], [[3.0, np.nan, 0.0]]])
    image = mean_depth_image(maps, 1, 3)
    # 2 is the mean of 1 and 3; nobody knows the last pixel, which gets the mean of all.
    np.testing.assert_allclose(image, [[2.0, 2.0, 2.0]])
    np.testing.assert_allclose(mean_depth_image(maps, 1, 3, max_depth=3.0), [[1.0, 2.0, 1.5]])
    with pytest.raises(InputError, match="no true depth"):
        mean_depth_image(np.zeros((2, 3, 4)), 3, 4)


def test_mean_depth_image_takes_maps_of_any_size():
    depths = [np.full((4, 6), 2.0), np.full((8, 3), 4.0, dtype=np.float32)]
    depths[0][1, 2] = 0.0  # unknown, and must not pull the mean down
    np.testing.assert_allclose(mean_depth_image(depths[:1], 2, 3), np.full((2, 3), 2.0))
    image = mean_depth_image(iter(depths), 5, 7)
    assert image.shape == (5, 7)
    assert (image >= 3.0 - 1e-9).all() and (image < 4.0).all()


def test_static_camera():
    poses = static_camera(3)
    np.testing.assert_array_equal(poses, np.stack([np.eye(4)] * 3))


@given(SEEDS)
def test_static_errors_bound_every_aligned_estimate(seed):
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    static = static_camera_errors(truth)
    assert trajectory_errors(estimate, truth).ate <= static.ate + 1e-12
    relative = rpe(static_camera(len(truth)), truth, alignment="none")
    assert relative == (static.rpe_translation, static.rpe_rotation_deg, static.pairs)


def test_static_errors_by_hand():
    truth = static_camera(4)
    truth[:, 0, 3] = [0.0, 2.0, 4.0, np.inf]
    errors = static_camera_errors(truth, valid=np.isfinite(truth[:, 0, 3]))
    assert errors.ate == pytest.approx(math.sqrt(8.0 / 3.0))
    assert (errors.rpe_translation, errors.rpe_rotation_deg) == pytest.approx((2.0, 0.0))
    assert (errors.scale, errors.frames, errors.pairs) == (0.0, 3, 2)


def test_a_camera_of_constant_velocity_is_foretold():
    truth = random_trajectory(0, frames=2)
    truth = constant_velocity(np.concatenate([truth, np.full((5, 4, 4), np.nan)]))
    assert len(truth) == 7
    step = np.linalg.inv(truth[0]) @ truth[1]
    np.testing.assert_allclose(truth[6], truth[0] @ np.linalg.matrix_power(step, 6), atol=1e-12)
    assert ate(constant_velocity(truth), truth, "none") == pytest.approx(0.0, abs=1e-12)


def test_constant_velocity_needs_two_poses():
    truth = random_trajectory(0)
    truth[1, 0, 0] = np.nan
    for poses in (truth, truth[:1]):
        with pytest.raises(InputError, match="first two true poses"):
            constant_velocity(poses)
