"""The headline metric against the number of frames, one line for each rule."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ttt3r.evaluation.reports.beside import counterpart, mean_at, origin, published_beside
from ttt3r.evaluation.reports.compare import frames_text, headlines
from ttt3r.evaluation.reports.figures import GREY, colour, new_figure, spread_labels
from ttt3r.evaluation.reports.report import check_alike, title_of
from ttt3r.evaluation.reports.tables import heading
from ttt3r.evaluation.results import Evaluation, Metric, scores_at

LOGARITHMIC_FROM = 8.0  # ratio of the longest to the shortest length
MOST_LINES = 24  # single sequences are drawn up to so many lines, above it their quartiles
HEADROOM = 1.6  # how far above the means single sequences are shown
RULE_MARKERS = {"paper": "D", "authors": "^", "rerun": "s"}
OTHER_MARKERS = "ov<>pPX*"
LEAST_GAP = 0.09  # between labels of the axis, as a part of it


def plot_lengths(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw the headline metric against the length.

    Thick lines are means. Thin lines are single sequences; where these are many, a band shows
    their quartiles instead. Hollow markers are published means, where they are comparable; over
    several lengths, those of methods that are one of the rules. Crosses at the upper edge say where
    sequences failed.

    Args:
        evaluations: one or more that differ in rule and reset policy only.
        path: PNG file to write.

    Raises:
        SettingError: if there is none, or they differ in anything else.
        MissingExtraError: if matplotlib is not installed.
    """
    check_alike(evaluations)
    metric = headlines(evaluations[0])[0]
    places = _places(evaluations)
    with new_figure(path, title_of(evaluations[0]), 8.6, 4.6) as figure:
        axis = figure.subplots()
        few = sum(len(e.sequences) for e in evaluations) <= MOST_LINES
        tops = [
            _draw_rule(axis, evaluation, metric, places, colour(i), few)
            for i, evaluation in enumerate(evaluations)
        ]
        tops.append(_draw_published(axis, evaluations, metric, places))
        for i, evaluation in enumerate(evaluations):
            _draw_failures(axis, evaluation, places, i)
        _set_axes(axis, evaluations[0].settings.lengths, places, max(tops))
        axis.set_ylabel(heading(metric))
        axis.grid()
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def _places(evaluations: Sequence[Evaluation]) -> dict[int | None, float]:
    """Return where each length lies on the axis: "all frames" at the longest sequence."""
    lengths = evaluations[0].settings.lengths
    places = {}
    for i, length in enumerate(lengths):
        frames = [entry.scores[i].frames for e in evaluations for entry in e.sequences]
        longest = max([*frames, *(n for n in lengths if n is not None)], default=1)
        places[length] = float(longest if length is None else length)
    return places


def _draw_rule(
    axis: Any,
    evaluation: Evaluation,
    metric: Metric,
    places: dict[int | None, float],
    tone: str,
    few: bool,
) -> float:
    """Draw the means and what lies behind them; returns the largest mean."""
    series: dict[str, list[tuple[float, float]]] = {}
    quartiles, points = [], []
    for length, x in places.items():
        scores = {name: s.metrics[metric.key] for name, s in scores_at(evaluation, length).items()}
        for name, value in scores.items():
            series.setdefault(name, []).append((x, value))
        mean = mean_at(evaluation, length).metrics.get(metric.key)
        if mean is not None:
            points.append((x, mean))
            quartiles.append((x, *np.percentile(list(scores.values()), (25.0, 75.0))))
    if not points:
        axis.plot([], [], color=tone, label=f"{evaluation.label}: no score")
        return 0.0
    single = len(points) == 1
    if few:
        for line in series.values():
            axis.plot(
                *zip(*line, strict=True), color=tone, alpha=0.3, linewidth=0.9,
                marker="." if single or len(line) == 1 else None,
            )  # fmt: skip
    elif single:
        axis.vlines(*quartiles[0], color=tone, alpha=0.3, linewidth=6.0)
    else:
        xs, low, high = zip(*quartiles, strict=True)
        axis.fill_between(xs, low, high, color=tone, alpha=0.15, linewidth=0)
    axis.plot(
        *zip(*points, strict=True), color=tone, linewidth=2.2, marker="o", markersize=5,
        label=f"{evaluation.label}: mean",
    )  # fmt: skip
    return max(mean for _, mean in points)


def _draw_published(
    axis: Any,
    evaluations: Sequence[Evaluation],
    metric: Metric,
    places: dict[int | None, float],
) -> float:
    """Draw published means; returns the largest."""
    series: dict[tuple[str, str, str | None], list[tuple[float, float]]] = {}
    kinds = {}
    for row in published_beside(evaluations)[0]:
        entry = row.entry
        usual = entry.statistic == "mean" and not entry.sequences and not row.note
        if not usual or metric.key not in entry.metrics:
            continue
        own = counterpart(evaluations, entry)
        if own is None and len(places) > 1:
            continue
        tone = None if own is None else colour(evaluations.index(own))
        key = entry.title, origin(entry), tone
        series.setdefault(key, []).append((places[row.length], entry.metrics[metric.key]))
        kinds[key] = entry.kind
    others = 0
    for key, points in series.items():
        title, source, tone = key
        marker = RULE_MARKERS[kinds[key]]
        if tone is None:
            marker = OTHER_MARKERS[others % len(OTHER_MARKERS)]
            others += 1
        axis.plot(
            *zip(*points, strict=True), linestyle="none", marker=marker, markersize=8,
            markerfacecolor="none", markeredgewidth=1.4, color=tone or GREY, zorder=3,
            label=f"{title}, {source}",
        )  # fmt: skip
    return max((value for points in series.values() for _, value in points), default=0.0)


def _draw_failures(
    axis: Any, evaluation: Evaluation, places: dict[int | None, float], index: int
) -> None:
    failed = [
        (x, mean.failed)
        for length, x in places.items()
        if (mean := mean_at(evaluation, length)).failed
    ]
    if not failed:
        return
    axis.plot(
        [x for x, _ in failed],
        [0.97 - 0.05 * index] * len(failed),
        linestyle="none",
        marker="x",
        markersize=7,
        markeredgewidth=2.0,
        color=colour(index),
        transform=axis.get_xaxis_transform(),
        label=f"{evaluation.label}: {_range([count for _, count in failed])} failed",
        zorder=4,
    )


def _set_axes(
    axis: Any,
    lengths: Sequence[int | None],
    places: dict[int | None, float],
    top: float,
) -> None:
    """Label lengths where there is room, and keep single bad sequences from flattening the rest."""
    order = sorted(lengths, key=lambda length: places[length])
    xs = np.array([places[length] for length in order])
    logarithmic = xs[-1] > LOGARITHMIC_FROM * xs[0]
    if logarithmic:
        axis.set_xscale("log")
    labelled = spread_labels(np.log(xs) if logarithmic else xs, LEAST_GAP)
    axis.set_xticks(xs[labelled], [frames_text(order[i]) for i in labelled])
    axis.set_xticks(xs, [""] * len(xs), minor=True)
    axis.set_xlabel("frames")
    if top > 0.0:
        axis.set_ylim(0.0, min(axis.get_ylim()[1], HEADROOM * top))
    else:
        axis.set(ylim=(0.0, 1.0), yticks=())


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
