"""Tables of single sequences, and everything that went wrong with them."""

from collections.abc import Iterator, Mapping, Sequence

from ttt3r.evaluation.reports.beside import mean_at
from ttt3r.evaluation.reports.compare import frames_text, headlines
from ttt3r.evaluation.reports.tables import (
    NOTHING,
    Cell,
    Table,
    heading,
    mark_best,
    markdown_table,
    markdown_text,
    number,
)
from ttt3r.evaluation.results import Evaluation, Metric, Score, left_out, scores_at

STATES = {"failed": "Failed", "dropped": "Dropped", "ok": "Noted"}


def sequences_text(evaluations: Sequence[Evaluation]) -> str:
    """Return every sequence at the longest length: metrics, or rules where there are several."""
    length, metrics = longest_length(evaluations[0]), headlines(evaluations[0])
    names = [name for name in evaluations[0].settings.sequences if _any_has(evaluations, name)]
    if not names:
        return "No sequence has been evaluated."
    at = "all frames" if length is None else f"{length} frames"
    if len(evaluations) == 1:
        columns = [(heading(m), m, evaluations[0]) for m in metrics]
        return f"At {at}.\n\n{_sequence_table(columns, names, length, best=False)}"
    parts = [f"At {at}."]
    for metric in metrics:
        columns = [(e.label, metric, e) for e in evaluations]
        parts.append(f"### {markdown_text(heading(metric))}")
        parts.append(_sequence_table(columns, names, length, best=True))
    return "\n\n".join(parts)


def _sequence_table(
    columns: Sequence[tuple[str, Metric, Evaluation]],
    names: Sequence[str],
    length: int | None,
    best: bool,
) -> str:
    """Return a table of (title, metric, evaluation) by sequence, with means and medians below."""
    metrics = [metric for _, metric, _ in columns]
    body = []
    for name in names:
        values = [_value(evaluation, name, length, metric) for _, metric, evaluation in columns]
        cells = _cells(values, metrics, best)
        body.append(
            (
                Cell(name),
                *(
                    Cell(_why_none(evaluation, name, length)) if value is None else cell
                    for value, cell, (_, _, evaluation) in zip(values, cells, columns, strict=True)
                ),
            )
        )
    weighted = columns[0][2].settings.task == "depth"
    kinds = {"mean, by valid pixels": "metrics"} if weighted else {}
    kinds |= {"mean": "plain", "median": "median"}
    below = []
    for title, kind in kinds.items():
        values = [getattr(mean_at(e, length), kind).get(m.key) for _, m, e in columns]
        fair = best and same_sequences([e for _, _, e in columns], length)
        below.append((Cell(title), *_cells(values, metrics, fair)))
    header = ("sequence", *(title for title, _, _ in columns))
    return markdown_table(Table(header, (tuple(body), tuple(below))))


def _cells(values: list[float | None], metrics: Sequence[Metric], best: bool) -> list[Cell]:
    """Return values as cells; `best` is marked if all are of one metric."""
    if best:
        return mark_best(values, metrics[0])
    return [Cell(number(v, m.digits)) for v, m in zip(values, metrics, strict=True)]


def _value(evaluation: Evaluation, name: str, length: int | None, metric: Metric) -> float | None:
    score = scores_at(evaluation, length).get(name)
    return None if score is None else score.metrics.get(metric.key)


def _why_none(evaluation: Evaluation, name: str, length: int | None) -> str:
    """Say in a word why a sequence has no number."""
    entry = next((s for s in evaluation.sequences if s.sequence == name), None)
    if entry is None:
        return NOTHING
    status = entry.scores[evaluation.settings.lengths.index(length)].status
    return (
        "left out"
        if status == "ok" and name in left_out(evaluation.settings, evaluation.sequences)
        else status
    )


def _any_has(evaluations: Sequence[Evaluation], name: str) -> bool:
    return any(entry.sequence == name for e in evaluations for entry in e.sequences)


def notes_text(evaluations: Sequence[Evaluation]) -> str:
    """List what failed, was dropped or has a note; what is the same is said once."""
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for label, name, score in _scores(evaluations):
        if score.status != "ok" or score.note:
            key = score.status, name, score.note or "no reason was given"
            found.setdefault(key, {}).setdefault(label, []).append(frames_text(score.length))
    lines = []
    for status, title in STATES.items():
        for (_, name, note), where in (i for i in found.items() if i[0][0] == status):
            lines.append(
                f"* {title}: {markdown_text(name)} ({_where(where, len(evaluations))}): "
                f"{markdown_text(note)}"
            )
    return "\n".join(lines) or "None."


def _scores(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, str, Score]]:
    """Every score with the label of its evaluation and the name of its sequence."""
    for evaluation in evaluations:
        for entry in evaluation.sequences:
            for score in entry.scores:
                yield evaluation.label, entry.sequence, score


def _where(lengths: Mapping[str, Sequence[str]], rules: int) -> str:
    """Say at which lengths, and under which rules if not all."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for label, at in lengths.items():
        groups.setdefault(tuple(at), []).append(label)
    return "; ".join(
        ("" if len(labels) == rules else f"{markdown_text(' and '.join(labels))}, ")
        + f"{', '.join(at)} frames"
        for at, labels in groups.items()
    )


def longest_length(evaluation: Evaluation) -> int | None:
    """Return the longest of the lengths that were asked for."""
    lengths = evaluation.settings.lengths
    return None if None in lengths else max(n for n in lengths if n is not None)


def same_sequences(evaluations: Sequence[Evaluation], length: int | None) -> bool:
    """Say whether all have scores for the same sequences at a length."""
    return len({frozenset(scores_at(evaluation, length)) for evaluation in evaluations}) == 1
