"""Camera poses: what is scored, what unknown truth does, and what is kept."""

import numpy as np
import pytest

from tests.evaluation.arrays import array_sequence
from tests.evaluation.tasks.told import POLICY, protocol, scene, show
from ttt3r.evaluation.metrics.pairs import pair_accuracy
from ttt3r.evaluation.metrics.trajectory import trajectory_errors
from ttt3r.evaluation.results import METRICS
from ttt3r.evaluation.sequences import Sequence
from ttt3r.evaluation.tasks.pose import PoseRecorder
from ttt3r.evaluation.text import read_tum


def recorder(folder, sequence, variant="published"):
    return PoseRecorder(protocol("pose", variant), sequence, POLICY, folder)


def truth_of(sequence):
    return np.stack([true.world_from_camera for true in sequence])


def noisy(seed=0, size=0.05):
    random = np.random.default_rng(seed)

    def predict(index, true, frame):
        pose = np.eye(4) if true.world_from_camera is None else true.world_from_camera.copy()
        pose[:3, 3] = 0.5 * pose[:3, 3] + random.normal(0, size, 3)
        return {"world_from_camera": pose}

    return predict


def without(sequence, *frames) -> Sequence:
    """The sequence, with these poses unknown."""
    poses = truth_of(sequence)
    poses[list(frames)] = -np.inf
    images = np.stack([true.image for true in sequence])
    return array_sequence(sequence.name, images, None, poses, None)


def test_every_length_has_the_errors_of_its_frames(tmp_path):
    sequence = scene(12)
    shown = show(recorder(tmp_path, sequence), noisy())
    estimate = np.stack(shown.estimate)
    for frames in (5, 12):
        outcome = shown.score(frames)
        errors = trajectory_errors(estimate[:frames], truth_of(sequence)[:frames])
        assert outcome.status == "ok" and outcome.note == ""
        assert outcome.metrics["ate"] == errors.ate > 0
        assert outcome.metrics["rpe_translation"] == errors.rpe_translation
        assert outcome.metrics["rpe_rotation"] == errors.rpe_rotation_deg
        assert outcome.metrics["scale"] == errors.scale
        centred = truth_of(sequence)[:frames, :3, 3]
        centred = centred - centred.mean(0)
        still = np.sqrt(np.square(centred).sum(1).mean())
        assert outcome.metrics["ate_static"] == pytest.approx(still)
        # The fit of a similarity makes any path better than none, a random one too.
        assert 0.3 * still < outcome.metrics["ate_walk"] < still
        assert outcome.metrics["rotation_static"] > outcome.metrics["rotation"]
        assert set(outcome.metrics) == {metric.key for metric in METRICS["pose"]}
        pairs = pair_accuracy(estimate[:frames], truth_of(sequence)[:frames])
        assert outcome.metrics["auc_30"] == pairs.auc
        assert outcome.metrics["rra_15"] == pairs.rra[15.0] == 1.0  # turned as the truth
        assert outcome.metrics["rta_15"] == pairs.rta[15.0]


def test_published_results_drop_a_sequence_and_corrected_ones_a_pose(tmp_path):
    sequence = without(scene(12), 7)
    published = show(recorder(tmp_path, sequence), noisy())
    assert published.score(7).status == "ok"  # frame 7 is not among these
    assert published.score(12).status == "dropped"
    assert published.score(12).note == "1 of 12 true poses are unknown"
    corrected = show(recorder(tmp_path, sequence, "corrected"), noisy())
    outcome = corrected.score(12)
    known = np.arange(12) != 7
    errors = trajectory_errors(np.stack(corrected.estimate), np.stack(corrected.truth), valid=known)
    assert outcome.metrics["ate"] == errors.ate
    pairs = pair_accuracy(np.stack(corrected.estimate), np.stack(corrected.truth), valid=known)
    assert outcome.metrics["auc_30"] == pairs.auc and pairs.pairs == 55
    assert outcome.note == "1 of 12 true poses are unknown and masked"


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_a_prediction_that_is_not_finite_is_a_failure(tmp_path, variant):
    def predict(index, true, frame):
        pose = true.world_from_camera.copy()
        pose[0, 3] = np.nan if index == 4 else pose[0, 3]
        return {"world_from_camera": pose}

    shown = show(recorder(tmp_path, scene(8), variant), predict)
    assert shown.score(4).status == "ok"
    outcome = shown.score(8)
    assert outcome.status == "failed" and outcome.metrics == {}
    assert outcome.note == "1 predicted poses are not finite, the first of frame 4"


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_truth_that_allows_no_alignment_is_dropped(tmp_path, variant):
    shown = show(recorder(tmp_path, scene(4), variant), noisy())
    assert shown.score(1).status == "dropped"
    unknown = show(recorder(tmp_path, without(scene(4), 0, 1, 2, 3), variant), noisy())
    outcome = unknown.score(4)
    assert outcome.status == "dropped" and outcome.note


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_a_prediction_that_allows_no_alignment_is_a_failure(tmp_path, variant):
    """A camera that is said to stand still is the network's fault."""

    def predict(index, true, frame):
        return {"world_from_camera": np.eye(4)}

    outcome = show(recorder(tmp_path, scene(6), variant), predict).score(6)
    assert outcome.status == "failed" and outcome.note


def test_trajectories_are_kept_in_the_usual_format(tmp_path):
    shown = show(recorder(tmp_path, without(scene(5), 2), "corrected"), noisy())
    shown.keep()
    estimate, truth = (read_tum(tmp_path / name)[1] for name in ("estimate.txt", "truth.txt"))
    assert estimate == pytest.approx(np.stack(shown.estimate), abs=1e-6)
    known = [0, 1, 3, 4]
    assert truth[known] == pytest.approx(np.stack(shown.truth)[known], abs=1e-6)
    assert np.isnan(truth[2]).any()
    assert (tmp_path / "estimate.txt").read_text().splitlines()[1].startswith("1.000000 ")
