"""The report on rules: intervals, verdicts, page, and streams that a network takes as one batch."""

import csv
import re
from dataclasses import replace

import pytest
import torch

from benchmarks import rules, rules_report
from benchmarks.intervals import bootstrap
from benchmarks.rules_report import ratio, read, verdicts
from benchmarks.together import Known, run_together
from tests.goldens import PROJECT_ROOT
from tests.networks import random_images, random_tiny
from tests.rules.test_rules import EXAMPLES
from ttt3r.errors import RunError
from ttt3r.evaluation.results import (
    METRICS,
    Evaluation,
    Score,
    SequenceScores,
    Settings,
    evaluation_json,
)
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.stream.session import Session

SETTINGS = Settings(
    task="pose",
    protocol="synthetic/stride1/8",
    variant="published",
    data="synthetic",
    lengths=(4, 8),
    model="builtin",
    fingerprint="ab" * 32,
    rule="overwrite",
    reset="never",
    size=128,
    precision="float32",
)
ERRORS = (0.1, 0.4, 0.2)


def measured(rule: str, reset: str, factors: tuple[float, ...]) -> Evaluation:
    """An evaluation whose errors are those of `overwrite` times factors, stream by stream."""
    sequences = []
    for number, (error, factor) in enumerate(zip(ERRORS, factors, strict=True)):
        numbers = dict.fromkeys((m.key for m in METRICS["pose"]), error * factor)
        scores = tuple(Score(length, length, "ok", numbers) for length in SETTINGS.lengths)
        sequences.append(SequenceScores(f"stream-{number}", (96, 128), scores, seconds=1.0))
    return Evaluation(replace(SETTINGS, rule=rule, reset=reset), tuple(sequences))


EVALUATIONS = [
    measured("overwrite", "never", (1, 1, 1)),
    measured("ttt3r", "never", (0.5, 0.5, 0.5)),
    measured("filt3r", "never", (2, 0.5, 1.1)),
    measured("brake", "never", (3, 2, 1.5)),
    measured("overwrite", "every(4)", (0.9, 0.8, 0.7)),
]


def test_intervals():
    found = bootstrap([1.0, 2.0, 3.0, 10.0])
    assert found.mean == 4.0 and 1.0 <= found.low < 3.0 and 5.0 < found.high <= 10.0
    assert found == bootstrap([1.0, 2.0, 3.0, 10.0])
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0, 2.0)
    many = bootstrap([float(n % 2) for n in range(400)])  # 1.96 · 0.5 / √400 to each side
    assert many.high - many.mean == pytest.approx(0.049, abs=0.008)
    assert many != bootstrap([float(n % 2) for n in range(400)], seed=1)


def test_ratios_are_of_pairs():
    base, half = EVALUATIONS[:2]
    assert ratio(half, base, 8) == pytest.approx((0.5, 0.5, 0.5))
    one = replace(half, sequences=half.sequences[1:2])
    assert ratio(one, base, 8) == pytest.approx((0.5, 0.5, 0.5))
    assert ratio(replace(half, sequences=()), base, 8) is None


def test_verdicts():
    first, second = verdicts(EVALUATIONS, 8)
    assert "better: `ttt3r` (0.50); worse: `brake` (2.08); no difference seen: `filt3r`" in first
    assert "reset every 4 frames: better: `overwrite` (0.80)" in second
    assert first.startswith("* ATE, 8 frames, never reset: ") and "8 frames, reset " in second
    rotation = verdicts(EVALUATIONS, 4, "rpe_rotation")[0]
    assert rotation == first.replace("ATE, 8", "RPE rot, 4")


def test_what_a_random_walk_does_is_said():
    """Of `overwrite` the walk's error is the rule's own here, and `brake`'s lies above it."""
    assert "At no length" in rules_report.against_walk([EVALUATIONS[0], EVALUATIONS[3]])
    text = rules_report.against_walk(EVALUATIONS)
    every = "`ttt3r` (never reset), `filt3r` (never reset), `overwrite` (reset every 4 frames)"
    assert f"at 4 frames {every}; at 8 frames {every}." in text
    assert "over that of the walk: 0.50 at 4, 0.50 at 8 frames." in text
    nearly = [EVALUATIONS[0], measured("ttt3r", "never", (0.95, 0.95, 0.95))]
    assert "At no length" in rules_report.against_walk(nearly)


def test_page_figure_and_numbers(tmp_path):
    pytest.importorskip("matplotlib")
    for evaluation in EVALUATIONS[::-1]:
        folder = tmp_path / "synthetic" / evaluation.label.replace(", ", "-")
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(evaluation_json(evaluation))
    assert [e.label for e in read(tmp_path / "synthetic")][:3] == [
        "overwrite",
        "overwrite, reset every(4)",
        "ttt3r",
    ]
    page, figure, table = (tmp_path / name for name in ("a.md", "images/a.png", "images/a.csv"))
    rules_report.write(tmp_path, page, figure, table)
    text = page.read_text("utf-8")
    assert "ab" * 32 in text and "images/a.png" in text and "Recorded sequences" not in text
    assert "| `ttt3r`, never reset | 3 | 0.50 [0.50, 0.50] | 0.117" in text
    assert figure.stat().st_size > 10_000
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(EVALUATIONS) * 3 * 2 and rows[0]["ate"] == "0.1"
    with pytest.raises(RunError, match="measure that first"):
        read(tmp_path / "own")


def test_the_page_says_of_which_weights_it_speaks():
    text = rules.PAGE.read_text("utf-8")
    assert re.search(r"SHA-256 `[0-9a-f]{64}`", text) and rules.FIGURE.exists()
    for rule in rules.RULES:
        assert f"| `{rule}`, never reset |" in text, rule
    with rules.TABLE.open() as file:
        assert {row["rule"] for row in csv.DictReader(file)} == set(rules.RULES)
    assert rules.TABLE.is_relative_to(PROJECT_ROOT / "docs")


def test_every_rule_is_measured():
    """Alone or around another one; but for `split`, which is for the pose memory."""
    named = {name for rule in rules.RULES for name in re.findall(r"[a-z]\w*", rule)}
    assert named == {name for name in EXAMPLES if name != "split"}


def stream(count: int, seed: int) -> torch.Tensor:
    return random_images(count, seed=seed).clamp(-1, 1)


def test_streams_together_are_as_each_alone(monkeypatch):
    """The streams have different lengths, and are reset at the same frames."""
    model, streams = random_tiny(), [stream(5, 1), stream(3, 2)]

    def poses(images) -> list[torch.Tensor]:
        session = Session(model, "filt3r", reset=2, outputs=("pose",))
        return [session.push(image).world_from_camera for image in images]

    alone = [poses(images) for images in streams]
    encoded, known, original = [], Known(), Cut3r.encode

    def counting(self, views):
        encoded.append(len(views.image))
        return original(self, views)

    monkeypatch.setattr(Cut3r, "encode", counting)
    for _ in range(2):
        jobs = [lambda images=images: poses(images) for images in streams]
        together = run_together(jobs, model, known)
        for ours, expected in zip(together, alone, strict=True):
            # A batch of products rounds in another order than one product.
            torch.testing.assert_close(
                torch.stack(ours), torch.stack(expected), rtol=1e-4, atol=1e-5
            )
    assert sum(encoded) == 8


def test_a_failing_stream_does_not_leave_the_others_waiting():
    model = random_tiny()

    def good():
        return Session(model, outputs=("pose",)).push(stream(1, 0)[0]).index

    def bad():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_together([good, bad], model, Known())
    assert "step" not in vars(model)
