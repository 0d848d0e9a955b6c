"""Rules compared in one batch: against sessions of their own, and against the metrics."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ttt3r as package
from tests.cli.conftest import (
    Ttt3r,
    make_clip,
    ttt3r,  # noqa: F401 (a fixture)
)
from tests.networks import random_tiny
from tests.stream.test_session import images
from ttt3r import rules, weights
from ttt3r.cli.compare import split
from ttt3r.comparison.compare import RULES, Comparison, Score, compare
from ttt3r.comparison.streams import Streams
from ttt3r.comparison.truth import errors_of, read_truth
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics import trajectory
from ttt3r.runs.trajectory import tum_line
from ttt3r.stream.session import Session
from ttt3r.types import Frame

FRAMES = 4
EVERY_RULE = [
    *RULES,
    "damped(ttt3r, 0.5)",
    "paced(filt3r)",
    "split(ttt3r, damped(overwrite, 0.5))",
    "memix(ttsa3r, keep=0.5, sparse_read=True)",
]


@pytest.fixture(scope="module")
def batch() -> Streams:
    """Streams under every rule, which have seen all frames but the last."""
    streams = Streams(random_tiny(), EVERY_RULE)
    for image in images(FRAMES)[:-1]:
        streams.push(image)
    return streams


def test_every_rule_is_compared():
    assert {rules.parse(rule).name for rule in EVERY_RULE} == set(rules.REGISTRY.names)


def test_a_batch_is_what_single_sessions_are(batch: Streams):
    """Products of batches run their sums in another order: some float32 eps in each layer, and
    the state carries them from frame to frame."""
    *before, last = images(FRAMES)
    said = batch.push(last)
    for rule, prediction in zip(EVERY_RULE, said, strict=True):
        session = Session(random_tiny(), rule)
        for image in before:
            session.push(image)
        alone = session.push(last)
        for name in ("points", "confidence", "world_from_camera", "gate"):
            one, other = getattr(alone, name), getattr(prediction, name)
            assert torch.allclose(one, other, rtol=2e-4, atol=2e-4), (rule, name)
    gates = {tuple(prediction.gate.tolist()) for prediction in said}
    assert len(gates) >= len(EVERY_RULE) - 2


def test_rules_of_other_families_step_one_by_one():
    model = weights.load("tiny-streamvggt", "cpu")
    side = 2 * model.preparation.patch
    frames = [torch.rand(3, side, side) for _ in range(3)]
    streams = Streams(model, ["keep_all", "window(2)"])
    for frame in frames:
        said = streams.push(frame)
    alone = Session(model, "window(2)")
    for frame in frames:
        last = alone.push(frame)
    assert torch.equal(said[1].points, last.points)


def walk(count: int) -> np.ndarray:
    """A path that is no line."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    time = np.arange(count)
    poses[:, 0, 3], poses[:, 1, 3], poses[:, 2, 3] = time, np.sin(time), time**2 / 9
    return poses


def write_truth(path: Path, poses: np.ndarray, begin: float = 0.0) -> Path:
    lines = [tum_line(begin + i / 30, torch.from_numpy(pose)) for i, pose in enumerate(poses)]
    path.write_text("# stamp tx ty tz qx qy qz qw\n" + "".join(lines))
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Comparison:
    truth = write_truth(tmp_path_factory.mktemp("truth") / "poses.txt", walk(12))
    return compare(
        images(12), ["ttt3r", "overwrite"], model=random_tiny(), truth=truth.parent, size=64,
        loop=True,
    )  # fmt: skip


def test_numbers_are_those_of_the_metrics(compared: Comparison):
    assert [score.rule for score in compared.scores] == ["ttt3r", "overwrite"]
    for score in compared.scores:
        assert score.poses.shape == (12, 4, 4) and score.note == "" and score.errors is not None
        wanted = trajectory.trajectory_errors(score.poses, walk(12))
        assert score.errors.ate == pytest.approx(wanted.ate)
        assert score.errors.rpe_rotation == pytest.approx(wanted.rpe_rotation_deg)
        # The RMS of the errors over time is the ATE.
        rms = np.sqrt(np.square(score.errors.over_time).mean())
        assert rms == pytest.approx(score.errors.ate)
        assert score.path_length == pytest.approx(trajectory.path_length(score.poses))
        assert 0 <= score.agreement <= 1 or math.isnan(score.agreement)
        assert score.loop_rotation > 0 and score.loop_translation > 0


def test_the_loop_goes_back_over_all_frames(compared: Comparison):
    session, pictures = Session(random_tiny(), "ttt3r"), images(12)
    first = session.push(pictures[0])
    for image in [*pictures[1:], *pictures[-2::-1]]:
        last = session.push(image)
    apart = (last.world_from_camera - first.world_from_camera)[:3, 3].norm()
    score = compared.scores[0]
    # As of batches above; 23 frames carry it further.
    assert score.loop_translation * score.path_length == pytest.approx(float(apart), rel=0.01)


def test_json_and_picture(compared: Comparison, tmp_path: Path):
    said = json.loads(json.dumps(compared.to_dict()))
    assert said["frames"] == 12 and [r["rule"] for r in said["rules"]] == ["ttt3r", "overwrite"]
    assert said["rules"][0]["ate"] == pytest.approx(compared.scores[0].errors.ate)
    compared.write_png(tmp_path / "a.png")
    bare = Comparison(tuple(Score("x", walk(3), 1.0, math.nan) for _ in "a"), np.arange(3.0))
    bare.write_png(tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size > 1000
    assert json.loads(json.dumps(bare.to_dict()))["rules"][0]["agreement"] is None


def test_truth(tmp_path: Path):
    stamps, poses = np.arange(6) / 30, walk(6)
    path = write_truth(tmp_path / "groundtruth.txt", poses)
    np.testing.assert_allclose(read_truth(tmp_path, stamps), poses, atol=1e-6)
    later = read_truth(path, stamps + 2 / 30)  # two frames come after the last pose
    assert np.isnan(later[4:]).all() and np.allclose(later[:4], poses[2:], atol=1e-6)
    elsewhere = write_truth(tmp_path / "other.txt", poses, begin=1e6)
    np.testing.assert_allclose(read_truth(elsewhere, stamps), poses, atol=1e-6)
    with pytest.raises(InputError, match="give the path of this input"):
        read_truth(elsewhere, stamps[:4])
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(InputError):
            read_truth(wrong, stamps)


def test_what_allows_no_error_says_why():
    errors, note = errors_of(walk(4), np.tile(np.eye(4), (4, 1, 1)))
    assert "cannot be aligned" in note and math.isnan(errors.ate)
    assert np.isnan(errors.over_time).all()


def test_refusals():
    model = random_tiny()
    for wrong in ([], ["ttt3r", "ttt3r"], ["ttt4r"]):
        with pytest.raises(SettingError):
            compare(images(2), wrong, model=model)
    with pytest.raises(SettingError, match="looks at all views"):
        compare(images(2), model="tiny-vggt", device="cpu")
    with pytest.raises(InputError):
        compare(iter(list[Frame]()), model=model)


def test_lists_of_rules():
    assert split("a, b(c, 0.5),d('x,(')") == ["a", "b(c, 0.5)", "d('x,(')"]
    assert split(" , ") == []


def test_the_command(ttt3r: Ttt3r, tmp_path: Path):  # noqa: F811
    clip = make_clip(tmp_path / "walk.mp4", 4)
    words = ("compare", clip, "--model", "tiny-dpt", "--device", "cpu", "--rules")
    rule = "damped(ttt3r, 0.5)"
    result = ttt3r(*words, f"ttt3r,{rule}", "--png", "a.png")
    assert result.status == 0 and "agreement" in result.out and rule in result.out
    assert Path("a.png").exists() and "ATE" not in result.out
    result = ttt3r(*words, "ttt3r", "--json", "--stride", "2")
    assert json.loads(result.out)["frames"] == 2
    assert ttt3r(*words, "nonsense").status == 2


def test_public():
    assert package.compare is compare
