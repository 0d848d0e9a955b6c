"""Depth of a video: the same numbers as scoring all maps at once, at every length."""

import numpy as np
import pytest

from tests.evaluation.arrays import array_sequence
from tests.evaluation.tasks.told import POLICY, protocol, scene, show
from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.depth import METRICS, depth_errors, resize_depth
from ttt3r.evaluation.protocols import DEPTH_RULES
from ttt3r.evaluation.results import DEPTH_ALIGNMENTS
from ttt3r.evaluation.results import METRICS as REPORTED
from ttt3r.evaluation.sequences import Sequence
from ttt3r.evaluation.tasks.depth import MAPS, DepthRecorder


def recorder(folder, sequence, variant="published", dataset="folder"):
    return DepthRecorder(protocol("depth", variant, dataset), sequence, POLICY, folder)


def points(depth):
    return {"points": np.stack([np.zeros_like(depth), np.zeros_like(depth), depth], axis=-1)}


def waves(index, height=48, width=64):
    """Something near the truth at the network's size."""
    v, u = np.mgrid[:height, :width] / width
    return (0.8 * (2.0 + np.sin(6 * u + index) * np.cos(5 * v)) + 0.1 * index).astype(np.float32)


def wavy(index, true, frame):
    return points(waves(index, *frame.image.shape[:2]))


@pytest.mark.parametrize("dataset", ["sintel", "bonn", "kitti"])
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_the_same_errors_as_of_all_maps_at_once(tmp_path, variant, dataset):
    sequence = scene(4, (60, 80))
    shown = show(recorder(tmp_path, sequence, variant, dataset), wavy)
    rule = DEPTH_RULES[dataset]
    truth = np.stack([true.depth for true in sequence]).astype(np.float64 if rule.double else "f4")
    maps = np.stack([resize_depth(waves(index), 60, 80) for index in range(4)])
    for frames in (2, 4):
        outcome = shown.score(frames)
        assert outcome.status == "ok"
        for alignment in DEPTH_ALIGNMENTS:
            errors = depth_errors(
                maps[:frames],
                truth[:frames],
                alignment,
                max_depth=rule.max_depth,
                post_clip_max=rule.clip,
                compat=variant == "published",
            )
            assert outcome.weight == errors.valid_pixels
            for name in METRICS:
                expected = getattr(errors, name)
                assert outcome.metrics[f"{alignment}/{name}"] == pytest.approx(expected, rel=1e-9)
    shown.close()
    assert list(tmp_path.iterdir()) == []


def test_every_reported_metric_is_there(tmp_path):
    shown = show(recorder(tmp_path, scene(2)), wavy)
    assert set(shown.score(2).metrics) == {metric.key for metric in REPORTED["depth"]}
    shown.close()


def test_the_best_constant_is_reported(tmp_path):
    sequence = scene(3)
    shown = show(recorder(tmp_path, sequence), wavy)
    known = np.concatenate([true.depth[true.depth > 0] for true in sequence])
    constants = np.linspace(0.5, 4.0, 3501)
    best = min(float(np.mean(np.abs(c - known) / known)) for c in constants)
    assert shown.score(3).metrics["constant/abs_rel"] == pytest.approx(best, rel=1e-4)
    shown.close()


@pytest.mark.parametrize("size", [(48, 64), (96, 128)])
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_a_prediction_that_is_not_finite_is_a_failure_where_it_counts(tmp_path, variant, size):
    def predict(index, true, frame):
        told = wavy(index, true, frame)
        if size == (48, 64):  # in larger maps the pixel reaches known truth
            told["points"][0, 0, 2] = np.inf
        if index == 2:
            told["points"][20, 20, 2] = np.nan
        return told

    shown = show(recorder(tmp_path, scene(4, size), variant), predict)
    plain = show(recorder(tmp_path, scene(2, size), variant), wavy)
    assert shown.score(2).metrics == pytest.approx(plain.score(2).metrics)
    outcome = shown.score(4)
    assert outcome.status == "failed"
    assert "predicted depths are not finite, the first in frame 2" in outcome.note
    shown.close()
    plain.close()


def test_memory_does_not_grow_while_a_clip_waits_for_its_look(tmp_path):
    """A network that looks once answers when all frames are prepared."""
    import tracemalloc

    peaks = []
    for frames in (10, 40):
        sequence = scene(frames, (120, 160))
        waiting = recorder(tmp_path, sequence)
        tracemalloc.start()
        for true in sequence:
            waiting.prepare(true)
        peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        waiting.close()
    assert peaks[1] < peaks[0] + 30 * 120 * 160  # less than a byte a pixel of what was added


def test_a_prediction_of_nothing_is_a_failure(tmp_path):
    def nothing(index, true, frame):
        return points(np.zeros(frame.image.shape[:2]))

    for variant in ("published", "corrected"):
        shown = show(recorder(tmp_path, scene(2), variant), nothing)
        assert shown.score(2).status == "failed"
        shown.close()


def test_truth_without_a_valid_pixel_is_dropped_and_absent_truth_an_error(tmp_path):
    base = scene(2)
    images = np.stack([true.image for true in base])
    empty = array_sequence("empty", images, np.zeros((2, 48, 64), np.float32))
    shown = show(recorder(tmp_path, empty), wavy)
    assert shown.score(2).status == "dropped"
    shown.close()
    absent = recorder(tmp_path, array_sequence("absent", images))
    with pytest.raises(InputError, match="frame 0 of absent has no true depth"):
        show(absent, wavy)
    absent.close()


def test_frames_for_the_figures_are_kept(tmp_path):
    shown = show(recorder(tmp_path, scene(9, (60, 80))), wavy)
    scale = shown.score(9).metrics and shown._scale
    shown.keep()
    shown.close()
    assert [path.name for path in tmp_path.iterdir()] == [MAPS]
    kept = np.load(tmp_path / MAPS)
    assert kept["frames"].tolist() == [0, 4, 8] and kept["image_4"].shape == (60, 80, 3)
    assert kept["truth_8"].shape == kept["prediction_8"].shape == (60, 80)
    assert np.isfinite(kept["truth_0"]).all() and (kept["truth_0"][:3] == 0).all()
    raw = resize_depth(waves(4), 60, 80)
    assert kept["prediction_4"] == pytest.approx(scale * raw, rel=1e-5)


def test_frames_of_different_sizes_may_follow_each_other(tmp_path):
    def read(item):
        return next(iter(item))

    mixed = Sequence("mixed", [scene(1, (48, 64)), scene(1, (96, 128))], read)
    shown = show(recorder(tmp_path, mixed), wavy)
    assert shown.score(2).status == "ok"
    shown.keep()
    shown.close()
    assert np.load(tmp_path / MAPS)["image_1"].shape == (96, 128, 3)


def test_scoring_works_in_blocks(tmp_path, monkeypatch):
    """No array of all values is copied but the one that the published median partitions."""
    import tracemalloc

    from ttt3r.evaluation.metrics import depth_fits
    from ttt3r.evaluation.tasks import depth as task

    monkeypatch.setattr(depth_fits, "BLOCK", 2**14)
    monkeypatch.setattr(depth_fits, "ADAM_STEPS", 3)
    monkeypatch.setattr(task, "CONSTANT_VALUES", 2**14)
    shown = show(recorder(tmp_path, scene(60, (120, 160)), dataset="kitti"), wavy)
    tracemalloc.start()
    assert shown.score(60).status == "ok"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / shown.truth.count < 20, peak / shown.truth.count  # bytes per value
    shown.close()
