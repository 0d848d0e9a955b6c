"""Evaluations as a report: Markdown for people, LaTeX for papers."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from ttt3r.errors import SettingError
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.reports.beside import (
    Beside,
    is_done,
    mean_at,
    origin,
    published_beside,
    published_text,
)
from ttt3r.evaluation.reports.compare import different_settings, frames_text, headlines
from ttt3r.evaluation.reports.details import (
    longest_length,
    notes_text,
    same_sequences,
    sequences_text,
)
from ttt3r.evaluation.reports.published import read_speeds
from ttt3r.evaluation.reports.tables import (
    NOTHING,
    Cell,
    Row,
    Table,
    heading,
    latex_table,
    latex_text,
    mark_best,
    markdown_table,
    markdown_text,
    number,
)
from ttt3r.evaluation.results import METRICS, Evaluation, Mean, Metric

TITLES: dict[Task, str] = {"pose": "Camera poses", "depth": "Depth", "recon": "Points"}
# What may differ between evaluations side by side.
FREE = {"rule", "reset"}
GIB = 2.0**30
# What answers score that look at no image, and what that says.
BASELINES = {
    "ate_static": "A camera that never moves. Whatever can be fitted to the truth scores less, "
    "so an ATE close to this one means that next to nothing of the path was found.",
    "constant/abs_rel": "The one depth that suits each sequence best. A prediction that does not "
    "score less has seen nothing.",
}


def markdown(evaluations: Sequence[Evaluation], plots: Sequence[Path] = ()) -> str:
    """Return a report.

    Args:
        evaluations: one or more that differ in rule and reset policy only.
        plots: images to show, relative to where the report will lie.

    Raises:
        SettingError: if there is none, or they differ in anything else.
    """
    check_alike(evaluations)
    sections = [
        f"# {markdown_text(title_of(evaluations[0]))}",
        _cautions(evaluations),
        f"## Settings\n\n{_settings(evaluations)}",
        f"## Results\n\n{_results(evaluations)}",
        _without_images(evaluations[0]),
        f"## Published numbers\n\n{published_text(evaluations)}",
        f"## Time and memory\n\n{_cost(evaluations)}",
        f"## Sequences\n\n{sequences_text(evaluations)}",
        f"## Failures, drops and notes\n\n{notes_text(evaluations)}",
        f"## Figures\n\n{_images(plots)}" if plots else "",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


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
    groups: list[tuple[Row, ...]] = []
    for length in evaluations[0].settings.lengths:
        groups.append(tuple(_mean_rows(evaluations, length)))
        groups.append(tuple(_latex_row(row, metrics) for row in rows if row.length == length))
    header = ("frames", "method", *map(heading, metrics), "sequences", "FPS")
    left = frozenset({1, len(header) - 2})
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_caption(evaluations, rows)}}}",
        latex_table(Table(header, tuple(groups), left)),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def check_alike(evaluations: Sequence[Evaluation]) -> None:
    """Check that evaluations can stand side by side.

    Raises:
        SettingError: if there is none, or they differ in more than rule and reset policy.
    """
    if not evaluations:
        raise SettingError("there is no evaluation to report; give at least one")
    first, *others = evaluations
    for other in others:
        names = different_settings(first, other).keys() - FREE
        if names:
            raise SettingError(
                f"evaluations in one report may differ in rule and reset only, but these differ in "
                f"{', '.join(sorted(names))}. Report them apart, or compare two of them."
            )
    labels = [evaluation.label for evaluation in evaluations]
    if len(set(labels)) < len(labels):
        raise SettingError(f"two evaluations are both {', '.join(labels)}; report each one once")


def title_of(evaluation: Evaluation) -> str:
    """Return in a line what was measured on how many sequences, and whether these are all."""
    settings = evaluation.settings
    count = len(settings.sequences)
    sequences = "1 sequence" if count == 1 else f"{count} sequences"
    subset = "" if settings.complete else ", a subset"
    return (
        f"{TITLES[settings.task]}: {settings.protocol} ({settings.variant}), "
        f"{sequences} of {settings.data}{subset}"
    )


def _cautions(evaluations: Sequence[Evaluation]) -> str:
    lines = []
    if not evaluations[0].settings.complete:
        lines.append(
            "**A subset:** these are not all sequences of the dataset that count under this "
            "protocol, so the means are not those of published tables."
        )
    for evaluation in evaluations:
        if not is_done(evaluation):
            total = len(evaluation.settings.sequences)
            lines.append(
                f"**Not finished:** {markdown_text(evaluation.label)} has "
                f"{len(evaluation.sequences)} of {total} sequences."
            )
    return "\n\n".join(lines)


def _images(plots: Sequence[Path]) -> str:
    return "\n\n".join(f"![{markdown_text(p.stem)}]({quote(p.as_posix())})" for p in plots)


def _settings(evaluations: Sequence[Evaluation]) -> str:
    settings = evaluations[0].settings
    complete = "all that count" if settings.complete else "a subset"
    rows = {
        "rules": "; ".join(evaluation.label for evaluation in evaluations),
        "dataset": settings.data,
        "sequences": f"{len(settings.sequences)}, {complete}",
        "frames": ", ".join(map(frames_text, settings.lengths)),
        "model": settings.model,
        "SHA-256": settings.fingerprint,
        "longer side of images": f"{settings.size} pixels",
        "precision": settings.precision,
        "device": settings.device,
    }
    for name in dict.fromkeys(name for e in evaluations for name in e.facts):
        values = {e.label: e.facts.get(name, "unknown") for e in evaluations}
        same = len(set(values.values())) == 1
        told = [value if same else f"{label}: {value}" for label, value in values.items()]
        rows[name] = "; ".join(dict.fromkeys(told))
    cells = tuple((Cell(name), Cell(text)) for name, text in rows.items())
    return markdown_table(Table(("setting", "value"), (cells,), frozenset({0, 1})))


def _results(evaluations: Sequence[Evaluation]) -> str:
    lengths = evaluations[0].settings.lengths
    metrics = headlines(evaluations[0])
    header = ("frames", "rule", *map(heading, metrics), "sequences", "FPS")
    groups = tuple(tuple(_mean_rows(evaluations, length)) for length in lengths)
    parts = [markdown_table(Table(header, groups, frozenset({1, len(header) - 2})))]
    if not any(mean.count for evaluation in evaluations for mean in evaluation.means):
        parts.insert(0, "**No sequence has a score.**")
    if not all(same_sequences(evaluations, length) for length in lengths):
        parts.append(
            "Where the rules have scores for different sequences, nothing is marked as best: "
            "their means are not over the same. A comparison of two evaluations is."
        )
    if evaluations[0].settings.variant == "corrected":
        parts.append("A sequence that is dropped at one length is left out at all of them.")
    return "\n\n".join(parts)


def _without_images(evaluation: Evaluation) -> str:
    """Return what an answer scores that looks at no image; it depends on the truth alone."""
    metric = next((m for m in METRICS[evaluation.settings.task] if m.key in BASELINES), None)
    means = [mean for mean in evaluation.means if metric and metric.key in mean.metrics]
    if metric is None or not means:
        return ""
    rows = tuple(
        (Cell(frames_text(mean.length)), Cell(number(mean.metrics[metric.key], metric.digits)))
        for mean in means
    )
    table = markdown_table(Table(("frames", heading(metric)), (rows,), frozenset()))
    return f"## Without looking\n\n{BASELINES[metric.key]}\n\n{table}"


def _mean_rows(evaluations: Sequence[Evaluation], length: int | None) -> list[Row]:
    """Return a row for each rule: frames, rule, headline metrics, sequences, speed."""
    every = [mean_at(evaluation, length) for evaluation in evaluations]
    fair = same_sequences(evaluations, length)
    columns = [
        _cells([mean.metrics.get(metric.key) for mean in every], metric, fair)
        for metric in headlines(evaluations[0])
    ]
    return [
        (
            Cell(frames_text(length)),
            Cell(evaluation.label),
            *(column[i] for column in columns),
            Cell(_counts(mean)),
            Cell(number(mean.frames_per_second, 1)),
        )
        for i, (evaluation, mean) in enumerate(zip(evaluations, every, strict=True))
    ]


def _cells(values: list[float | None], metric: Metric, fair: bool) -> list[Cell]:
    if fair:
        return mark_best(values, metric)
    return [Cell(number(value, metric.digits)) for value in values]


def _counts(mean: Mean) -> str:
    counts = {"dropped": mean.dropped, "failed": mean.failed, "shorter": mean.shorter}
    told = [f"{count} {name}" for name, count in counts.items() if count]
    return ", ".join([f"n = {mean.count}", *told])


def _latex_row(row: Beside, metrics: Sequence[Metric]) -> Row:
    return (
        Cell(frames_text(row.length)),
        Cell(f"{row.entry.title}, {origin(row.entry)}"),
        *(Cell(number(row.entry.metrics.get(m.key), m.digits)) for m in metrics),
        Cell(NOTHING if row.entry.n is None else f"n = {row.entry.n}"),
        Cell(NOTHING),
    )


def _caption(evaluations: Sequence[Evaluation], rows: Sequence[Beside]) -> str:
    settings = evaluations[0].settings
    text = (
        f"{title_of(evaluations[0])}. Weights {settings.model}, images of {settings.size} pixels."
    )
    if rows:
        sources = dict.fromkeys(row.entry.source for row in rows)
        text += f" Published numbers: {'; '.join(sources)}."
    return latex_text(text)


def _cost(evaluations: Sequence[Evaluation]) -> str:
    rows = []
    for evaluation in evaluations:
        peaks = [s.peak_memory for s in evaluation.sequences if s.peak_memory is not None]
        seconds = [s.seconds for s in evaluation.sequences if s.seconds is not None]
        longest = mean_at(evaluation, longest_length(evaluation))
        texts = (
            evaluation.label,
            number(longest.frames_per_second, 1),
            number(max(peaks) / GIB if peaks else None, 2),
            number(sum(seconds) / 60.0 if seconds else None, 1),
        )
        rows.append(tuple(map(Cell, texts)))
    header = ("rule", "FPS", "peak memory (GiB)", "time of everything (min)")
    speeds = []
    for speed in read_speeds():
        told = [
            f"{speed.frames_per_second:g} FPS" if speed.frames_per_second else "",
            f"{speed.gigabytes:g} GB" if speed.gigabytes else "",
            speed.conditions,
        ]
        speeds.append(f"{speed.method} {', '.join(filter(None, told))} ({speed.source})")
    return "\n\n".join(
        [
            markdown_table(Table(header, (tuple(rows),))),
            "FPS is of the session alone, over the longest clips: images are read and resized "
            "outside of it. Peak memory is that of the GPU's allocations, or else of the process.",
            markdown_text(f"Published, on other machines: {'; '.join(speeds)}."),
        ]
    )
