"""Two evaluations under one protocol against each other, sequence by sequence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from ttt3r.errors import MissingExtraError, SettingError
from ttt3r.evaluation.reports.tables import (
    Table,
    frames_text,
    heading,
    markdown_table,
    markdown_text,
    percent,
)
from ttt3r.evaluation.results import METRICS, Evaluation, Length, Metric

# What must be equal: otherwise the numbers measure different things.
SAME = ("task", "protocol", "variant", "data")
EQUAL = 1e-9  # relative difference below which two values are a tie

Side = Literal["A", "B"]


@dataclass(frozen=True)
class MetricComparison:
    """One metric at one length, over the sequences that both evaluations have scored.

    Attributes:
        length: frames; None for all there are.
        metric: which one.
        count: sequences in both means.
        first: mean of A, weighted as `results.Mean.metrics` is.
        second: mean of B.
        wins: sequences on which B is better.
        ties: sequences on which they are equal.
        losses: sequences on which B is worse.
        p_value: of the two-sided sign test; see `sign_test`.
    """

    length: Length
    metric: Metric
    count: int
    first: float
    second: float
    wins: int
    ties: int
    losses: int
    p_value: float


@dataclass(frozen=True)
class OnlyOne:
    """A sequence that only one of the evaluations has scored.

    Attributes:
        length: frames; None for all there are.
        sequence: its name.
        scored_by: who has.
        reason: why the other has not.
    """

    length: Length
    sequence: str
    scored_by: Side
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. A is the first evaluation, B the second.

    Attributes:
        first: A.
        second: B.
        settings: those that differ: name to (A's, B's).
        rows: headline metrics at each length that both have.
        only_one: sequences that only one side has scored; they are in no row.
    """

    first: Evaluation
    second: Evaluation
    settings: Mapping[str, tuple[str, str]]
    rows: tuple[MetricComparison, ...]
    only_one: tuple[OnlyOne, ...]


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare B, the second evaluation, with A, the first.

    Args:
        first: A.
        second: B, of the same task, protocol, variant and dataset.

    Raises:
        SettingError: if these differ, or no length was evaluated in both.
    """
    differing = different_settings(first, second)
    for name in SAME:
        if name in differing:
            one, other = differing[name]
            raise SettingError(
                f"the evaluations cannot be compared: their {name} is {one} and {other}, so they "
                "measure different things. Evaluate both in the same way."
            )
    lengths = [length for length in first.settings.lengths if length in second.settings.lengths]
    if not lengths:
        raise SettingError(
            "the evaluations cannot be compared: they have no length in common. "
            "Evaluate both at the same numbers of frames."
        )
    rows = tuple(row for length in lengths for row in _rows(first, second, length))
    only_one = tuple(entry for length in lengths for entry in _only_one(first, second, length))
    return Comparison(first, second, differing, rows, only_one)


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as text that lines up in a terminal and is Markdown too."""
    first, second = comparison.first, comparison.second
    settings = first.settings
    parts = [
        f"{settings.task} on {settings.protocol} ({settings.variant})",
        f"* A: {markdown_text(first.label)}\n* B: {markdown_text(second.label)}",
    ]
    if comparison.settings:
        differing = [(name, *pair) for name, pair in comparison.settings.items()]
        parts.append(markdown_table(Table(("setting", "A", "B"), (differing,), (0, 1, 2))))
    if comparison.rows:
        header = ("frames", "n", "metric", "A", "B", "B - A", "change", "better", "equal", "worse")
        rows = [_cells(row) for row in comparison.rows]
        parts += [
            "Means over the n sequences that both have scored. Better, equal and worse count the "
            "sequences on which B is; p is of the two-sided sign test.",
            markdown_table(Table((*header, "p"), (rows,), (2,))),
        ]
    else:
        parts.append("**No sequence was scored by both, so there is nothing to compare.**")
    if comparison.only_one:
        parts.append("Scored by only one of them, and in no mean above:")
        parts.append(_only_one_list(comparison.only_one))
    return "\n\n".join(parts) + "\n"


def sign_test(wins: int, losses: int) -> float:
    """Return the p-value of the two-sided sign test; ties do not enter.

    It is the probability that fair coin tosses give a result at least as uneven
    (Dixon and Mood, JASA 1946).

    Raises:
        MissingExtraError: if scipy is not installed.
    """
    if wins == losses:
        return 1.0
    try:
        from scipy.stats import binomtest
    except ImportError as error:
        raise MissingExtraError("scipy", "eval", "comparing evaluations") from error
    return float(binomtest(wins, wins + losses).pvalue)


def different_settings(first: Evaluation, second: Evaluation) -> dict[str, tuple[str, str]]:
    """Return the settings in which two evaluations differ: name to (first's, second's)."""

    def say(value: object) -> str:
        return ", ".join(map(frames_text, value)) if isinstance(value, tuple) else str(value)

    pairs = (
        (field.name, getattr(first.settings, field.name), getattr(second.settings, field.name))
        for field in fields(first.settings)
    )
    return {name: (say(one), say(other)) for name, one, other in pairs if one != other}


def headlines(evaluation: Evaluation) -> list[Metric]:
    """Return the metrics that short tables show."""
    return [metric for metric in METRICS[evaluation.settings.task] if metric.headline]


def _rows(first: Evaluation, second: Evaluation, length: Length) -> list[MetricComparison]:
    scores = first.scores(length), second.scores(length)
    shared = [name for name in scores[0] if name in scores[1]]
    if not shared:
        return []
    means = [evaluation.mean_over(length, shared).metrics for evaluation in (first, second)]
    rows = []
    for metric in headlines(first):
        values = [[s[name].metrics[metric.key] for name in shared] for s in scores]
        gains = [_gain(metric, one, other) for one, other in zip(*values, strict=True)]
        wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        rows.append(
            MetricComparison(
                length=length,
                metric=metric,
                count=len(shared),
                first=means[0][metric.key],
                second=means[1][metric.key],
                wins=wins,
                ties=len(shared) - wins - losses,
                losses=losses,
                p_value=sign_test(wins, losses),
            )
        )
    return rows


def _gain(metric: Metric, first: float, second: float) -> float:
    """Return a positive number if the second value is better, 0 for a tie."""
    if math.isclose(first, second, rel_tol=EQUAL):
        return 0.0
    return first - second if metric.better == "lower" else second - first


def _only_one(first: Evaluation, second: Evaluation, length: Length) -> list[OnlyOne]:
    sides: tuple[tuple[Side, Evaluation, Evaluation], ...] = (
        ("A", first, second),
        ("B", second, first),
    )
    return [
        OnlyOne(length, name, side, _reason(other, length, name))
        for side, own, other in sides
        for name in own.scores(length)
        if name not in other.scores(length)
    ]


def _reason(evaluation: Evaluation, length: Length, name: str) -> str:
    """Say why a sequence has no score."""
    score = evaluation.score(name, length)
    if score is None:
        return "not evaluated"
    if score.status == "ok":
        return "left out: no score at another length"
    return f"{score.status}: {score.note}" if score.note else score.status


def _cells(row: MetricComparison) -> tuple[str, ...]:
    metric, difference = row.metric, row.metric.factor * (row.second - row.first)
    return (
        frames_text(row.length),
        str(row.count),
        heading(metric),
        metric.text(row.first),
        metric.text(row.second),
        f"{difference:+.{metric.digits}f}",
        percent(row.second, row.first),
        *map(str, (row.wins, row.ties, row.losses)),
        f"{row.p_value:.2g}",
    )


def _only_one_list(entries: tuple[OnlyOne, ...]) -> str:
    lengths: dict[tuple[str, Side, str], list[str]] = {}
    for entry in entries:
        key = entry.sequence, entry.scored_by, entry.reason
        lengths.setdefault(key, []).append(frames_text(entry.length))
    return "\n".join(
        f"* {markdown_text(name)}, {', '.join(at)} frames: only {side}; the other: "
        f"{markdown_text(reason)}"
        for (name, side, reason), at in lengths.items()
    )
