"""Which published numbers may stand beside one's own, and which of one's own belongs to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ttt3r.evaluation.reports.compare import frames_text
from ttt3r.evaluation.reports.published import KINDS, Published, published_for
from ttt3r.evaluation.reports.tables import (
    NOTHING,
    Cell,
    Row,
    Table,
    heading,
    markdown_table,
    number,
    percent,
)
from ttt3r.evaluation.results import METRICS, Evaluation, Mean, Metric, scores_at

PUBLISHED_SIZE = 512  # longer side of the images behind every published number, pixels
PUBLISHED_WEIGHTS = "cut3r_512_dpt_4_64"


@dataclass(frozen=True)
class Beside:
    """A published row, and one's own values of the same things.

    Attributes:
        length: as one's own evaluation names it; None for all frames.
        entry: what was published.
        own: one's own value of each of its metrics; empty where there is none to compare with.
        note: why there is none, or what else to know.
    """

    length: int | None
    entry: Published
    own: dict[str, float]
    note: str


def published_beside(evaluations: Sequence[Evaluation]) -> tuple[list[Beside], str]:
    """Return the published rows that are comparable, and why others are not.

    Comparable is what has the same frames of the same sequences at the same image size, selected
    and scored in the published way. Whether the weights are the published ones cannot be told.

    Args:
        evaluations: one or more that differ in rule and reset policy only.

    Returns:
        Rows in the order of the lengths, and a reason; "" if nothing was left out.
    """
    settings = evaluations[0].settings
    pairs = [
        (length, entry)
        for length in settings.lengths
        for entry in published_for(settings.task, settings.protocol, length)
    ]
    if not pairs:
        return [], ""
    if settings.variant != "published":
        return [], f"they follow the published protocol, but this is the {settings.variant} one"
    if settings.size != PUBLISHED_SIZE:
        return [], (
            f"they were made with images of {PUBLISHED_SIZE} pixels, these with {settings.size}"
        )
    partial = _partial(evaluations)
    rows = []
    for length, entry in pairs:
        if entry.sequences and set(entry.sequences) - set(settings.sequences):
            continue
        if entry.sequences or not partial:
            rows.append(_beside(evaluations, length, entry))
    return rows, partial


def published_text(evaluations: Sequence[Evaluation]) -> str:
    """Return a table of the published rows that are comparable, or why there is none."""
    rows, reason = published_beside(evaluations)
    parts = []
    if rows:
        known = METRICS[evaluations[0].settings.task]
        shown = {key for row in rows for key in row.entry.metrics}
        metrics = [metric for metric in known if metric.key in shown]
        header = ("frames", "method", *map(heading, metrics), "n", "source")
        cells = tuple(_row(row, metrics) for row in rows)
        parts = [
            "In brackets: by how much the value here differs from the published one. "
            f"Comparable only with the published weights, {PUBLISHED_WEIGHTS}.",
            markdown_table(Table(header, (cells,), frozenset({1, len(header) - 1}))),
        ]
    if reason:
        others = "Other published" if rows else "Published"
        parts.append(f"{others} numbers exist, but cannot be compared with these: {reason}.")
    if not parts:
        parts.append("No published number of this protocol at these lengths is known.")
    return "\n\n".join(parts)


def _row(row: Beside, metrics: Sequence[Metric]) -> Row:
    entry = row.entry
    told = [entry.source, row.note]
    told += [] if entry.certain else [f"unconfirmed: {entry.reason}"]
    values = []
    for metric in metrics:
        text = number(entry.metrics.get(metric.key), metric.digits)
        if metric.key in row.own:
            text += f" ({percent(row.own[metric.key], entry.metrics[metric.key])})"
        values.append(Cell(text))
    return (
        Cell(frames_text(row.length)),
        Cell(entry.title),
        *values,
        Cell(NOTHING if entry.n is None else str(entry.n)),
        Cell("; ".join(filter(None, told))),
    )


def counterpart(evaluations: Sequence[Evaluation], entry: Published) -> Evaluation | None:
    """Return the evaluation of the same method: its rule, never reset."""
    return next(
        (e for e in evaluations if e.settings.rule == entry.rule and e.settings.reset == "never"),
        None,
    )


def origin(entry: Published) -> str:
    """Return in a word or two who says it, and whether it is confirmed."""
    return KINDS[entry.kind] + ("" if entry.certain else ", unconfirmed")


def is_done(evaluation: Evaluation) -> bool:
    """Say whether every sequence of the settings has been evaluated."""
    return {e.sequence for e in evaluation.sequences} >= set(evaluation.settings.sequences)


def mean_at(evaluation: Evaluation, length: int | None) -> Mean:
    """Return the means at a length."""
    return evaluation.means[evaluation.settings.lengths.index(length)]


def _partial(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations[0].settings.complete:
        return "they are means over all sequences of the dataset, these over a subset"
    if not all(map(is_done, evaluations)):
        return "they are means over all sequences, of which some are not evaluated yet here"
    return ""


def _beside(evaluations: Sequence[Evaluation], length: int | None, entry: Published) -> Beside:
    evaluation = counterpart(evaluations, entry)
    if evaluation is not None and entry.sequences:
        return _beside_sequences(evaluation, length, entry)
    # Methods that are none of these rules stand beside any of them.
    candidates = evaluations if evaluation is None else [evaluation]
    every = [mean_at(candidate, length) for candidate in candidates]
    failed, dropped = (max(getattr(m, name) for m in every) for name in ("failed", "dropped"))
    if not entry.sequences and failed:
        return Beside(length, entry, {}, f"not comparable: {failed} failed here")
    if not entry.sequences and entry.n is None and dropped:
        return Beside(length, entry, {}, f"not comparable: {dropped} dropped here")
    if not entry.sequences and entry.n not in (None, *(mean.count for mean in every)):
        return Beside(length, entry, {}, f"not comparable: n = {every[0].count} here")
    if evaluation is None:
        return Beside(length, entry, {}, "")
    own = every[0].median if entry.statistic == "median" else every[0].metrics
    return Beside(length, entry, _of(own, entry), "")


def _beside_sequences(evaluation: Evaluation, length: int | None, entry: Published) -> Beside:
    scores = scores_at(evaluation, length)
    if set(entry.sequences) - scores.keys():
        return Beside(length, entry, {}, "not comparable: no score here")
    values = [scores[name].metrics for name in entry.sequences]
    own = {key: sum(v[key] for v in values) / len(values) for key in values[0]}
    return Beside(length, entry, _of(own, entry), "")


def _of(own: Mapping[str, float], entry: Published) -> dict[str, float]:
    return {key: own[key] for key in entry.metrics if key in own}
