"""What the card's baselines score, and what is known of weights and of the training set."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.card_data import TrainingDepth, training_depth, weights_facts
from benchmarks.card_rows import (
    BASELINES,
    CONSTANT,
    MEAN_IMAGE,
    STATIC,
    VELOCITY,
    WALK,
    baseline_rows,
    placement_row,
    result_row,
)
from tests.evaluation.test_streaming import scene, told
from tests.networks import random_tiny
from ttt3r.evaluation.baselines import best_constant_depth
from ttt3r.evaluation.sequences import ArraySequence
from ttt3r.evaluation.streaming import collect, score
from ttt3r.stream.session import Session
from ttt3r.training.cache import TRAINING_SEEDS, read, shards

TRAINING = TrainingDepth(1, 2.0, np.full((48, 64), 2.0))


def test_baselines_score_what_they_say():
    record = told(scene())
    rows = baseline_rows(record, TRAINING)
    assert tuple(rows) == BASELINES
    truth = record.depth.astype(np.float64)
    best = best_constant_depth([record.depth])
    assert rows[CONSTANT]["abs_rel"] == pytest.approx((np.abs(best - truth) / truth).mean())
    # The mean image is as constant as the constant here.
    expected = (np.abs(2.0 - truth) / truth).mean()
    assert rows[CONSTANT]["abs_rel_metric"] == pytest.approx(expected)
    assert rows[MEAN_IMAGE]["abs_rel_metric"] == pytest.approx(expected)
    assert rows[CONSTANT]["abs_rel"] <= rows[MEAN_IMAGE]["abs_rel"]
    centres = record.truth[:, :3, 3]
    spread = np.sqrt(np.square(centres - centres.mean(0)).sum(1).mean())
    assert rows[STATIC]["ate"] == pytest.approx(spread)
    # A similarity fit makes any path better than none, which is why there is a random one.
    assert 0.3 * spread < rows[WALK]["ate"] < spread
    assert rows[VELOCITY]["rotation"] > 0 and rows[VELOCITY]["ate"] < spread
    # The truth as a prediction beats them all.
    own = result_row(score(record))
    for name in (CONSTANT, MEAN_IMAGE):
        assert own["abs_rel"] < rows[name]["abs_rel"]
    for name in (STATIC, VELOCITY, WALK):
        assert own["ate_percent"] < rows[name]["ate_percent"]


def test_the_mean_image_is_seen_through_the_same_crop():
    ramp = np.linspace(1, 3, 60)[:, None] + np.zeros((60, 80))
    images = np.zeros((3, 60, 80, 3), np.uint8)
    sequence = ArraySequence("ramp", images, np.tile(ramp, (3, 1, 1)).astype(np.float32))
    record = collect(Session(random_tiny()), sequence)
    row = baseline_rows(record, TrainingDepth(1, 2.0, ramp))[MEAN_IMAGE]
    assert record.size == (48, 64)
    assert row["abs_rel_metric"] == pytest.approx(0, abs=1e-6)


def test_absent_truth_leaves_rows_empty():
    images = np.zeros((3, 48, 64, 3), np.uint8)
    record = collect(Session(random_tiny()), ArraySequence("bare", images))
    assert baseline_rows(record, TRAINING) == {name: {"frames": 3} for name in BASELINES}
    straight = np.tile(np.eye(4), (3, 1, 1))
    straight[:, 2, 3] = range(3)
    record = collect(
        Session(random_tiny()), ArraySequence("line", images, world_from_camera=straight)
    )
    rows = baseline_rows(record, TRAINING)
    assert rows[STATIC]["ate"] == pytest.approx(np.sqrt(2 / 3))
    assert "ate" not in rows[VELOCITY] and rows[VELOCITY]["notes"] and "ate" not in rows[WALK]
    assert result_row(score(record))["notes"]


def test_placement_bounds():
    record = told(scene(), scale=0.5)
    row = placement_row(record, score(record), None)
    assert row["placed"] == pytest.approx(0, abs=1e-4)
    assert row["placed_true"] == pytest.approx(0, abs=1e-4) and row["placed_static"] > 0.05
    broken = told(scene(), spoil=lambda frame, pose, points: pose.fill_(torch.nan))
    row = placement_row(broken, score(broken), None)
    assert row["placed"] is None and row["placed_true"] == pytest.approx(0, abs=1e-4)


def test_training_statistics_are_kept(tmp_path):
    work, cached = tmp_path / "work", tmp_path / "cached"
    found = training_depth(work, cached, clips=2, size=(16, 24), frames=2)
    (shard,) = shards(TRAINING_SEEDS, 2, 2, (16, 24))
    depth = read(work / "training-clips", shard)["depth"].float().numpy()
    known = depth[(depth > 0) & (depth < 60)]
    assert known.min() <= found.constant <= np.median(known)
    assert found.image.shape == (16, 24) and np.isfinite(found.image).all()
    (work / "training-clips" / shard.name).unlink()
    again = training_depth(work, cached, clips=2, size=(16, 24), frames=2)
    assert again.constant == found.constant
    np.testing.assert_array_equal(again.image, found.image)


@pytest.mark.parametrize("packed", [True, False])
def test_facts_come_from_the_file(tmp_path, packed):
    said = {"recipe": "cpu", "frames": "1200", "seconds": "3600.5", "commit": "", "machine": "m"}
    metadata = {"training": json.dumps(said | {"seed": 1})} if packed else said
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        facts = weights_facts(random_tiny(), str(source))
        assert (facts["recipe"], facts["machine"], facts["commit"]) == ("cpu", "m", "unknown")
        assert (facts["frames_trained"], facts["seconds_trained"]) == (1200, 3600.5)
    assert weights_facts(random_tiny(), "tiny-linear")["seconds_trained"] is None
    assert facts["state_tokens"] == 27 and facts["parameters"] > 1e5
