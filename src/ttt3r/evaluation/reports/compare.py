"""Two evaluations under one protocol against each other, sequence by sequence."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ttt3r.errors import SettingError
from ttt3r.evaluation.reports.tables import (
    Cell,
    Table,
    heading,
    markdown_table,
    markdown_text,
    number,
    percent,
)
from ttt3r.evaluation.results import METRICS, Evaluation, Metric, Score, means, scores_at

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

    length: int | None
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

    length: int | None
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
        only_one: sequences that are in no row for want of one of the scores.
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
    rows: list[MetricComparison] = []
    only_one: list[OnlyOne] = []
    for length in lengths:
        scores = scores_at(first, length), scores_at(second, length)
        rows += _rows(first, second, length, scores)
        only_one += _only_one(first, second, length, scores)
    return Comparison(first, second, differing, tuple(rows), tuple(only_one))


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as text that lines up in a terminal and is Markdown too."""
    first, second = comparison.first, comparison.second
    settings = first.settings
    parts = [
        f"{settings.task} on {settings.protocol} ({settings.variant})",
        f"* A: {markdown_text(first.label)}\n* B: {markdown_text(second.label)}",
    ]
    if comparison.settings:
        parts.append(_settings_table(comparison.settings))
    if comparison.rows:
        parts += [
            "Means over the n sequences that both have scored. Better, equal and worse count the "
            "sequences on which B is; p is of the two-sided sign test.",
            _rows_table(comparison.rows),
        ]
    else:
        parts.append("**No sequence was scored by both, so there is nothing to compare.**")
    if comparison.only_one:
        parts.append("Scored by only one of them, and in no mean above:")
        parts.append(_only_one_list(comparison.only_one))
    return "\n\n".join(parts) + "\n"


def sign_test(wins: int, losses: int) -> float:
    """Return the p-value of the two-sided sign test; ties do not enter.

    It is the probability that so uneven a result, or one more uneven, comes from coin tosses:
    2 Σ_{i ≤ min} C(n, i) / 2ⁿ, at most 1 (Dixon and Mood, JASA 1946).
    """
    tosses = wins + losses
    tail = sum(math.comb(tosses, i) for i in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**tosses)


def different_settings(first: Evaluation, second: Evaluation) -> dict[str, tuple[str, str]]:
    """Return the settings in which two evaluations differ: name to (first's, second's)."""
    pairs = (
        (field.name, getattr(first.settings, field.name), getattr(second.settings, field.name))
        for field in dataclasses.fields(first.settings)
    )
    return {name: (_say(one), _say(other)) for name, one, other in pairs if one != other}


def headlines(evaluation: Evaluation) -> list[Metric]:
    """Return the metrics that short tables show."""
    return [metric for metric in METRICS[evaluation.settings.task] if metric.headline]


def frames_text(length: int | None) -> str:
    """Return a length as text."""
    return "all" if length is None else str(length)


def _say(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    words = [frames_text(entry) if entry is None else str(entry) for entry in value]
    return ", ".join(words) if len(words) <= 12 else f"{', '.join(words[:10])}, … ({len(words)})"


def _rows(
    first: Evaluation,
    second: Evaluation,
    length: int | None,
    scores: tuple[dict[str, Score], dict[str, Score]],
) -> list[MetricComparison]:
    shared = [name for name in scores[0] if name in scores[1]]
    if not shared:
        return []
    averages = [_means(evaluation, length, shared) for evaluation in (first, second)]
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
                first=averages[0][metric.key],
                second=averages[1][metric.key],
                wins=wins,
                ties=len(shared) - wins - losses,
                losses=losses,
                p_value=sign_test(wins, losses),
            )
        )
    return rows


def _means(evaluation: Evaluation, length: int | None, names: Sequence[str]) -> Mapping[str, float]:
    """Return the weighted means over some sequences."""
    at = evaluation.settings.lengths.index(length)
    settings = dataclasses.replace(evaluation.settings, lengths=(length,))
    chosen = [
        dataclasses.replace(entry, scores=(entry.scores[at],))
        for entry in evaluation.sequences
        if entry.sequence in names
    ]
    return means(settings, chosen)[0].metrics


def _gain(metric: Metric, first: float, second: float) -> float:
    """Return a positive number if the second value is better, 0 for a tie."""
    if math.isclose(first, second, rel_tol=EQUAL):
        return 0.0
    return first - second if metric.better == "lower" else second - first


def _only_one(
    first: Evaluation,
    second: Evaluation,
    length: int | None,
    scores: tuple[dict[str, Score], dict[str, Score]],
) -> list[OnlyOne]:
    found = []
    sides: tuple[tuple[Side, Evaluation], ...] = (("A", second), ("B", first))
    for (side, other), own, others in zip(sides, scores, reversed(scores), strict=True):
        found += [
            OnlyOne(length, name, side, _reason(other, length, name))
            for name in own
            if name not in others
        ]
    return found


def _reason(evaluation: Evaluation, length: int | None, name: str) -> str:
    """Say why a sequence has no score."""
    at = evaluation.settings.lengths.index(length)
    score = next((e.scores[at] for e in evaluation.sequences if e.sequence == name), None)
    if score is None:
        return "not evaluated"
    if score.status == "ok":
        return "left out: no score at another length"
    return f"{score.status}: {score.note}" if score.note else score.status


def _settings_table(settings: Mapping[str, tuple[str, str]]) -> str:
    rows = tuple(tuple(map(Cell, (name, *pair))) for name, pair in settings.items())
    return markdown_table(Table(("setting", "A", "B"), (rows,), frozenset({0, 1, 2})))


def _rows_table(rows: Sequence[MetricComparison]) -> str:
    header = ("frames", "n", "metric", "A", "B", "B - A", "change")
    header += ("better", "equal", "worse", "p")
    cells = [
        (
            frames_text(row.length),
            str(row.count),
            heading(row.metric),
            number(row.first, row.metric.digits),
            number(row.second, row.metric.digits),
            f"{row.second - row.first:+.{row.metric.digits}f}",
            percent(row.second, row.first),
            *map(str, (row.wins, row.ties, row.losses)),
            f"{row.p_value:.2g}",
        )
        for row in rows
    ]
    group = tuple(tuple(map(Cell, row)) for row in cells)
    return markdown_table(Table(header, (group,), frozenset({2})))


def _only_one_list(entries: Sequence[OnlyOne]) -> str:
    lengths: dict[tuple[str, Side, str], list[str]] = {}
    for entry in entries:
        key = entry.sequence, entry.scored_by, entry.reason
        lengths.setdefault(key, []).append(frames_text(entry.length))
    return "\n".join(
        f"* {markdown_text(name)}, {', '.join(at)} frames: only {side}; the other: "
        f"{markdown_text(reason)}"
        for (name, side, reason), at in lengths.items()
    )
