import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from tests.evaluation.metrics.test_neighbours import brute_force, surface
from tests.evaluation.trajectories import expected
from tests.geometry.samples import SEEDS
from tests.goldens import load_npz
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics import normals
from ttt3r.evaluation.metrics.icp import icp, transformed
from ttt3r.evaluation.metrics.neighbours import Neighbours
from ttt3r.evaluation.metrics.normals import estimate_normals
from ttt3r.evaluation.metrics.points import point_errors

# Our names of what the goldens call otherwise.
KEYS = {
    "accuracy": "acc",
    "accuracy_median": "acc_med",
    "completeness": "comp",
    "completeness_median": "comp_med",
    "normal_consistency": "nc",
    "normal_consistency_1": "nc1",
    "normal_consistency_2": "nc2",
    "normal_consistency_median": "nc_med",
    "normal_consistency_1_median": "nc1_med",
    "normal_consistency_2_median": "nc2_med",
    "chamfer": "chamfer_half_sum",
    "recall": "completion_ratio_0_05",
}
ICP_CASES = ["small", "medium", "outside_threshold"]


def assert_golden(errors, golden, tolerance, normal_tolerance):
    """Compare all that the golden has."""
    for ours, theirs in KEYS.items():
        if theirs in golden:
            allowed = normal_tolerance if ours.startswith("normal") else tolerance
            assert getattr(errors, ours) == pytest.approx(golden[theirs], rel=0, abs=allowed), ours


def rotation(vector):
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    if angle == 0.0:
        return np.eye(3)
    x, y, z = np.array(vector) / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross


def unit(seed, count):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Goldens


def test_golden_errors():
    arrays, golden = load_npz("eval/recon", "nn_metrics"), expected("recon")["nn_metrics"]
    clouds = (arrays[key] for key in ("pred_points", "gt_points", "pred_normals", "gt_normals"))
    errors = point_errors(*clouds)
    assert set(KEYS.values()) | {"note"} == set(golden)
    assert_golden(errors, golden, 1e-7, 1e-7)
    assert (errors.predicted_points, errors.true_points) == (2163, 3000)


def test_golden_normals():
    arrays = load_npz("eval/recon", "normals_open3d")
    ours = estimate_normals(arrays["points"])
    agreement = np.abs((ours * arrays["normals"]).sum(1))
    assert (agreement >= 0.9999).mean() >= 0.995


def test_every_golden_case_is_known():
    assert set(expected("recon")["icp"]["cases"]) == set(ICP_CASES)


@pytest.mark.parametrize("name", ICP_CASES)
def test_golden_icp(name):
    arrays, golden = load_npz("eval/recon", "nn_metrics"), expected("recon")["icp"]["cases"][name]
    source = arrays["pred_points"] @ rotation(golden["rotvec"]).T + np.array(golden["t"])
    target = Neighbours(arrays["gt_points"])
    result = icp(source, target)
    np.testing.assert_allclose(result.transform, golden["transformation"], rtol=0, atol=1e-4)
    assert result.fitness == pytest.approx(golden["fitness"], abs=1e-3)
    assert result.inlier_rmse == pytest.approx(golden["inlier_rmse"], abs=1e-4)
    moved = Neighbours(transformed(source, result.transform))
    errors = point_errors(moved, target, estimate_normals(moved), estimate_normals(target))
    assert_golden(errors, golden, 1e-4, 2e-3)


# Errors of clouds


def slow_errors(prediction, truth, threshold, prediction_normals, truth_normals):
    """From the table of all distances."""
    table = brute_force(truth, prediction)
    accuracy, completeness = table.min(1), table.min(0)
    cosines = np.abs(prediction_normals @ truth_normals.T)
    first = cosines[np.arange(len(prediction)), table.argmin(1)]
    second = cosines[table.argmin(0), np.arange(len(truth))]
    precision, recall = (accuracy < threshold).mean(), (completeness < threshold).mean()
    return {
        "accuracy": accuracy.mean(),
        "accuracy_median": np.median(accuracy),
        "completeness": completeness.mean(),
        "completeness_median": np.median(completeness),
        "chamfer": (accuracy.mean() + completeness.mean()) / 2.0,
        "normal_consistency": (np.mean(first) + np.mean(second)) / 2.0,
        "normal_consistency_1": np.mean(first),
        "normal_consistency_2": np.mean(second),
        "normal_consistency_median": (np.median(first) + np.median(second)) / 2.0,
        "normal_consistency_1_median": np.median(first),
        "normal_consistency_2_median": np.median(second),
        "precision": precision,
        "recall": recall,
        "f_score": 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "threshold": threshold,
        "predicted_points": len(prediction),
        "true_points": len(truth),
    }


@given(SEEDS)
def test_errors_equal_their_definition(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = rng.normal(size=(80, 3)), rng.normal(size=(61, 3))
    given = unit(seed, 80), unit(seed + 1, 61)
    errors = point_errors(prediction, truth, *given, threshold=0.4)
    slow = slow_errors(prediction, truth, 0.4, *given)
    assert dataclasses.asdict(errors) == pytest.approx(slow)


@given(SEEDS)
def test_swapping_the_clouds_swaps_the_errors(seed):
    clouds = surface(seed, 200), surface(seed + 1, 150)
    vectors = unit(seed, 200), unit(seed + 1, 150)
    there, back = point_errors(*clouds, *vectors), point_errors(*clouds[::-1], *vectors[::-1])
    assert (there.accuracy, there.recall) == (back.completeness, back.precision)
    assert there.normal_consistency_1 == back.normal_consistency_2
    assert there.chamfer == pytest.approx(back.chamfer)
    assert there.f_score == pytest.approx(back.f_score)


def test_identical_clouds_have_no_error():
    points = surface(0, 200)[40:]
    errors = point_errors(points, points)
    assert (errors.chamfer, errors.f_score) == (0.0, 1.0)
    assert errors.normal_consistency is None


def test_far_clouds_have_no_f_score():
    points = surface(0, 50)
    errors = point_errors(points, points + 100.0)
    assert (errors.precision, errors.recall, errors.f_score) == (0.0, 0.0, 0.0)
    assert errors.accuracy > 50.0


def test_unusable_clouds():
    points = surface(0, 50)
    vectors = unit(0, 50)
    for wrong in (np.zeros((0, 3)), np.full((5, 3), np.nan)):
        for clouds in ((wrong, points), (points, wrong)):
            with pytest.raises(InputError):
                point_errors(*clouds)
    with pytest.raises(InputError, match="both or none"):
        point_errors(points, points, vectors)
    with pytest.raises(InputError, match="49 normals for 50 points"):
        point_errors(points, points, vectors, vectors[1:])
    with pytest.raises(InputError, match="normal is not finite"):
        point_errors(points, points, vectors, vectors * np.nan)
    for threshold in (0.0, float("nan")):
        with pytest.raises(SettingError, match="threshold"):
            point_errors(points, points, threshold=threshold)


# Normals


@given(SEEDS)
def test_normals_equal_their_definition(seed):
    points = np.random.default_rng(seed).normal(size=(60, 3))
    ours = estimate_normals(points, neighbours=7)
    for point, normal in zip(points, ours, strict=True):
        patch = points[np.argsort(np.linalg.norm(points - point, axis=1))[:7]]
        flattest = np.linalg.svd(patch - patch.mean(0))[2][-1]
        assert abs(flattest @ normal) == pytest.approx(1.0)


def test_normals_of_a_plane_are_its_own(monkeypatch):
    monkeypatch.setattr(normals, "BLOCK", 64)
    rng = np.random.default_rng(0)
    direction = np.array([0.36, 0.48, 0.8])
    points = rng.normal(size=(500, 3))
    points -= np.outer(points @ direction, direction) - 3.0 * direction
    np.testing.assert_allclose(np.abs(estimate_normals(points) @ direction), 1.0)
    np.testing.assert_allclose(np.abs(estimate_normals(points[:4]) @ direction), 1.0)


def test_normals_of_degenerate_patches_are_unit_vectors_across():
    line = np.outer(np.arange(20.0), [1.0, 2.0, 2.0]) / 3.0
    across = estimate_normals(line)
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), 1.0)
    np.testing.assert_allclose(across @ [1.0, 2.0, 2.0], 0.0, atol=1e-6)
    same = estimate_normals(np.ones((40, 3)))
    np.testing.assert_allclose(np.linalg.norm(same, axis=1), 1.0)


def test_normals_of_nearly_nothing():
    with pytest.raises(InputError, match="2 points has no normals"):
        estimate_normals(np.eye(3)[:2])
    with pytest.raises(SettingError, match="at least 3"):
        estimate_normals(np.eye(3), neighbours=2)


# Iterated closest points


def slow_icp(source, target, max_distance, rounds, tolerance):
    """Kabsch on the pairs of the table of all distances, moving the cloud itself."""
    total, last = np.eye(4), None
    for _ in range(rounds + 1):  # the last only matches
        table = brute_force(target, source)
        near = table.min(1) < max_distance
        state = np.array([near.mean(), np.sqrt(np.square(table.min(1)[near]).mean())])
        done = last is not None and (np.abs(state - last) < tolerance).all()
        last = state
        if done:
            break
        pairs = source[near], target[table.argmin(1)[near]]
        x, y = (p - p.mean(0) for p in pairs)
        left, _, right = np.linalg.svd(y.T @ x)
        turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = turn, pairs[1].mean(0) - turn @ pairs[0].mean(0)
        source, total = source @ turn.T + step[:3, 3], step @ total
    return total, last


@settings(max_examples=20)
@given(SEEDS)
def test_icp_equals_its_definition(seed):
    target = surface(seed, 300)
    source = target[::2] @ rotation([0.02, -0.01, 0.03]).T + [0.03, 0.0, -0.02]
    ours = icp(source, target, max_distance=0.2, tolerance=1e-4)
    transform, state = slow_icp(source, target, 0.2, 30, 1e-4)
    np.testing.assert_allclose(ours.transform, transform, atol=1e-9)
    assert (ours.fitness, ours.inlier_rmse) == pytest.approx(tuple(state), rel=1e-3)


@settings(max_examples=20)
@given(SEEDS)
def test_icp_finds_small_motions(seed):
    target = surface(seed, 2000)
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation([0.004, -0.004, 0.003]), [0.004, -0.003, 0.002]
    result = icp(transformed(target, moved), target, rounds=60, tolerance=1e-9)
    assert result.fitness == 1.0
    np.testing.assert_allclose(result.transform @ moved, np.eye(4), atol=2e-3)


def test_icp_of_clouds_out_of_reach_stays_where_it_is():
    points = surface(0, 100)
    far = points + 100.0
    result = icp(points, far)
    assert (result.fitness, result.inlier_rmse, result.rounds) == (0.0, 0.0, 0)
    np.testing.assert_array_equal(result.transform, np.eye(4))
    far[0], far[1] = points[20], points[21]  # two pairs determine nothing
    assert icp(points, far, max_distance=1e-6).rounds == 0


def test_icp_stops_after_its_rounds():
    points = surface(0, 300)
    assert icp(points + 0.03, points, rounds=2).rounds == 2
    assert icp(points, points).rounds == 1


def test_icp_of_unusable_clouds():
    points = surface(0, 100)
    with pytest.raises(InputError, match="shape"):
        icp(np.zeros((0, 3)), points)
    with pytest.raises(InputError, match="not finite"):
        icp(points * np.nan, points)
    with pytest.raises(InputError, match=r"iterated closest points failed.*coincide"):
        icp(np.ones((10, 3)), np.ones((10, 3)))
    with pytest.raises(SettingError, match="positive"):
        icp(points, points, max_distance=0.0)
