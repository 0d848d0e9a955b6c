import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.evaluation.test_results import mean_of
from tests.evaluation.trajectories import associate, expected, load_case, random_trajectory
from tests.geometry.samples import SEEDS, random_rigid, random_similarity
from tests.goldens import goldens
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.trajectory import (
    TrajectoryErrors,
    align,
    ate,
    finite_poses,
    path_length,
    rotation_error_deg,
    rpe,
    trajectory_errors,
)
from ttt3r.geometry import se3
from ttt3r.runs.trajectory import Trajectory

SCORED = [
    *("basic90", "exact_sim3", "drift300", "near_static", "planar", "mirrored_positions"),
    *("replica_equal", "replica_fewer_pred", "three_poses", "sintel"),
]
REFUSED = {
    "collinear": "cannot be aligned",
    "pred_constant_position": "cannot be aligned",
    "gt_constant_position": "cannot be aligned",
    "two_poses": "cannot be aligned",
    "one_pose": "cannot be aligned",
    "pred_nan_position": "estimated pose of frame 7 is not finite",
    "pred_nan_rotation": "estimated pose of frame 7 is not finite",
    "tum_fewer_pred": "cannot be aligned",
    "replica_inf_gt": "true pose of frame 30 is not finite",
    "replica_nan_gt": "true pose of frame 30 is not finite",
}


def associated(name):
    """The golden's numbers, and its poses paired by time stamp."""
    case = expected("pose")["cases"][name]
    estimate, own, truth, stamps = load_case(case)
    first, second = associate(own, stamps)
    return case["result"], estimate[first], truth[second]


def in_the_world(similarity, poses):
    """Move cameras into another world, as `se3.place_camera` does, scale included."""
    return se3.place_camera(similarity.expand(len(poses), 4, 4), torch.from_numpy(poses)).numpy()


def turn(degrees):
    """A rotation about z [3, 3]."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def straight(*positions):
    """Unrotated poses at positions (x, 0, 0)."""
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, 0, 3] = positions
    return poses


# Goldens


def test_every_golden_case_is_known():
    assert set(expected("pose")["cases"]) == {*SCORED, *REFUSED}


@pytest.mark.parametrize("name", SCORED)
def test_golden_errors(name):
    result, estimate, truth = associated(name)
    errors = trajectory_errors(estimate, truth)
    assert result["ok"]
    assert errors.frames == result["n_associated"] == errors.pairs + 1
    assert errors.ate == pytest.approx(result["ate"], rel=0, abs=1e-8)
    assert errors.rpe_translation == pytest.approx(result["rpe_trans"], rel=0, abs=1e-8)
    assert errors.rpe_rotation_deg == pytest.approx(result["rpe_rot_deg"], rel=0, abs=1e-8)
    assert ate(estimate, truth) == errors.ate
    relative = rpe(estimate, truth)
    assert relative == (errors.rpe_translation, errors.rpe_rotation_deg, errors.pairs)


@pytest.mark.parametrize("name", SCORED)
def test_golden_alignment(name):
    result, estimate, truth = associated(name)
    if name == "sintel":  # there the reference moved the truth to its mean position
        truth[:, :3, 3] -= truth[:, :3, 3].mean(0)
    similarity = align(estimate, truth)
    golden, tolerance = result["align"], 1e-6 if name == "near_static" else 1e-7
    linear = golden["s"] * np.array(golden["R"])
    np.testing.assert_allclose(similarity[:3, :3], linear, rtol=0, atol=tolerance)
    np.testing.assert_allclose(similarity[:3, 3], golden["t"], rtol=0, atol=tolerance)
    assert trajectory_errors(estimate, truth).scale == pytest.approx(golden["s"], abs=tolerance)
    if "ape_errors" in result:
        moved = se3.apply(
            torch.from_numpy(similarity), torch.from_numpy(estimate[:, :3, 3]).double()
        )
        distances = np.linalg.norm(moved.numpy() - truth[:, :3, 3], axis=-1)
        np.testing.assert_allclose(distances, result["ape_errors"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", REFUSED)
def test_golden_refusals(name):
    assert not expected("pose")["cases"][name]["result"]["ok"]
    with pytest.raises(InputError, match=REFUSED[name]):
        trajectory_errors(*associated(name)[1:])


@pytest.mark.parametrize("name", ["replica_inf_gt", "replica_nan_gt"])
def test_unknown_golden_poses_can_be_masked(name):
    _, estimate, truth = associated(name)
    valid = finite_poses(truth)
    assert np.flatnonzero(~valid).tolist() == [30]
    masked = trajectory_errors(estimate, truth, valid=valid)
    assert (masked.frames, masked.pairs) == (len(truth) - 1, len(truth) - 3)
    without = (np.delete(poses, 30, axis=0) for poses in (estimate, truth))
    assert masked.ate == ate(*without)


def test_golden_sintel_cameras():
    """Our conversion of the stored ``camera_from_world``."""
    case = expected("pose")["cases"]["sintel"]
    _, _, truth, stamps = load_case(case)
    np.testing.assert_array_equal(stamps, case["loaded_stamps"])
    truth[:, :3, 3] -= truth[:, :3, 3].mean(0)
    encoding = torch.tensor(case["loaded_xyz_qwxyz"], dtype=torch.float64)
    golden = se3.pose_from_encoding(encoding).numpy()
    np.testing.assert_allclose(truth, golden, rtol=0, atol=1e-9)


def test_golden_mean():
    averaging = expected("pose")["averaging"]
    names = ("ate", "rpe_translation", "rpe_rotation_deg")
    errors = [trajectory_errors(*associated(n)[1:]) for n in averaging["files"]]
    found = mean_of([{name: getattr(e, name) for name in names} for e in errors])
    means = [found[name] for name in names]
    np.testing.assert_allclose(means, averaging["mean_ate_rpet_rper"], rtol=0, atol=5e-7)


def test_golden_trajectory_file_but_for_its_order():
    """The reference wrote quaternions w first, which no reader of TUM files expects."""
    folder = goldens("eval") / "pose"
    golden = np.loadtxt(folder / "save_traj_upstream.txt")
    poses = torch.from_numpy(np.load(folder / "save_traj_in_c2w.npy")).float()
    text = Trajectory(torch.from_numpy(golden[:, 0]), poses).to_tum()
    ours = np.loadtxt(text.splitlines())
    w_first = ours[:, [0, 1, 2, 3, 7, 4, 5, 6]]
    signs = np.sign((w_first[:, 4:] * golden[:, 4:]).sum(-1, keepdims=True))
    w_first[:, 4:] *= signs
    np.testing.assert_allclose(w_first, golden, rtol=0, atol=1e-6)


# Properties


@given(SEEDS)
def test_a_similar_trajectory_has_no_error(seed):
    truth, similarity = random_trajectory(seed), random_similarity(seed)
    errors = trajectory_errors(in_the_world(similarity, truth), truth)
    assert errors.ate == pytest.approx(0.0, abs=1e-9)
    assert errors.rpe_translation == pytest.approx(0.0, abs=1e-9)
    assert errors.rpe_rotation_deg == pytest.approx(0.0, abs=1e-9)
    assert errors.scale == pytest.approx(1.0 / float(se3.similarity_scale(similarity)), rel=1e-9)


@given(SEEDS)
def test_errors_do_not_depend_on_the_world_of_the_estimate(seed):
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    for alignment, change in (("sim3", random_similarity(seed)), ("se3", random_rigid(seed))):
        before = trajectory_errors(estimate, truth, alignment)
        after = trajectory_errors(in_the_world(change, estimate), truth, alignment)
        rescaled = before.scale / float(se3.similarity_scale(change))
        wanted = dataclasses.replace(before, scale=rescaled)
        assert dataclasses.astuple(after) == pytest.approx(dataclasses.astuple(wanted), rel=1e-7)


@given(SEEDS)
def test_errors_scale_with_the_truth(seed):
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    larger = truth.copy()
    larger[:, :3, 3] *= 3.0
    before, after = trajectory_errors(estimate, truth), trajectory_errors(estimate, larger)
    assert after.ate == pytest.approx(3.0 * before.ate)
    assert after.rpe_translation == pytest.approx(3.0 * before.rpe_translation)
    assert after.rpe_rotation_deg == pytest.approx(before.rpe_rotation_deg)


@given(SEEDS)
def test_more_freedom_fits_no_worse(seed):
    estimate, truth = random_trajectory(seed), random_trajectory(seed + 1)
    errors = [ate(estimate, truth, alignment) for alignment in ("sim3", "se3", "none")]
    assert errors == sorted(errors)


def test_absolute_error_by_hand():
    assert ate(straight(0.0, 1.0, 2.0), straight(0.0, 4.0, 2.0), "none") == pytest.approx(
        math.sqrt(9.0 / 3.0)
    )


def test_relative_errors_by_hand():
    truth, estimate = straight(0.0, 1.0, 2.0), straight(0.0, 1.0, 4.0)
    estimate[2, :3, :3] = turn(30.0)
    translation, rotation, pairs = rpe(estimate, truth, alignment="none")
    assert translation == pytest.approx(2.0 / math.sqrt(2.0))  # steps of 1 and 3 instead of 1 and 1
    assert rotation == pytest.approx(30.0 / math.sqrt(2.0))
    assert pairs == 2
    assert rpe(estimate, truth, delta=2, alignment="none") == pytest.approx((2.0, 30.0, 1))


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 90.0, 179.999999, 180.0])
def test_angles_are_precise_everywhere(degrees):
    truth, estimate = straight(0.0, 1.0), straight(0.0, 1.0)
    estimate[1, :3, :3] = turn(degrees)
    assert rotation_error_deg(estimate, truth) == pytest.approx(degrees, rel=1e-9, abs=1e-13)


def test_rotation_error_counts_from_the_first_valid_frame():
    truth = straight(0.0, 1.0, 2.0, 3.0)
    estimate = truth.copy()
    for i, degrees in enumerate((50.0, 10.0, 20.0, 40.0)):
        estimate[i, :3, :3] = turn(degrees)
    assert rotation_error_deg(estimate, truth) == pytest.approx((40.0 + 30.0 + 10.0) / 3)
    valid = np.array([False, True, True, True])
    assert rotation_error_deg(estimate, truth, valid) == pytest.approx((10.0 + 30.0) / 2)
    with pytest.raises(InputError, match="two frames"):
        rotation_error_deg(estimate, truth, np.array([True, False, False, False]))


def test_a_gap_breaks_pairs():
    estimate, truth = random_trajectory(0), random_trajectory(1)
    valid = np.ones(len(truth), dtype=bool)
    valid[[4, 5]] = False
    assert rpe(estimate, truth, valid=valid).pairs == len(truth) - 4
    truth[4:6] = -np.inf
    assert rpe(estimate, truth, valid=valid).pairs == len(truth) - 4


def test_a_failed_estimate_is_refused_even_where_the_truth_is_unknown():
    estimate, truth = random_trajectory(0), random_trajectory(1)
    estimate[3, 0, 0] = np.nan
    with pytest.raises(InputError, match="estimated pose of frame 3 is not finite"):
        trajectory_errors(estimate, truth, valid=np.arange(len(truth)) != 3)


def test_what_is_refused():
    poses = random_trajectory(0)
    with pytest.raises(InputError, match="12 estimated poses but 11 true"):
        ate(poses, poses[1:])
    with pytest.raises(InputError, match="mask has 3 entries for 12 poses"):
        ate(poses, poses, valid=np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="frame 0 is not a rotation"):
        ate(2.0 * poses, poses)
    with pytest.raises(InputError, match="no true pose is known"):
        ate(poses, poses, "none", np.zeros(12, dtype=bool))
    with pytest.raises(InputError, match="no pair of frames 12 apart"):
        rpe(poses, poses, delta=12)
    with pytest.raises(SettingError, match="delta is 0"):
        rpe(poses, poses, delta=0)


def test_a_line_is_refused_unless_nothing_is_aligned():
    line = straight(0.0, 1.0, 2.0, 3.5)
    for alignment in ("sim3", "se3"):
        with pytest.raises(InputError, match="lie on a line"):
            trajectory_errors(line, line, alignment)
    assert trajectory_errors(line, line, "none") == TrajectoryErrors(
        *[0.0] * 3, 1.0, frames=4, pairs=3
    )


def test_inputs_are_left_alone():
    estimate, truth = random_trajectory(0), random_trajectory(1)
    copies = estimate.copy(), truth.copy()
    trajectory_errors(estimate, truth)
    np.testing.assert_array_equal((estimate, truth), copies)


def test_path_length():
    poses = straight(0.0, 1.0, 0.5, 4.0)
    assert path_length(poses) == pytest.approx(5.0)
    assert path_length(poses[:1]) == 0.0
    poses[1, 1, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        path_length(poses)
    assert path_length(poses, finite_poses(poses)) == pytest.approx(4.0)
