import math
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.evaluation.metrics.test_trajectory import in_the_world, straight, turn
from tests.evaluation.trajectories import random_trajectory
from tests.geometry.samples import SEEDS, normal, random_rigid, random_similarity
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.pairs import pair_accuracy, pair_angles
from ttt3r.geometry import se3


def slow_angles(estimate, truth):
    """Rotation and translation error of every pair, one at a time."""
    found = []
    for i, j in combinations(range(len(truth)), 2):
        told, true = (np.linalg.inv(poses[i]) @ poses[j] for poses in (estimate, truth))
        between = true[:3, :3].T @ told[:3, :3]
        sine = np.linalg.norm(between - between.T) / math.sqrt(2.0)
        rotation = math.degrees(math.atan2(sine, np.trace(between) - 1.0))
        a, b = told[:3, 3], true[:3, 3]
        cosine = abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
        found.append((rotation, math.degrees(math.acos(min(cosine, 1.0)))))
    return np.array(found).T


def slow_accuracy(estimate, truth, threshold, bins):
    """AUC, RRA and RTA by their definitions."""
    rotation, translation = slow_angles(estimate, truth)
    worse = np.maximum(rotation, translation)
    area = np.mean([np.mean(worse < 30.0 * k / bins) for k in range(1, bins + 1)])
    return area, np.mean(rotation < threshold), np.mean(translation < threshold)


def angles(estimate, truth, valid=None):
    """Rotation and translation error of every pair, [2, pairs]."""
    return np.concatenate([np.stack(row) for row in pair_angles(estimate, truth, valid)], axis=1)


def nearby(truth, seed):
    """The trajectory, every pose a little off."""
    noise = normal(seed, len(truth), 6) * 0.1
    encoding = torch.cat([noise[:, :3], torch.ones(len(truth), 1).double(), noise[:, 3:]], dim=-1)
    return truth @ se3.pose_from_encoding(encoding).numpy()


# Against the slow twin


@given(SEEDS)
def test_angles_are_those_of_the_slow_twin(seed):
    truth = random_trajectory(seed)
    for estimate in (random_trajectory(seed + 1), nearby(truth, seed)):
        np.testing.assert_allclose(
            angles(estimate, truth), slow_angles(estimate, truth), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("bins", [1, 30, 31])
def test_fractions_are_those_of_the_slow_twin(bins):
    truth = random_trajectory(5, 20)
    estimate = nearby(truth, 6)
    found = pair_accuracy(estimate, truth, (7.5, 20.0), bins=bins)
    for threshold in (7.5, 20.0):
        area, rra, rta = slow_accuracy(estimate, truth, threshold, bins)
        assert 0.0 < area < 1.0 and 0.0 < rta < 1.0
        assert found.auc == pytest.approx(area, abs=1e-12)
        assert found.rra[threshold] == rra and found.rta[threshold] == rta
    assert found.pairs == found.moving == 190


# Properties


@given(SEEDS)
def test_what_is_right_scores_one(seed):
    truth = random_trajectory(seed)
    found = pair_accuracy(in_the_world(random_similarity(seed), truth), truth)
    assert found.auc == 1.0
    assert set(found.rra.values()) == set(found.rta.values()) == {1.0}
    assert found.rra.keys() == found.rta.keys() == {5.0, 15.0, 30.0}


@given(SEEDS)
def test_similarities_of_either_world_change_nothing(seed):
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    moved = (
        in_the_world(random_similarity(seed + i), poses)
        for i, poses in enumerate((estimate, truth))
    )
    np.testing.assert_allclose(angles(*moved), angles(estimate, truth), rtol=0, atol=1e-6)


@given(SEEDS)
def test_rotations_do_not_depend_on_the_order_of_frames(seed):
    """Directions do: the first camera of a pair sees them, and it is turned wrongly too."""
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    order = np.random.default_rng(seed).permutation(len(truth))
    before, after = angles(estimate, truth), angles(estimate[order], truth[order])
    np.testing.assert_allclose(np.sort(after[0]), np.sort(before[0]), rtol=0, atol=1e-6)
    estimate[:, :3, :3] = truth[:, :3, :3]
    before, after = angles(estimate, truth), angles(estimate[order], truth[order])
    np.testing.assert_allclose(np.sort(after[1]), np.sort(before[1]), rtol=0, atol=1e-6)


@given(SEEDS)
def test_estimate_and_truth_can_change_places(seed):
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    np.testing.assert_allclose(angles(estimate, truth), angles(truth, estimate), rtol=0, atol=1e-6)


def test_chance_scores_what_geometry_says():
    """A random line is within 30° of another with 1 − cos 30°, a rotation with (30° − ½)/π."""
    estimate, truth = (random_rigid(seed, 400).numpy() for seed in (0, 1))
    found = pair_accuracy(estimate, truth)
    assert found.rta[30.0] == pytest.approx(1.0 - math.cos(math.pi / 6), abs=0.01)
    assert found.rra[30.0] == pytest.approx((math.pi / 6 - 0.5) / math.pi, abs=0.003)
    assert found.auc < 0.01


def test_finer_steps_tend_to_the_area_under_the_curve():
    truth = random_trajectory(5, 20)
    estimate = nearby(truth, 6)
    worse = slow_angles(estimate, truth).max(0)
    area = np.mean(np.maximum(30.0 - worse, 0.0)) / 30.0
    assert pair_accuracy(estimate, truth, bins=3000).auc == pytest.approx(area, abs=1e-3)


# By hand


def test_rotations_by_hand():
    truth, estimate = straight(0.0, 1.0, 2.0), straight(0.0, 1.0, 2.0)
    for i, degrees in enumerate((0.0, 10.0, -170.0)):
        estimate[i, :3, :3] = turn(degrees)
    rotation, translation = angles(estimate, truth)
    assert rotation == pytest.approx([10.0, 170.0, 180.0], abs=1e-5)
    assert translation == pytest.approx([0.0, 0.0, 10.0])


def test_half_turns_about_any_axis():
    """Rounding makes some of them more than half a turn."""
    axes = normal(0, 200, 3).numpy()
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    truth = straight(*np.arange(201.0))
    estimate = truth.copy()
    estimate[1:, :3, :3] = 2.0 * axes[:, :, None] * axes[:, None, :] - np.eye(3)
    first = next(pair_angles(estimate, truth))
    np.testing.assert_allclose(first.rotation, 180.0, rtol=0, atol=1e-5)


def test_opposite_directions_are_the_same():
    truth, estimate = straight(0.0, 1.0, 2.0), straight(0.0, -1.0, -2.0)
    assert pair_accuracy(estimate, truth).auc == 1.0
    estimate[:, :2, 3] = estimate[:, 1::-1, 3]  # along y
    found = pair_accuracy(estimate, truth)
    assert found.auc == 0.0 and found.rra[5.0] == 1.0 and found.rta[30.0] == 0.0
    assert angles(estimate, truth)[1].tolist() == [90.0] * 3


def test_the_area_by_hand():
    truth, estimate = straight(0.0, 1.0), straight(0.0, 1.0)
    for degrees, of_30, of_31 in ((0.5, 30, 31), (14.5, 16, 17), (29.5, 1, 1), (30.5, 0, 0)):
        estimate[1, :3, :3] = turn(degrees)
        assert pair_accuracy(estimate, truth).auc == pytest.approx(of_30 / 30)
        assert pair_accuracy(estimate, truth, bins=31).auc == pytest.approx(of_31 / 31)


def test_a_pair_that_stands_still_counts_by_its_rotation():
    truth, estimate = straight(0.0, 0.0, 1.0), straight(0.0, 0.5, 1.0)
    estimate[1, :3, :3] = turn(20.0)
    rotation, translation = angles(estimate, truth)
    assert np.isnan(translation).tolist() == [True, False, False]
    assert translation[1:] == pytest.approx([0.0, 20.0])
    found = pair_accuracy(estimate, truth, (15.0,))
    assert (found.pairs, found.moving) == (3, 2)
    assert found.rra == {15.0: pytest.approx(1 / 3)} and found.rta == {15.0: 0.5}
    assert found.auc == pytest.approx((10 / 30 + 1.0 + 10 / 30) / 3)
    assert rotation == pytest.approx([20.0, 0.0, 20.0])


def test_rounding_is_no_movement():
    truth = straight(0.0, 1e-7, 1.0)
    assert np.isnan(angles(truth, truth)[1]).tolist() == [True, False, False]


def test_an_estimate_that_stands_still_is_wrong():
    truth = straight(0.0, 1.0, 2.0)
    found = pair_accuracy(straight(3.0, 3.0, 3.0), truth)
    assert found.rra[5.0] == 1.0 and found.rta[30.0] == 0.0 and found.auc == 0.0
    assert angles(straight(0.0, 0.0, 2.0), truth)[1].tolist() == [90.0, 0.0, 0.0]


def test_unknown_poses_are_left_out():
    estimate, truth = random_trajectory(0), random_trajectory(1)
    valid = np.ones(len(truth), dtype=bool)
    valid[[0, 7]] = False
    without = pair_accuracy(estimate[valid], truth[valid])
    truth[[0, 7]] = -np.inf
    assert pair_accuracy(estimate, truth, valid=valid) == without
    assert without.pairs == 45


# Size and refusals


def test_memory_does_not_grow_with_the_pairs():
    estimate, truth = random_trajectory(0, 1000), random_trajectory(1, 1000)
    tracemalloc.start()
    found = pair_accuracy(estimate, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.pairs == 499_500
    assert peak < 3e6  # a number per pair would be 4e6


def test_what_is_refused():
    poses = random_trajectory(0)
    with pytest.raises(InputError, match="12 estimated poses but 11 true"):
        pair_accuracy(poses, poses[1:])
    with pytest.raises(InputError, match="mask has 3 entries for 12 poses"):
        pair_accuracy(poses, poses, valid=np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="frame 0 is not a rotation"):
        pair_accuracy(2.0 * poses, poses)
    spoilt = poses.copy()
    spoilt[3, 0, 3] = np.nan
    with pytest.raises(InputError, match="estimated pose of frame 3 is not finite"):
        pair_accuracy(spoilt, poses, valid=np.arange(12) != 3)
    with pytest.raises(InputError, match="true pose of frame 3 is not finite"):
        pair_angles(poses, spoilt)
    for few in (poses[:0], poses[:1]):
        with pytest.raises(InputError, match="at least two frames"):
            pair_angles(few, few)
    with pytest.raises(InputError, match="at least two frames"):
        pair_accuracy(poses, poses, valid=np.arange(12) == 3)
    with pytest.raises(InputError, match="never moves"):
        pair_accuracy(poses, straight(*[1.0] * 12))
    with pytest.raises(SettingError, match="bins is 0"):
        pair_accuracy(poses, poses, bins=0)
    for threshold in (0.0, -5.0, math.nan):
        with pytest.raises(SettingError, match="positive angles"):
            pair_accuracy(poses, poses, (15.0, threshold))


def test_inputs_are_left_alone():
    estimate, truth = random_trajectory(0), random_trajectory(1)
    copies = estimate.copy(), truth.copy()
    pair_accuracy(estimate, truth)
    np.testing.assert_array_equal((estimate, truth), copies)


def test_far_and_tiny_trajectories_have_the_same_angles():
    estimate, truth = random_trajectory(0), random_trajectory(1)
    expected = angles(estimate, truth)
    for factor in (1e-200, 1e200):
        scaled = estimate.copy()
        scaled[:, :3, 3] *= factor
        np.testing.assert_allclose(angles(scaled, truth), expected, rtol=0, atol=1e-6)
