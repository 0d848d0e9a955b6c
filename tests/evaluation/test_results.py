"""Means over sequences, and results that survive the way to a file and back."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ttt3r.errors import RunError
from ttt3r.evaluation.results import (
    FORMAT,
    METRICS,
    Evaluation,
    Score,
    SequenceScores,
    Settings,
    evaluation_json,
    read_evaluation,
)


def settings(variant="published", lengths=(10, 20)) -> Settings:
    return Settings(
        task="pose",
        protocol="folder/stride1/20",
        variant=variant,
        data="folder",
        lengths=lengths,
        model="tiny",
        fingerprint="00",
        rule="ttt3r",
        reset="never",
        size=64,
        precision="float32",
    )


def ok(length, frames, value, weight=1.0, rate=10.0) -> Score:
    metrics = {metric.key: value for metric in METRICS["pose"]}
    return Score(length, frames, "ok", metrics, "", weight, rate)


def sequence(name, *scores) -> SequenceScores:
    return SequenceScores(name, (48, 64), tuple(scores), 1000, 2.0, "abc", {"torch": "2"})


def means(settings, sequences):
    return Evaluation(settings, tuple(sequences)).means


def mean_of(metrics: list[dict[str, float]], weights: list[float] | None = None) -> dict:
    """The published mean over sequences, one entry each."""
    found = [
        sequence(str(i), Score(None, 1, "ok", values, weight=weights[i] if weights else 1.0))
        for i, values in enumerate(metrics)
    ]
    return dict(means(settings(lengths=(None,)), found)[0].metrics)


def three(second: Score, third: Score) -> list[SequenceScores]:
    return [
        sequence("a", ok(10, 10, 1.0), ok(20, 20, 5.0)),
        sequence("b", ok(10, 10, 2.0), second),
        sequence("c", ok(10, 10, 6.0), third),
    ]


def test_means_and_medians():
    ten, twenty = means(settings(), three(ok(20, 15, 7.0), ok(20, 20, 9.0)))
    assert (ten.count, ten.dropped, ten.failed, ten.shorter) == (3, 0, 0, 0)
    assert ten.metrics == ten.plain and ten.metrics["ate"] == 3.0 and ten.median["ate"] == 2.0
    assert twenty.metrics["ate"] == 7.0 and twenty.shorter == 1
    assert ten.frames_per_second == pytest.approx(10.0)


def test_weights_count_in_published_means_only():
    heavy = [
        sequence("a", ok(10, 10, 1.0, weight=3.0)),
        sequence("b", ok(10, 10, 5.0, weight=1.0, rate=5.0)),
    ]
    (mean,) = means(settings(lengths=(10,)), heavy)
    assert mean.metrics["ate"] == 2.0 and mean.plain["ate"] == 3.0 == mean.median["ate"]
    assert mean.frames_per_second == pytest.approx(20 / 3)  # 20 frames in 1 + 2 seconds


def test_dropped_truth_changes_the_set_of_published_means_and_not_of_corrected_ones():
    found = three(Score(20, 20, "dropped", note="no truth"), ok(20, 20, 9.0))
    ten, twenty = means(settings("published"), found)
    assert (ten.count, ten.metrics["ate"]) == (3, 3.0)
    assert (twenty.count, twenty.dropped, twenty.metrics["ate"]) == (2, 1, 7.0)
    ten, twenty = means(settings("corrected"), found)
    assert (ten.count, ten.dropped, ten.metrics["ate"]) == (2, 1, 3.5)
    assert (twenty.count, twenty.dropped, twenty.metrics["ate"]) == (2, 1, 7.0)


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_failures_stay_visible(variant):
    found = three(Score(20, 20, "failed", note="nan"), Score(20, 20, "failed", note="nan"))
    ten, twenty = means(settings(variant), found)
    assert (ten.count, ten.failed) == (3, 0)
    assert (twenty.count, twenty.failed, twenty.metrics["ate"]) == (1, 2, 5.0)


def test_nothing_to_average():
    failed = Score(10, 10, "failed", note="nan")
    (mean,) = means(settings(lengths=(10,)), [sequence("a", failed)])
    assert (mean.count, mean.failed, mean.metrics, mean.median) == (0, 1, {}, {})
    assert mean.frames_per_second is None


def test_results_survive_a_file(tmp_path):
    found = [
        sequence("a", ok(10, 10, 1.0), ok(None, 20, 5.0)),
        sequence("b", ok(10, 10, 2.0), Score(None, 20, "dropped", note="no truth")),
    ]
    one = settings(lengths=(10, None))
    evaluation = Evaluation(one, tuple(found), complete=False)
    path = tmp_path / "summary.json"
    path.write_text(evaluation_json(evaluation), "utf-8")
    assert read_evaluation(path) == evaluation and not read_evaluation(path).complete
    assert json.loads(path.read_text("utf-8"))["means"][0]["metrics"]["ate"] == 1.5
    assert evaluation.facts == {"torch": "2"}
    assert evaluation.label == "ttt3r"
    assert replace(one, pose_from="points").label == "ttt3r, points poses"


def test_files_hold_no_nan():
    one = settings(lengths=(10,))
    found = (sequence("a", ok(10, 10, float("nan"))),)
    with pytest.raises(ValueError, match="JSON"):
        evaluation_json(Evaluation(one, found))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"format": "other"}', f'{{"format": "{FORMAT}"}}']
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_text(content)
    with pytest.raises(RunError, match="summary"):
        read_evaluation(path)
    with pytest.raises(RunError, match="cannot be read"):
        read_evaluation(tmp_path / "absent.json")


def test_a_summary_of_another_version_says_what_to_do(tmp_path):
    """The second version has percent where this one has fractions."""
    one = settings(lengths=(10,))
    content = json.loads(evaluation_json(Evaluation(one, (sequence("a", ok(10, 10, 1.0)),))))
    content["format"] = "ttt3r-evaluation-2"
    for key in ("auc_30", "rra_15", "rta_15"):
        del content["sequences"][0]["scores"][0]["metrics"][key]
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="was written by another version; evaluate again"):
        read_evaluation(path)


def spoil_scores(content):
    content["sequences"][0]["scores"] = []


def spoil_metric(content):
    del content["sequences"][0]["scores"][0]["metrics"]["ate"]


def spoil_status(content):
    del content["sequences"][0]["scores"][0]["status"]


def spoil_weight(content):
    content["sequences"][0]["scores"][0]["weight"] = 0


def spoil_task(content):
    content["settings"]["task"] = "cooking"


def spoil_length(content):
    content["settings"]["lengths"] = ["a"]


@pytest.mark.parametrize(
    "spoil", [spoil_scores, spoil_metric, spoil_status, spoil_weight, spoil_task, spoil_length]
)
def test_a_summary_that_lacks_something_is_refused(tmp_path, spoil):
    one = settings(lengths=(10,))
    content = json.loads(evaluation_json(Evaluation(one, (sequence("a", ok(10, 10, 1.0)),))))
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(content))
    assert read_evaluation(path).means[0].metrics["ate"] == 1.0
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="not the summary"):
        read_evaluation(path)


def test_metrics_have_distinct_names():
    for metrics in METRICS.values():
        keys = [metric.key for metric in metrics]
        assert len(set(keys)) == len(keys) and metrics[0].headline
    assert np.all([len(metrics) > 3 for metrics in METRICS.values()])
