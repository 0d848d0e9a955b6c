"""The model card: the whole command in little, what it says of known numbers, and its verdicts."""

import copy
import json
import math

import pytest
import torch

from benchmarks import card_parts, model_card
from benchmarks.card_parts import STREAM_RULES, VARIANTS, Store
from benchmarks.card_rows import BASELINES, CONSTANT, MEAN_IMAGE, STATIC, VELOCITY, WALK
from benchmarks.card_text import render_card
from benchmarks.card_verdicts import all_verdicts, duel, goal, long_streams
from tests.evaluation.test_sequences import write_sequence

PREFIXES = (16, 32, 64)
METHODS = [variant.name for variant in VARIANTS]


def row(value: float, **more) -> dict:
    """A row all of whose errors are `value`."""
    keys = ("abs_rel", "abs_rel_metric", "delta", "delta_metric", "ate", "rotation")
    keys += ("rpe_translation", "rpe_rotation", "placed", "placed_static", "placed_true")
    return {key: value for key in keys} | {"ate_percent": 100 * value, "notes": []} | more


def results(own: float = 0.1, baseline: float = 0.3) -> dict:
    """Everything the card takes: networks at `own` everywhere, baselines at `baseline`."""
    errors = {name: row(own, placed_static=baseline, fps=20.0) for name in ("overwrite", "ttt3r")}
    depth = {name: {"abs_rel": baseline, "abs_rel_metric": baseline} for name in BASELINES[:2]}
    poses = {
        name: {"ate": baseline, "ate_percent": 100 * baseline, "rotation": baseline}
        for name in (STATIC, VELOCITY, WALK)
    }
    rows = errors | depth | poses
    methods = {name: row(own) for name in METHODS} | depth | poses
    gate = {"median": 0.5, "percentile_5": 0.4, "percentile_95": 0.6}
    gate |= {"spread_over_tokens": 0.01, "spread_over_frames": 0.02}
    stream = {"prefixes": {str(n): methods for n in PREFIXES}, "gate": gate}
    found = {
        "settings": {
            "size": [120, 160],
            "clip_frames": 16,
            "prefixes": list(PREFIXES),
            "clip_seed": 3_000_000,
            "stream_seed": 3_001_000,
        },
        "training": {"clips": 200, "constant": 2.5},
        "clips": {name: [value, value] for name, value in rows.items()},
        "streams": [stream, stream, stream],
        "real": [{"name": "kitchen", "frames": 50, "size": [112, 160], "rows": rows}],
    }
    return json.loads(json.dumps(found))  # nothing is shared


PROVENANCE = {
    "name": "nano",
    "sha256": "abc",
    "licence": "Apache-2.0",
    "origin": "the ttt3r project",
    "trained": True,
    "parameters": 9_290_999,
    "bytes": 4 * 9_290_999,
    "image_size": 160,
    "patch_size": 16,
    "state_tokens": 64,
    "state_bytes": 50_000,
    "encoder": "5 blocks of 160 channels",
    "decoders": "two of 5 blocks of 128 channels",
    "head": "linear",
    "recipe": "cpu",
    "commit": "1234567",
    "machine_trained": "a laptop",
    "frames_trained": 123456.0,
    "seconds_trained": 7200.0,
    "machine": {
        "cpu": "a processor",
        "cores": 2,
        "threads": 1,
        "gpu": None,
        "torch": "2",
        "commit": "c",
    },
    "command": "python -m benchmarks.model_card",
    "seconds": 120.0,
}


def test_the_card_says_what_it_was_given():
    card = render_card(results(), PROVENANCE)
    for text in (
        "9.29 million",
        "2.0 hours",
        "123,456",
        "a laptop",
        "1234567",
        "Apache-2.0",
        "python -m benchmarks.model_card",
        "images/forgetting.png",
        "| kitchen | ttt3r | 0.100 |",
        "3000000",
        "median 0.500",
        "Where it fails",
    ):
        assert text in card, text
    assert "random" not in card.split("## What the numbers mean")[0].split("numbers")[1]
    for rule in STREAM_RULES:
        assert f"| {rule} | 0.100 | 0.100 | 0.100 |" in card
    assert render_card(results(), PROVENANCE) == card


def test_random_and_undescribed_weights_are_called_so():
    facts = PROVENANCE | {"trained": False, "seconds_trained": None, "frames_trained": None}
    card = render_card(results(), facts)
    assert "**These weights are random.**" in card
    assert "| training time | unknown |" in card


def test_absent_real_sequences_are_called_absent():
    found = results() | {"real": []}
    assert "Not measured: the folder of real sequences was not there" in render_card(
        found, PROVENANCE
    )
    assert all_verdicts(found)["real"] == []


def test_verdicts_follow_the_numbers():
    for part in ("clips", "real"):
        good, bad = (all_verdicts(results(own, 0.3))[part] for own in (0.05, 0.4))
        assert good and {verdict.answer for verdict in good} == {True}
        assert {verdict.answer for verdict in bad} == {False}
    # Ties are not won.
    tied = all_verdicts(results(0.3, 0.3))["clips"]
    assert {verdict.answer for verdict in tied} == {False}


def test_every_baseline_must_be_beaten():
    found = results()
    for rows in (found["clips"][MEAN_IMAGE], found["clips"][VELOCITY]):
        for one in rows:
            one.update({key: 0.01 for key in one if isinstance(one[key], float)})
    answers = {v.question: v.answer for v in all_verdicts(found)["clips"]}
    better = "clips, ttt3r: {} better than"
    assert not answers[f"{better.format('metric depth')} {CONSTANT} and {MEAN_IMAGE}"]
    assert not answers[f"{better.format('rotation')} {STATIC} and {VELOCITY}"]
    assert answers[f"{better.format('translation')} {STATIC}"]
    assert answers[f"{better.format('translation')} {WALK}"]


def test_failures_are_never_hidden():
    found = results()
    found["clips"]["ttt3r"][0] = {"failed": True, "notes": ["3 predicted poses are not finite"]}
    found["streams"][0]["prefixes"]["64"]["ttt3r"] = {"failed": True, "notes": ["broken"]}
    card = render_card(found, PROVENANCE)
    assert "ttt3r: **1 of 2 sequences failed**" in card
    assert "ttt3r: **1 of 3 sequences failed**" in card
    assert "0.100 (of 2)" in card
    answers = [v for v in all_verdicts(found)["clips"] if ", ttt3r" in v.question]
    assert {v.answer for v in answers} == {False}
    assert goal([{"failed": True}], "ate", 1.0, "goal").answer is False
    assert goal([{}], "ate", 1.0, "goal").answer is None


def test_from_which_length_one_rule_beats_the_other():
    streams = results()["streams"]

    def says(*ours: float):
        changed = copy.deepcopy(streams)
        for stream in changed:
            for frames, value in zip(PREFIXES, ours, strict=True):
                stream["prefixes"][str(frames)]["ttt3r"]["ate"] = value
        return long_streams(changed, PREFIXES, "ate", "ATE m")

    assert says(0.2, 0.05, 0.05).answer and "from 32 frames on" in says(0.2, 0.05, 0.05).why
    assert "from 64 frames on" in says(0.05, 0.2, 0.05).why
    lost = says(0.05, 0.05, 0.2)
    assert not lost.answer and "it does at 16, 32 frames" in lost.why
    assert "lower on 0 of 3 streams" in lost.why
    assert "at no length" in says(0.2, 0.2, 0.2).why


def test_a_duel_counts_wins_and_what_is_undefined():
    streams = copy.deepcopy(results()["streams"])
    for stream, value in zip(streams, (0.01, 0.2, None), strict=True):
        stream["prefixes"]["64"]["ttt3r"]["ate"] = value
    found = duel(streams, 64, "ttt3r", "overwrite", "ate")
    assert (found.wins, found.streams, found.total) == (1, 2, 3)
    assert found.first == pytest.approx(0.105) and not found.won


def test_stored_results_come_back(tmp_path):
    store = Store(tmp_path, "abc")
    assert store.get("clips", "1") is None
    store.put("clips", "1", {"x": [1, None, 0.5]})
    assert store.get("clips", "1") == {"x": [1, None, 0.5]}
    assert Store(tmp_path, "other").get("clips", "1") is None


def test_the_whole_command_in_little(tmp_path, monkeypatch, caplog):
    pytest.importorskip(
        "matplotlib", reason="the figure needs matplotlib (pip install --group dev)"
    )
    data, work = tmp_path / "data", tmp_path / "work"
    write_sequence(data / "tiny", frames=12, size=(48, 64))
    arguments = ["--quick", "--weights", "tiny-linear", "--work", str(work), "--data", str(data)]
    arguments += ["--training-clips", str(tmp_path / "nothing"), "--device", "cpu"]
    model_card.main(arguments)
    card = (work / "model-card.md").read_text("utf-8")
    assert (work / "images" / "forgetting.png").read_bytes().startswith(b"\x89PNG")
    assert "**These weights are random.**" in card and "| tiny | ttt3r |" in card
    assert "nan" not in card.lower().replace("nano", "")
    stored = [json.loads(path.read_text()) for path in work.glob("results/*/streams/*.json")]
    assert len(stored) == card_parts.QUICK.streams
    last = stored[0]["prefixes"]["64"]
    assert set(last) == {*METHODS, *BASELINES}
    assert math.isfinite(last["ttt3r"]["abs_rel"]) and last[STATIC]["ate"] > 0

    # A second run takes what is stored: the network is not asked again.
    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(card_parts, "collect", refuse)
    monkeypatch.setattr(card_parts, "run_streams", refuse)
    model_card.main(arguments)
    again = (work / "model-card.md").read_text("utf-8")
    assert again.split("Machine:")[0] == card.split("Machine:")[0]
    assert torch.get_num_threads() == 1
