"""3D reconstruction: a perfect prediction, a moved one, failures, and what is kept."""

import numpy as np
import pytest
import torch

from tests.evaluation.arrays import array_sequence
from tests.evaluation.tasks.told import POLICY, protocol, scene, show
from ttt3r.evaluation.results import METRICS
from ttt3r.evaluation.tasks.recon import CLOUDS, ReconRecorder
from ttt3r.evaluation.views import prepare_view, unproject
from ttt3r.types import Prediction


def recorder(folder, sequence):
    return ReconRecorder(protocol("recon"), sequence, POLICY, folder)


def told_truth(sequence, scale=1.0, spoil=lambda index, points: points):
    """What a network says that knows the truth but for its scale: points seen by camera 1."""
    first = next(iter(sequence)).world_from_camera

    def predict(index, true, frame):
        view = prepare_view(true, (64, 48))
        pose = np.linalg.inv(first) @ true.world_from_camera
        points, valid = unproject(view.depth, view.intrinsics, pose)
        points = np.where(valid[..., None], points, 1.0)  # some nonsense where nobody looks
        return {"world_points": spoil(index, (scale * points).astype(np.float32))}

    return predict


@pytest.mark.parametrize("size", [(48, 64), (96, 128)])
def test_the_truth_has_no_error_whatever_its_scale(tmp_path, size):
    sequence = scene(4, size)
    shown = show(recorder(tmp_path, sequence), told_truth(sequence, scale=0.3))
    assert shown.size == (48, 64)
    outcome = shown.score(4)
    assert outcome.status == "ok"
    assert set(outcome.metrics) == {metric.key for metric in METRICS["recon"]}
    for name in ("accuracy", "completeness", "chamfer"):
        assert outcome.metrics[name] == pytest.approx(0, abs=1e-5)
    assert outcome.metrics["f_score"] == outcome.metrics["icp_fitness"] == 1.0
    assert outcome.metrics["normal_consistency"] == pytest.approx(1, abs=1e-2)
    shown.close()
    assert list(tmp_path.iterdir()) == []


def test_noise_is_found(tmp_path):
    sequence, random = scene(4), np.random.default_rng(0)

    def noisy(index, points):
        return points + random.normal(0, 0.05, points.shape).astype(np.float32)

    shown = show(recorder(tmp_path, sequence), told_truth(sequence, spoil=noisy))
    metrics = shown.score(4).metrics
    assert 0.01 < metrics["accuracy"] < 0.2 and metrics["normal_consistency"] < 0.99
    assert metrics["chamfer"] == (metrics["accuracy"] + metrics["completeness"]) / 2
    shown.keep()
    shown.close()
    kept = np.load(tmp_path / CLOUDS)
    assert kept["prediction"].shape == kept["truth"].shape and len(kept["truth"]) > 500


def test_a_prediction_that_is_not_finite_is_a_failure(tmp_path):
    sequence = scene(3)

    def spoil(index, points):
        points[0, 0] = np.nan  # where the truth is unknown, which does not matter
        if index == 2:
            points[20, 20, 1] = np.nan
        return points

    shown = show(recorder(tmp_path, sequence), told_truth(sequence, spoil=spoil))
    assert shown.score(2).status == "ok"
    outcome = shown.score(3)
    assert outcome.status == "failed"
    assert outcome.note == "1 predicted points are not finite, the first in frame 2"
    shown.close()


def test_a_prediction_without_size_is_a_failure(tmp_path):
    sequence = scene(2)
    nothing = told_truth(sequence, spoil=lambda index, points: np.zeros_like(points))
    shown = show(recorder(tmp_path, sequence), nothing)
    assert shown.score(2).status == "failed" and "coincide" in shown.score(2).note
    shown.close()


def test_truth_that_is_not_there(tmp_path):
    whole = list(scene(2))
    images = np.stack([true.image for true in whole])
    poses = np.stack([true.world_from_camera for true in whole])
    matrices = np.stack([true.intrinsics for true in whole])
    depth = np.zeros((2, 48, 64), np.float32)
    empty = array_sequence("empty", images, depth, poses, matrices)
    shown = show(recorder(tmp_path, empty), told_truth(empty))
    assert shown.score(2).status == "dropped"
    shown.close()
    depth = np.zeros((2, 48, 64), np.float32)
    depth[:, :4] = 2.0  # known outside of what is scored
    outside = array_sequence("outside", images, depth, poses, matrices)
    shown = show(recorder(tmp_path, outside), told_truth(outside))
    assert shown.score(2).status == "dropped" and "inside the squares" in shown.score(2).note
    shown.close()


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_a_view_of_unknown_pose(tmp_path, variant, lost):
    whole = scene(4)
    true = list(whole)
    poses = np.stack([frame.world_from_camera for frame in true])
    poses[lost] = np.nan
    sequence = array_sequence(
        "lost",
        np.stack([frame.image for frame in true]),
        np.stack([frame.depth for frame in true]),
        poses,
        np.stack([frame.intrinsics for frame in true]),
    )
    told = told_truth(whole)
    shown = ReconRecorder(protocol("recon", variant), sequence, POLICY, tmp_path)
    for index, (frame, known) in enumerate(zip(sequence, true, strict=True)):
        points = told(index, known, shown.prepare(frame))["world_points"]
        shown.take(Prediction(index=index, timestamp=0.0, world_points=torch.from_numpy(points)))
    outcome = shown.score(4)
    if variant == "corrected" and lost:
        assert outcome.status == "ok" and outcome.metrics["chamfer"] < 1e-5
        assert outcome.note == "1 of 4 true poses are unknown and masked"
    else:
        assert outcome.status == "dropped" and "1 of 4 true poses are unknown" in outcome.note
    shown.close()
