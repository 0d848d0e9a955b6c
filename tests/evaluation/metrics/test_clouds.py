import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.metrics.test_points import assert_golden
from tests.evaluation.trajectories import expected, random_trajectory
from tests.geometry.samples import SEEDS
from tests.goldens import load_npz
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.clouds import align_clouds, crop_half_for, score_clouds
from ttt3r.evaluation.metrics.icp import icp
from ttt3r.evaluation.metrics.points import point_errors
from ttt3r.evaluation.views import unproject

MONITORING = {
    "truth_shift": "gt_shift_z",
    "prediction_shift": "pred_shift_z",
    "truth_radius": "gt_scale",
    "prediction_radius": "pred_scale",
}


def golden_maps():
    """prediction, truth, valid and the first pose of the golden sequence."""
    arrays = load_npz("eval/recon", "pipeline_in")
    pairs = zip(arrays["depth"], arrays["poses"], strict=True)
    views = [unproject(depth, arrays["K"], pose) for depth, pose in pairs]
    truth, valid = (np.stack(parts) for parts in zip(*views, strict=True))
    return arrays["pred_pts"], truth, valid, arrays["poses"][0]


def random_maps(seed, views=3, height=10, width=12):
    """Independent truth and prediction of the same shape."""
    rng = np.random.default_rng(seed)
    shape = (views, height, width)
    truth, prediction = (rng.normal(size=(*shape, 3)).astype(np.float32) for _ in range(2))
    prediction = prediction * np.float32(0.3) + np.float32(2.0)
    return prediction, truth, rng.uniform(size=shape) < 0.8, random_trajectory(seed, 1)[0]


# Goldens


def test_golden_alignment():
    aligned, golden = align_clouds(*golden_maps(), crop_half=20), expected("recon")["pipeline"]
    for ours, theirs in MONITORING.items():
        assert getattr(aligned, ours) == pytest.approx(golden["monitoring"][theirs], rel=1e-6)
    clouds = load_npz("eval/recon", "pipeline_aligned_crop")
    np.testing.assert_allclose(aligned.prediction, clouds["pred"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(aligned.truth, clouds["gt"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "half"), [("crop", 20), ("nocrop", 1000)])
def test_golden_reconstruction(name, half):
    golden = expected("recon")["pipeline"]["result"][name]
    aligned = align_clouds(*golden_maps(), crop_half=half)
    registered = icp(aligned.prediction, aligned.truth)
    np.testing.assert_allclose(registered.transform, golden["icp_T"], rtol=0, atol=1e-4)
    assert registered.fitness == pytest.approx(golden["icp_fitness"], abs=1e-3)
    assert registered.inlier_rmse == pytest.approx(golden["icp_rmse"], rel=1e-4)
    errors = score_clouds(aligned).errors
    assert errors.true_points == golden["n_points"]
    assert_golden(errors, golden, 1e-4 * golden["acc"], 2e-3)


# Alignment


def lower_median(values):
    return np.sort(values)[(len(values) - 1) // 2]


def slow_alignment(prediction, truth, valid, world_from_first, half):
    """Every step as it is told, on whole arrays."""
    camera_from_world = np.linalg.inv(world_from_first)
    truth = truth.astype(np.float64) @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    prediction = prediction.astype(np.float64)
    shifts = [lower_median(points[valid][:, 2]) for points in (prediction, truth)]
    clouds = [
        points - [0.0, 0.0, shift]
        for points, shift in ((prediction, shifts[0]), (truth, shifts[1]))
    ]
    radii = []
    for points in clouds:
        inside = points[valid]
        centre = [lower_median(inside[:, axis]) for axis in range(3)]
        radii.append(lower_median(np.linalg.norm(inside - centre, axis=1)))
    clouds[0] = clouds[0] * radii[1] / min(max(radii[0], 1e-3), 1e3)
    rows, columns = (slice(max(0, side // 2 - half), side // 2 + half) for side in valid.shape[1:])
    kept = valid[:, rows, columns]
    return [
        (points[:, rows, columns][kept] + [0.0, 0.0, shifts[1]]) @ world_from_first[:3, :3].T
        + world_from_first[:3, 3]
        for points in clouds
    ]


@given(SEEDS, st.sampled_from([1, 3, 5, 100]))
def test_alignment_equals_its_steps(seed, half):
    maps = random_maps(seed)
    aligned = align_clouds(*maps, crop_half=half)
    prediction, truth = slow_alignment(*maps, half)
    np.testing.assert_allclose(aligned.prediction, prediction, atol=2e-5)
    np.testing.assert_allclose(aligned.truth, truth, atol=2e-5)


@given(SEEDS, st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_scale_and_depth_of_a_prediction_do_not_matter(seed, scale, shift):
    prediction, *rest = random_maps(seed)
    other = prediction.astype(np.float64) * scale + [0.0, 0.0, shift]
    clouds = [align_clouds(points, *rest, crop_half=3) for points in (prediction, other)]
    np.testing.assert_allclose(clouds[0].prediction, clouds[1].prediction, atol=2e-4)


def test_memory_maps_give_the_same(tmp_path):
    prediction, truth, valid, pose = random_maps(0)
    here = align_clouds(prediction, truth, valid, pose, crop_half=4)
    mapped = []
    for name, array in (("prediction", prediction), ("truth", truth), ("valid", valid)):
        np.save(tmp_path / f"{name}.npy", array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    there = align_clouds(*mapped, pose, crop_half=4)
    np.testing.assert_array_equal(here.prediction, there.prediction)
    assert type(there.truth) is np.ndarray


def test_truth_is_kept_as_it_is():
    prediction, truth, valid, pose = random_maps(0)
    aligned = align_clouds(prediction, truth, valid, pose, crop_half=100)
    np.testing.assert_array_equal(aligned.truth, truth[valid])


def test_the_published_crop_and_its_proportion():
    assert [crop_half_for(width) for width in (512, 256, 160, 2)] == [112, 56, 35, 1]
    assert all(1 <= crop_half_for(width) <= max(1, width // 2) for width in range(1, 700))


def test_what_is_not_valid_does_not_matter():
    prediction, truth, valid, pose = random_maps(0)
    wanted = align_clouds(prediction, truth, valid, pose, crop_half=4)
    prediction[~valid], truth[~valid] = np.nan, np.inf
    ours = align_clouds(prediction, truth, valid, pose, crop_half=4)
    np.testing.assert_array_equal(ours.prediction, wanted.prediction)


# Errors


def test_a_prediction_that_is_right_up_to_scale_has_no_error():
    _, truth, valid, pose = wavy_wall()
    camera_from_world = np.linalg.inv(pose)
    seen = truth @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    aligned = align_clouds(0.2 * seen, truth, valid, pose, crop_half=8)
    errors = score_clouds(aligned).errors
    assert errors.chamfer < 1e-5 and errors.f_score == 1.0
    assert errors.normal_consistency == pytest.approx(1.0, abs=1e-3)


def wavy_wall(views=2, height=16, width=20):
    """Two views of a wavy wall, in float64."""
    v, u = np.indices((height, width))
    truth = []
    for view in range(views):
        x, y = (u - width / 2) * 0.05 + 0.1 * view, (v - height / 2) * 0.05
        truth.append(np.stack([x, y, 2.0 + 0.3 * np.sin(2.0 * x) + 0.2 * np.cos(3.0 * y)], -1))
    truth = np.stack(truth)
    return truth, truth, np.ones(truth.shape[:3], dtype=bool), random_trajectory(5, 1)[0]


def test_errors_are_those_of_the_registered_clouds():
    prediction, truth, valid, _ = wavy_wall()
    prediction = prediction + np.random.default_rng(0).normal(0.0, 0.01, prediction.shape)
    aligned = align_clouds(prediction, truth, valid, np.eye(4), crop_half=8)
    errors = score_clouds(aligned, threshold=0.02).errors
    transform = icp(aligned.prediction, aligned.truth).transform
    moved = aligned.prediction @ transform[:3, :3].T + transform[:3, 3]
    wanted = point_errors(moved, aligned.truth, threshold=0.02)
    for name in ("accuracy", "completeness_median", "f_score", "threshold"):
        assert getattr(errors, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name
    assert errors.normal_consistency is not None


# Hostile input


def test_maps_that_do_not_match():
    prediction, truth, valid, pose = random_maps(0)
    for maps in ((prediction[1:], truth, valid), (prediction, truth, valid[:, 1:])):
        with pytest.raises(InputError, match="do not match"):
            align_clouds(*maps, pose, crop_half=4)


def test_nothing_to_compare():
    prediction, truth, valid, pose = random_maps(0)
    with pytest.raises(InputError, match="no true point"):
        align_clouds(prediction, truth, np.zeros_like(valid), pose, crop_half=4)
    border = np.zeros_like(valid)
    border[:, 0] = True
    with pytest.raises(InputError, match="inside the squares"):
        align_clouds(prediction, truth, border, pose, crop_half=2)
    empty = [array[:0] for array in (prediction, truth, valid)]
    with pytest.raises(InputError, match="no true point"):
        align_clouds(*empty, pose, crop_half=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_points_that_are_not_finite(value, axis):
    prediction, truth, valid, pose = random_maps(0)
    where = (*np.argwhere(valid)[5], axis)
    for name in ("predicted", "true"):
        maps = {"predicted": prediction.copy(), "true": truth.copy()}
        maps[name][where] = value
        with pytest.raises(InputError, match=f"of {valid.sum()} {name} points"):
            align_clouds(*maps.values(), valid, pose, crop_half=4)


def test_a_prediction_beyond_single_precision():
    prediction, truth, valid, pose = random_maps(0)
    with pytest.raises(InputError, match="predicted points"):
        align_clouds(prediction.astype(np.float64) * 1e300, truth, valid, pose, crop_half=4)


def test_clouds_without_size():
    prediction, truth, valid, pose = random_maps(0)
    with pytest.raises(InputError, match="predicted points coincide"):
        align_clouds(np.ones_like(prediction), truth, valid, pose, crop_half=4)
    with pytest.raises(InputError, match="true points coincide"):
        align_clouds(prediction, np.zeros_like(truth), valid, np.eye(4), crop_half=4)


def test_unusable_pose_and_crop():
    prediction, truth, valid, pose = random_maps(0)
    with pytest.raises(InputError, match="pose of the first frame"):
        align_clouds(prediction, truth, valid, pose * np.nan, crop_half=4)
    with pytest.raises(SettingError, match="at least 1"):
        align_clouds(prediction, truth, valid, pose, crop_half=0)


def test_tiny_predictions_are_scaled_by_at_most_the_published_bound():
    prediction, truth, valid, pose = random_maps(0)
    aligned = align_clouds(prediction * np.float32(1e-6), truth, valid, pose, crop_half=4)
    assert aligned.prediction_radius == 1e-3


def test_too_few_points_have_no_errors():
    aligned = align_clouds(*random_maps(0), crop_half=4)
    few = dataclasses.replace(aligned, prediction=aligned.prediction[:2], truth=aligned.truth[:2])
    with pytest.raises(InputError, match="2 points"):
        score_clouds(few)
