"""Evaluations as a report: Markdown for people, LaTeX for papers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from ttt3r.errors import SettingError
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.reports.compare import different_settings, headlines
from ttt3r.evaluation.reports.published import (
    Beside,
    origin,
    published_beside,
    published_text,
    read_speeds,
)
from ttt3r.evaluation.reports.tables import (
    NOTHING,
    Row,
    Table,
    frames_text,
    heading,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
    ranked,
)
from ttt3r.evaluation.results import METRICS, Evaluation, Length, Mean, Metric, Score

TITLES: dict[Task, str] = {"pose": "Camera poses", "depth": "Depth", "recon": "Points"}
STATES = {"failed": "Failed", "dropped": "Dropped", "ok": "Noted"}
# What may differ between evaluations side by side.
FREE = {"rule", "reset", "pose_from"}
GIB = 2.0**30
# Scores of answers that use no image, and how to read them.
BASELINES = {
    "pose": "A camera that never moves has the largest ATE that is possible after the fit of a "
    "similarity, and random walks have a smaller one. Only an ATE well below theirs means that "
    "motion was found.",
    "depth": "AbsRel of the best constant depth of each sequence. A prediction that is not better "
    "has learned nothing from the images.",
}


def markdown(evaluations: Sequence[Evaluation], plots: Sequence[Path] = ()) -> str:
    """Return a report.

    Args:
        evaluations: one or more that differ in rule, reset and sequences only.
        plots: images to show, relative to where the report will lie.

    Raises:
        SettingError: if there is none, or they differ in anything else.
    """
    check_alike(evaluations)
    images = (f"![{markdown_text(p.stem)}]({quote(p.as_posix())})" for p in plots)
    sections = {
        f"# {markdown_text(title_of(evaluations))}": _caution(evaluations),
        "## Settings": _settings(evaluations),
        "## Results": results(evaluations),
        "## Baselines without images": baselines(evaluations),
        "## Published numbers": published_text(evaluations),
        "## Time and memory": _cost(evaluations),
        "## Sequences": sequences(evaluations),
        "## Failures, drops and notes": notes(evaluations),
        "## Figures": "\n\n".join(images),
    }
    return (
        "\n\n".join(
            f"{title}\n\n{text}".strip()
            for title, text in sections.items()
            if text or title.startswith("# ")
        )
        + "\n"
    )


def latex(evaluations: Sequence[Evaluation]) -> str:
    r"""Return the means as a `table` environment; it needs ``\usepackage{booktabs}`` only.

    Published rows that are comparable follow below those of the same length.

    Args:
        evaluations: as in `markdown`.

    Raises:
        SettingError: as `markdown`.
    """
    check_alike(evaluations)
    metrics = headlines(evaluations[0])
    keys = {metric.key for metric in metrics}
    rows = [
        row
        for row in published_beside(evaluations)[0]
        if not row.note and keys & row.entry.metrics.keys()
    ]
    groups: list[list[Row]] = []
    for length in evaluations[0].settings.lengths:
        groups.append(_mean_rows(evaluations, length))
        groups.append([_latex_row(row, metrics) for row in rows if row.length == length])
    header = ("frames", "method", *map(heading, metrics), "sequences", "FPS")
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_caption(evaluations, rows)}}}",
        latex_table(Table(header, groups, (1, len(header) - 2))),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def check_alike(evaluations: Sequence[Evaluation]) -> None:
    """Check that evaluations can stand side by side; their sequences may differ.

    Raises:
        SettingError: if there is none, or they differ in more than rule, reset and pose_from.
    """
    if not evaluations:
        raise SettingError("there is no evaluation to report; give at least one")
    for other in evaluations[1:]:
        names = different_settings(evaluations[0], other).keys() - FREE
        if names:
            raise SettingError(
                "evaluations in one report may differ in rule, reset and source of poses only, but "
                f"these differ in {', '.join(sorted(names))}. Report them apart, or compare two of "
                "them."
            )
    labels = [evaluation.label for evaluation in evaluations]
    if len(set(labels)) < len(labels):
        raise SettingError(f"two evaluations are both {', '.join(labels)}; report each one once")


def names_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the names of all sequences that any of the evaluations has."""
    return list(dict.fromkeys(name for e in evaluations for name in e.names))


def same_sequences(evaluations: Sequence[Evaluation], length: Length) -> bool:
    """Say whether all have scores for the same sequences at a length."""
    return len({frozenset(evaluation.scores(length)) for evaluation in evaluations}) == 1


def title_of(evaluations: Sequence[Evaluation]) -> str:
    """Return in a line what was measured on how many sequences, and whether these are all."""
    settings, count = evaluations[0].settings, len(names_of(evaluations))
    sequences = "1 sequence" if count == 1 else f"{count} sequences"
    subset = "" if any(e.complete for e in evaluations) else ", a subset"
    return (
        f"{TITLES[settings.task]}: {settings.protocol} ({settings.variant}), "
        f"{sequences} of {settings.data}{subset}"
    )


def _each(evaluations: Sequence[Evaluation], values: Sequence[str]) -> str:
    """Return the value of each evaluation: once if all are the same, else with their labels."""
    if len(set(values)) == 1:
        return values[0]
    return "; ".join(f"{e.label}: {value}" for e, value in zip(evaluations, values, strict=True))


def _caution(evaluations: Sequence[Evaluation]) -> str:
    subsets = [e for e in evaluations if not e.complete]
    if not subsets:
        return ""
    labels = ", ".join(markdown_text(e.label) for e in subsets)
    of = f" of {labels}" if len(subsets) < len(evaluations) else ""
    return (
        f"**A subset:** the sequences{of} are not those of the dataset that count under this "
        "protocol, so the means are not those of published tables."
    )


def _settings(evaluations: Sequence[Evaluation]) -> str:
    settings = evaluations[0].settings
    counts = [
        f"{len(e.names)}, {'all that count' if e.complete else 'a subset'}" for e in evaluations
    ]
    rows = {
        "rules": "; ".join(evaluation.label for evaluation in evaluations),
        "dataset": settings.data,
        "sequences": _each(evaluations, counts),
        "frames": ", ".join(map(frames_text, settings.lengths)),
        "model": settings.model,
        "SHA-256": settings.fingerprint,
        "longer side of images": f"{settings.size} pixels",
        "precision": settings.precision,
    }
    for name in dict.fromkeys(name for e in evaluations for name in e.facts):
        rows[name] = _each(evaluations, [e.facts.get(name, "unknown") for e in evaluations])
    return markdown_table(Table(("setting", "value"), (list(rows.items()),), (0, 1)))


def results(evaluations: Sequence[Evaluation]) -> str:
    """Return the means at every length, a row for each rule, as Markdown."""
    lengths = evaluations[0].settings.lengths
    header = ("frames", "rule", *map(heading, headlines(evaluations[0])), "sequences", "FPS")
    groups = [_mean_rows(evaluations, length) for length in lengths]
    parts = [markdown_table(Table(header, groups, (1, len(header) - 2)))]
    if not any(mean.count for evaluation in evaluations for mean in evaluation.means):
        parts.insert(0, "**No sequence has a score.**")
    if not all(same_sequences(evaluations, length) for length in lengths):
        parts.append(
            "The rules have scores for different sequences, so their means cannot be ranked, and "
            "nothing is marked as best. `ttt3r eval --compare` compares two of them on the "
            "sequences that both have."
        )
    if evaluations[0].settings.variant == "corrected":
        parts.append("A sequence that is dropped at one length is left out at all of them.")
    return "\n\n".join(parts)


def _mean_rows(evaluations: Sequence[Evaluation], length: Length) -> list[Row]:
    """Return a row for each rule: frames, rule, headline metrics, sequences, speed."""
    means = [evaluation.mean(length) for evaluation in evaluations]
    fair = same_sequences(evaluations, length)
    columns = [
        _column([mean.metrics.get(metric.key) for mean in means], metric, fair)
        for metric in headlines(evaluations[0])
    ]
    rates = [_number(mean.frames_per_second, 1) for mean in means]
    labels = [evaluation.label for evaluation in evaluations]
    rows = zip(labels, *columns, map(_counts, means), rates, strict=True)
    return [(frames_text(length), *row) for row in rows]


def _column(values: Sequence[float | None], metric: Metric, fair: bool) -> list[str]:
    return ranked(values, metric) if fair else [metric.text(value) for value in values]


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _counts(mean: Mean) -> str:
    counts = {"dropped": mean.dropped, "failed": mean.failed, "shorter": mean.shorter}
    told = [f"{count} {name}" for name, count in counts.items() if count]
    return ", ".join([f"n = {mean.count}", *told])


def baselines(evaluations: Sequence[Evaluation]) -> str:
    """Return the scores of the baselines; they depend on the truth alone."""
    task = evaluations[0].settings.task
    keys = ("ate_static", "ate_walk", "rotation_static", "constant/abs_rel")
    metrics = [metric for metric in METRICS[task] if metric.key in keys]
    most = max(evaluations, key=lambda e: len(e.names))
    rows = [
        (frames_text(mean.length), *(metric.text(mean.metrics[metric.key]) for metric in metrics))
        for mean in most.means
        if mean.count
    ]
    if not (metrics and rows):
        return ""
    table = markdown_table(Table(("frames", *map(heading, metrics)), (rows,), ()))
    return f"{BASELINES[task]}\n\n{table}"


def _latex_row(row: Beside, metrics: Sequence[Metric]) -> Row:
    return (
        frames_text(row.length),
        f"{row.entry.title}, {origin(row.entry)}",
        *(metric.text(row.entry.metrics.get(metric.key)) for metric in metrics),
        NOTHING if row.entry.n is None else f"n = {row.entry.n}",
        NOTHING,
    )


def _caption(evaluations: Sequence[Evaluation], rows: Sequence[Beside]) -> str:
    settings = evaluations[0].settings
    text = f"{title_of(evaluations)}. Weights {settings.model}, images of {settings.size} pixels."
    if rows:
        sources = dict.fromkeys(row.entry.source for row in rows)
        text += f" Published numbers: {'; '.join(sources)}."
    return latex_text(text)


def _cost(evaluations: Sequence[Evaluation]) -> str:
    rows = []
    for evaluation in evaluations:
        peaks = [s.peak_memory for s in evaluation.sequences if s.peak_memory is not None]
        seconds = [s.seconds for s in evaluation.sequences if s.seconds is not None]
        rows.append(
            (
                evaluation.label,
                _number(evaluation.means[-1].frames_per_second, 1),
                _number(max(peaks) / GIB if peaks else None, 2),
                _number(sum(seconds) / 60.0 if seconds else None, 1),
            )
        )
    header = ("rule", "FPS", "peak memory (GiB)", "total time (min)")
    speeds = "; ".join(map(str, read_speeds()))
    return "\n\n".join(
        [
            markdown_table(Table(header, (rows,))),
            "FPS counts the session alone, at the longest length; the total time includes reading "
            "and resizing images, and scoring. Peak memory is what was allocated on the GPU or, on "
            "a CPU, the resident memory of the process.",
            markdown_text(f"Published, on other machines: {speeds}."),
        ]
    )


def sequences(evaluations: Sequence[Evaluation]) -> str:
    """Return every sequence at the longest length: metrics, or rules where there are several."""
    length, metrics = evaluations[0].settings.lengths[-1], headlines(evaluations[0])
    if not names_of(evaluations):
        return "No sequence has been evaluated."
    parts = ["At all frames." if length is None else f"At {length} frames."]
    if len(evaluations) == 1:
        columns = [(heading(metric), metric, evaluations[0]) for metric in metrics]
        return f"{parts[0]}\n\n{_sequence_table(columns, length, best=False)}"
    for metric in metrics:
        columns = [(evaluation.label, metric, evaluation) for evaluation in evaluations]
        parts.append(f"### {markdown_text(heading(metric))}")
        parts.append(_sequence_table(columns, length, best=True))
    return "\n\n".join(parts)


def _sequence_table(
    columns: Sequence[tuple[str, Metric, Evaluation]], length: Length, *, best: bool
) -> str:
    """Return a table of (title, metric, evaluation) by sequence, with means and medians below.

    The best values of a row are marked if all columns have the same metric.
    """
    titles, metrics, evaluations = zip(*columns, strict=True)

    def row(title: str, values: Sequence[float | None], fair: bool = True) -> list[str]:
        cells = [metric.text(value) for metric, value in zip(metrics, values, strict=True)]
        return [title, *(ranked(values, metrics[0]) if best and fair else cells)]

    body = []
    for name in names_of(evaluations):
        scores = [evaluation.scores(length).get(name) for evaluation in evaluations]
        pairs = zip(scores, metrics, strict=True)
        cells = row(name, [s and s.metrics.get(metric.key) for s, metric in pairs])
        for i, evaluation in enumerate(evaluations):
            if scores[i] is None:
                cells[i + 1] = _why_none(evaluation, name, length)
        body.append(cells)
    weighted = evaluations[0].settings.task == "depth"
    kinds = {"mean, by valid pixels": "metrics"} if weighted else {}
    fair = same_sequences(evaluations, length)
    below = []
    for title, kind in (kinds | {"mean": "plain", "median": "median"}).items():
        means = [getattr(evaluation.mean(length), kind) for evaluation in evaluations]
        values = [mean.get(metric.key) for mean, metric in zip(means, metrics, strict=True)]
        below.append(row(title, values, fair))
    return markdown_table(Table(("sequence", *titles), (body, below)))


def _why_none(evaluation: Evaluation, name: str, length: Length) -> str:
    """Say in a word why a sequence has no number."""
    score = evaluation.score(name, length)
    if score is None:
        return NOTHING
    return "left out" if score.status == "ok" else score.status


def notes(evaluations: Sequence[Evaluation]) -> str:
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
    """Return every score with the label of its evaluation and the name of its sequence."""
    for evaluation in evaluations:
        for entry in evaluation.sequences:
            yield from ((evaluation.label, entry.sequence, score) for score in entry.scores)


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
