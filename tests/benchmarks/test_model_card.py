"""The model card: the whole command in little, and what its verdicts say of known numbers."""

import dataclasses

import numpy as np
import pytest

from benchmarks import card_data, machine, model_card
from benchmarks.card_data import FARTHEST, HeldOut
from benchmarks.card_goals import GOALS, reached, verdict
from benchmarks.intervals import Interval
from benchmarks.model_card import PARTS, QUICK, VERDICTS, Verdict, answer
from tests.evaluation.evaluations import evaluation
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.results import METRICS

pytest.importorskip("matplotlib")


def told(**metrics):
    """Three sequences whose scores are the same but for the metrics that are given."""
    found = evaluation({"a": [0.1], "b": [0.1], "c": [0.1]})
    sequences = []
    for number, entry in enumerate(found.sequences):
        values = {name: float(three[number]) for name, three in metrics.items()}
        (score,) = entry.scores
        score = dataclasses.replace(score, metrics={**score.metrics, **values})
        sequences.append(dataclasses.replace(entry, scores=(score,)))
    return dataclasses.replace(found, sequences=tuple(sequences))


@pytest.mark.parametrize(
    ("ate", "walk", "says"),
    [
        ([1, 1, 9], [2, 2, 2], "yes. lower on 2 of 3; medians 1.000 and 2.000"),
        ([3, 3, 0], [2, 2, 2], "**no**. lower on 1 of 3; medians 3.000 and 2.000"),
        ([2, 2, 2], [2, 2, 2], "**no**. lower on 0 of 3; medians 2.000 and 2.000"),
    ],
)
def test_better_is_better_on_most_sequences(ate, walk, says):
    verdict = Verdict("clips", "pose", "better than a walk", "ate", "ate_walk")
    assert answer(verdict, told(ate=ate, ate_walk=walk)) == f"* ttt3r: better than a walk: {says}"


def test_goals_are_shares_of_means():
    """Of the path where units differ, so that no long path outweighs the others."""
    found = told(ate=[1.0, 2.0, 3.0], ate_walk=[4.0, 4.0, 4.0], ate_of_path=[0.1, 0.1, 0.1])
    goal = next(goal for goal in GOALS if goal.against == "ate_walk")
    share = reached(goal, {("clips", "pose"): [found]})
    assert share is not None and share.mean == pytest.approx(0.5)
    assert share.low < 0.5 < share.high
    real = dataclasses.replace(goal, part="real")
    share = reached(real, {("real", "pose"): [found]})
    assert share is not None and share.mean == pytest.approx(0.3 / (0.4 + 0.2 + 0.4 / 3))
    assert reached(goal, {}) is None


@pytest.mark.parametrize(
    ("share", "says"),
    [(0.25, "goal reached"), (0.3, "floor reached"), (0.46, "missed"), (None, "not measured")],
)
def test_verdicts_on_goals(share, says):
    goal = next(goal for goal in GOALS if goal.against == "ate_walk")
    assert verdict(goal, None if share is None else Interval(share, 0.0, 1.0)) == says


@pytest.mark.parametrize("values", [{"a": [0.1], "b": ["failed: NaN"]}, {"a": ["dropped: still"]}])
def test_what_failed_or_was_not_scored_is_no_success(values):
    verdict = Verdict("clips", "pose", "small", "ate", "ate_walk")
    assert "**no**" in answer(verdict, evaluation(values))


def test_verdicts_ask_for_scores_that_exist():
    for asked in (*VERDICTS, *GOALS):
        keys = {metric.key for metric in METRICS[asked.task]}
        assert asked.part in PARTS and {asked.metric, asked.against} - {""} <= keys


@pytest.fixture
def small_clips(monkeypatch):
    """Clips that are rendered in no time."""
    monkeypatch.setattr(card_data, "CLIP_FRAMES", 4)
    monkeypatch.setattr(card_data, "SIZE", (48, 64))
    card_data._clip.cache_clear()
    yield
    card_data._clip.cache_clear()


def test_held_out_clips_are_rendered_once(tmp_path, monkeypatch, small_clips):
    clip = HeldOut().open(tmp_path, "clip-1", Selection("depth", frames=3))
    first = list(clip)
    assert len(first) == 3
    monkeypatch.setattr(card_data, "_frame", None)
    for ours, again in zip(first, clip, strict=True):
        assert ours.image.shape[:2] == ours.depth.shape and ours.depth.max() < FARTHEST
        for field in ("image", "depth", "world_from_camera", "intrinsics", "timestamp"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(again, field))
    with pytest.raises(InputError, match="there is no clip 'clip-x'"):
        HeldOut().open(tmp_path, "clip-x", Selection("pose"))


def test_the_command_writes_a_card_and_goes_on(tmp_path, monkeypatch, small_clips):
    quick = {
        name: dataclasses.replace(
            part, lengths=(3, 4), variants=part.variants[:2], names=part.names[:1]
        )
        for name, part in QUICK.items()
    }
    monkeypatch.setattr(model_card, "QUICK", quick)
    words = [
        "--quick",
        "--weights",
        "tiny-linear",
        "--work",
        str(tmp_path),
        "--data",
        str(tmp_path / "no"),
    ]
    model_card.main(words)
    card = (tmp_path / "model-card.md").read_text("utf-8")
    assert "These weights are random" in card
    assert card.count("No sequence for") == 2  # there are no real sequences
    for part in quick.values():
        assert f"## {part.title}" in card
    assert "gate β of `ttt3r` has the median" in card
    assert machine.commit() in card
    for figure in model_card.FIGURES.values():
        assert (tmp_path / figure).stat().st_size > 10_000 and figure in card
    monkeypatch.setattr("ttt3r.evaluation.runner._measure", None)  # nothing is measured again
    monkeypatch.setattr("ttt3r.evaluation.machine.commit", lambda: "a later commit")
    model_card.main(words)
    assert (tmp_path / "model-card.md").read_text("utf-8") == card
