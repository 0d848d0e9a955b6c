"""What `benchmarks.rules` writes of its measurements: the page, the figure and all numbers."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import Interval, bootstrap, geometric
from benchmarks.machine import table
from ttt3r.errors import RunError
from ttt3r.evaluation.reports.figures import BLACK, COLOURS, GREY, MARKERS, new_figure
from ttt3r.evaluation.results import METRICS, Evaluation, read_evaluation
from ttt3r.evaluation.store import SUMMARY
from ttt3r.files import write_atomically, write_text

BASE = "overwrite"
METRIC = "ate"
WELL_BELOW = 0.9  # of the error of a random walk
INTERVALS = ("ate", "rpe_rotation")  # have a panel
SHOWN = ("ate", "rpe_translation", "rpe_rotation", "rotation")
TICKS = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.4, 1.7, 2, 3, 5)
# ATE over that of `overwrite` by the third-party notes of docs/rules.md, "What others report".
CLAIMS: dict[str, tuple[float, float, float, float]] = {
    "overwrite": (0.033, 0.166, 0.095, 0.817),
    "ttt3r": (0.019, 0.103, 0.064, 0.406),
    "ttsa3r": (0.016, 0.091, 0.058, 0.378),
    "damped(ttt3r, 0.5)": (0.016, 0.079, 0.065, 0.283),
    "brake(1)": (0.015, 0.063, 0.072, 0.261),
    "ortho": (0.015, 0.055, 0.087, 0.488),
}


def ratio(
    evaluation: Evaluation, base: Evaluation, length: int | None, key: str = METRIC
) -> Interval | None:
    """Return the geometric mean of error over the base's error, sequence by sequence."""
    ours, theirs = evaluation.scores(length), base.scores(length)
    pairs = [(ours[n].metrics[key], theirs[n].metrics[key]) for n in ours if n in theirs]
    if not pairs:
        return None
    return geometric(np.array(pairs))


def read(folder: Path) -> list[Evaluation]:
    """Return what was measured in a folder, `overwrite` without resets first.

    Raises:
        RunError: if nothing was, or it was not measured there.
    """
    found = [read_evaluation(path) for path in sorted(folder.glob(f"*/{SUMMARY}"))]
    order = [*CLAIMS, "brake"]

    def place(evaluation: Evaluation) -> tuple[int, str, str]:
        rule = evaluation.settings.rule
        known = order.index(rule) if rule in order else len(order)
        return (known, rule, "" if evaluation.settings.reset == "never" else "later")

    found.sort(key=place)
    if not found or found[0].label != BASE:
        raise RunError(f"{folder} holds no measurement of {BASE}: measure that first")
    return found


def resets_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the resets that were measured, "never" first."""
    return list(dict.fromkeys(evaluation.settings.reset for evaluation in evaluations))


def without_resets(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return those that are never reset."""
    return [evaluation for evaluation in evaluations if evaluation.settings.reset == "never"]


def reset_text(reset: str) -> str:
    """A reset as text tells it."""
    if reset == "never":
        return "never reset"
    every = re.fullmatch(r"every\((\d+)\)", reset)
    return f"reset every {every[1]} frames" if every else f"reset by {reset}"


def verdicts(evaluations: Sequence[Evaluation], length: int | None, key: str = METRIC) -> list[str]:
    """Sentences: which rules are better or worse than `overwrite` without resets."""
    base, lines = evaluations[0], []
    title = next(metric.title for metric in METRICS["pose"] if metric.key == key)
    for reset in resets_of(evaluations):
        groups: dict[str, list[str]] = {"better": [], "worse": [], "no difference seen": []}
        for evaluation in evaluations:
            found = ratio(evaluation, base, length, key)
            if evaluation.settings.reset == reset and evaluation.label != BASE and found:
                groups[found.verdict].append(f"`{evaluation.settings.rule}` ({found.mean:.2f})")
        parts = [f"{what}: {', '.join(names) or 'none'}" for what, names in groups.items()]
        lines.append(f"* {title}, {length} frames, {reset_text(reset)}: {'; '.join(parts)}.")
    return lines


def against_walk(evaluations: Sequence[Evaluation]) -> str:
    """A sentence: where a mean ATE lies well below that of a random walk."""
    base, best, below = evaluations[0], [], []
    for length in base.settings.lengths:
        walk = base.mean(length).plain["ate_walk"]
        means = ((e, e.mean(length).plain.get(METRIC)) for e in evaluations)
        ratios = {
            f"`{e.settings.rule}` ({reset_text(e.settings.reset)})": m / walk
            for e, m in means
            if m is not None
        }
        if ratios:
            best.append(f"{min(ratios.values()):.2f} at {length}")
            names = [name for name, found in ratios.items() if found < WELL_BELOW]
            below += [f"at {length} frames {', '.join(names)}"] if names else []
    lowest = f"The lowest mean ATE of any rule over that of the walk: {', '.join(best)} frames."
    if not below:
        return (
            "**At no length does any rule get well below the ATE of a random walk** (below "
            f"{WELL_BELOW:g} of it), which uses no image: with these weights ATE on such streams "
            f"tells next to nothing of a rule. {lowest} The error of the motion between "
            "neighbouring frames (RPE) tells more."
        )
    return (
        "Well below the mean ATE of a random walk, which uses no image (below "
        f"{WELL_BELOW:g} of it), are {'; '.join(below)}. {lowest}"
    )


def at_length(evaluations: Sequence[Evaluation], length: int | None) -> str:
    """All metrics at one length, as a table."""
    metrics = [metric for metric in METRICS["pose"] if metric.key in SHOWN]
    metrics.sort(key=lambda metric: SHOWN.index(metric.key))
    rows = []
    for evaluation in evaluations:
        scores, found = evaluation.scores(length), ratio(evaluation, evaluations[0], length)
        row = [f"`{evaluation.settings.rule}`, {reset_text(evaluation.settings.reset)}"]
        row += [str(len(scores)), "-" if found is None else found.text(2)]
        for metric in metrics:
            values = [score.metrics[metric.key] for score in scores.values()]
            row.append(bootstrap(values).text(metric.digits) if values else "-")
        rows.append(row)
    titles = [f"{m.title} ({m.unit})" for m in metrics]
    return table(["rule", "n", f"ATE / that of `{BASE}`", *titles], rows)


def by_length(evaluations: Sequence[Evaluation]) -> str:
    """Mean ATE at every length, and that of answers that use no image."""
    lengths = evaluations[0].settings.lengths
    rows = []
    for evaluation in evaluations:
        name = f"`{evaluation.settings.rule}`, {reset_text(evaluation.settings.reset)}"
        means = [mean.plain.get(METRIC) for mean in evaluation.means]
        rows.append([name, *("-" if mean is None else f"{mean:.3f}" for mean in means)])
    for key, title in (("ate_walk", "a random walk"), ("ate_static", "a still camera")):
        means = [mean.plain.get(key) for mean in evaluations[0].means]
        rows.append([title, *("-" if mean is None else f"{mean:.3f}" for mean in means)])
    return table(["mean ATE (m)", *(f"{length} frames" for length in lengths)], rows)


def claims() -> str:
    """What others report, as ratios, as a table."""
    base = CLAIMS[BASE]
    rows = [
        [f"`{rule}`", *(f"{one / other:.2f}" for one, other in zip(values, base, strict=True))]
        for rule, values in CLAIMS.items()
    ]
    return table(["claimed", "TUM, 90", "TUM, 1000", "ScanNet, 90", "ScanNet, 1000"], rows)


INTRODUCTION = """\
# Rules, measured

<!-- Written by `python -m benchmarks.rules --report`; changes made by hand are lost. -->

What each [update rule](rules.md) does to the paths of cameras, with the small weights in the
package. They were trained on short synthetic clips, and their paths are rough: this says which rule
suits *these* weights on long streams, and nothing about published weights, for which the command
takes `--model`.

* **Streams** are those of the protocol `synthetic/stride1` of [`ttt3r eval`](evaluation.md): rooms
  and corridors in which nothing moves, on closed paths that come back again and again. No training
  takes their seeds.
* **Errors** are those of `ttt3r eval`: *ATE* after the best similarity; *RPE* between neighbouring
  frames; *rotation* since the first frame, without any fit.
* **Ratios** compare a rule with `overwrite` that is never reset, stream by stream; the mean is the
  geometric one.
* **Intervals** in brackets hold 95 % of the means of as many streams drawn anew from these, with
  replacement. With few streams they are too narrow, and no more than a hint: "better" below means
  that nearly every stream was better. No rule was tuned, and ten rules were compared at once.
* A reset starts a new segment, which is joined to the one before by the frame that both have seen.
"""


def page(synthetic: Sequence[Evaluation], own: Sequence[Evaluation], figure: str) -> str:
    """The page as Markdown."""
    first = synthetic[0]
    settings, facts, lengths = first.settings, first.facts, first.settings.lengths
    lines = [
        INTRODUCTION,
        f"Weights: `{settings.model}`, SHA-256 `{settings.fingerprint}`; images of {settings.size} "
        f"pixels, {settings.precision}. Measured at commit {facts.get('commit', 'unknown')} with "
        f"torch {facts.get('torch', '?')} on {facts.get('processor', '?')}, by "
        f"`python -m benchmarks.rules --lengths {' '.join(map(str, lengths))} --streams "
        f"{len(first.sequences)}`. All numbers: [rules.csv](images/rules.csv).",
        "",
        "## What helps and what hurts",
        "",
        against_walk(synthetic),
        "",
        "By the ratio of errors to those of `overwrite` without resets, in parentheses:",
        "",
        *(line for length in lengths[:-1] for line in verdicts(without_resets(synthetic), length)),
        *(line for key in SHOWN for line in verdicts(synthetic, lengths[-1], key)),
        "",
        f"![Errors of every rule over those of overwrite]({figure})",
        "",
        f"## At {lengths[-1]} frames",
        "",
        at_length(synthetic, lengths[-1]),
        "",
        "## Error against length",
        "",
        by_length(synthetic),
        "",
        "A still camera at the best place has the largest error that any path can have after the "
        "fit; a random walk is the mean of eight. A rule whose error is not well below the walk's "
        "says nothing about the path.",
    ]
    if own:
        names = ", ".join(own[0].names)
        lines += [
            "",
            "## Recorded sequences",
            "",
            f"The first {own[0].settings.lengths[-1]} frames of {len(own[0].names)} recordings in "
            f"the layout of [one's own sequences](evaluation.md#data-of-your-own) ({names}), by "
            "`python -m benchmarks.rules --data ROOT --resets never`:",
            "",
            against_walk(own),
            "",
            *(line for key in SHOWN for line in verdicts(own, own[0].settings.lengths[-1], key)),
            "",
            at_length(own, own[0].settings.lengths[-1]),
        ]
    lines += [
        "",
        "## What others claim",
        "",
        "The same ratio from unreviewed third-party notes on a fork of TTT3R, with the published "
        "CUT3R weights, at frames of two datasets. Nothing of it was measured here; "
        "[rules.md](rules.md#what-others-report) has the errors themselves.",
        "",
        claims(),
        "",
    ]
    return "\n".join(lines)


def write_table(evaluations: Sequence[tuple[str, Evaluation]], path: Path) -> None:
    """Write every number: one row for each rule, reset, sequence and length."""
    keys = [metric.key for metric in METRICS["pose"]]

    def rows(target: Path) -> None:
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["data", "rule", "reset", "sequence", "frames", "status", *keys])
            for data, evaluation in evaluations:
                settings = evaluation.settings
                for entry in evaluation.sequences:
                    for score in entry.scores:
                        numbers = (score.metrics.get(key) for key in keys)
                        cells = ("" if n is None else f"{n:.6g}" for n in numbers)
                        head = [data, settings.rule, settings.reset, entry.sequence]
                        writer.writerow([*head, score.frames, score.status, *cells])

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, rows)


def draw(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw ratios against length, one panel for each reset, and their intervals at the end.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    resets, rules = resets_of(evaluations), []
    for evaluation in evaluations:
        if evaluation.settings.rule not in rules:
            rules.append(evaluation.settings.rule)
    looks = {
        rule: {
            "color": BLACK if rule == BASE else COLOURS[i % len(COLOURS)],
            "linestyle": "-" if i <= len(COLOURS) else "--",
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, rule in enumerate(rules)
    }
    title = (
        f"Errors of every rule over those of {BASE} without resets, geometric mean of the streams"
    )
    with new_figure(path, title, 4.6 * (len(resets) + len(INTERVALS)), 5.8) as figure:
        axes = figure.subplots(1, len(resets) + len(INTERVALS))
        for axis, reset in zip(axes, resets, strict=False):
            shown = [e for e in evaluations if e.settings.reset == reset]
            _draw_lengths(axis, shown, evaluations[0], looks)
            axis.set_title(reset_text(reset), loc="left")
        low = min(axis.get_ylim()[0] for axis in axes[: len(resets)])
        high = max(axis.get_ylim()[1] for axis in axes[: len(resets)])
        ticks = [tick for tick in TICKS if low <= tick <= high]
        for axis in axes[: len(resets)]:
            axis.set_ylim(low, high)
            axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[0].set_ylabel(f"ATE / ATE of {BASE}")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=5)
        for axis, key in zip(axes[len(resets) :], INTERVALS, strict=True):
            _draw_intervals(axis, evaluations, rules, resets, key)
        handles = axes[-1].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower right", ncols=2)


def _draw_lengths(
    axis: Any, evaluations: Sequence[Evaluation], base: Evaluation, looks: dict[str, dict[str, Any]]
) -> None:
    lengths = base.settings.lengths
    axis.axhline(1.0, color=GREY, linewidth=0.8)
    for evaluation in evaluations:
        found = [ratio(evaluation, base, length) for length in lengths]
        points = [(n, r.mean) for n, r in zip(lengths, found, strict=True) if r is not None]
        rule = evaluation.settings.rule
        axis.plot(*zip(*points, strict=True), label=rule, markersize=5, **looks[rule])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(lengths, map(str, lengths))
    axis.minorticks_off()
    axis.set_xlabel("frames")
    axis.grid()


def _draw_intervals(
    axis: Any, evaluations: Sequence[Evaluation], rules: list[str], resets: list[str], key: str
) -> None:
    """Means and intervals at the longest length, a row for each rule."""
    base = evaluations[0]
    length = base.settings.lengths[-1]
    axis.axvline(1.0, color=GREY, linewidth=0.8)
    for evaluation in evaluations:
        found = ratio(evaluation, base, length, key)
        if found is None:
            continue
        row = rules.index(evaluation.settings.rule)
        which = resets.index(evaluation.settings.reset)
        y = row + 0.22 * (which - (len(resets) - 1) / 2)
        axis.plot([found.low, found.high], [y, y], color=COLOURS[which], linewidth=2.0)
        label = reset_text(evaluation.settings.reset) if row == len(rules) - 1 else None
        axis.plot([found.mean], [y], "o", color=COLOURS[which], label=label)
    axis.set_yticks(range(len(rules)), rules)
    axis.invert_yaxis()
    title = next(metric.title for metric in METRICS["pose"] if metric.key == key)
    axis.set_title(f"{title}, {length} frames, 95 % intervals", loc="left")
    axis.set_xlabel(f"{title} / that of {BASE}")
    axis.grid(axis="x")


def write(folder: Path, page_path: Path, figure: Path, numbers: Path) -> None:
    """Write the page, its figure and the table of all numbers.

    Raises:
        RunError: if nothing was measured.
    """
    synthetic = read(folder / "synthetic")
    own = read(folder / "own") if (folder / "own").is_dir() else []
    draw(synthetic, figure)
    write_table([*(("synthetic", e) for e in synthetic), *(("own", e) for e in own)], numbers)
    text = page(synthetic, own, f"images/{figure.name}")
    write_atomically(page_path, lambda path: write_text(path, text))
