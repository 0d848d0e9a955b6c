"""Numbers that others have published, and which of one's own belongs beside each.

They are facts, one line each in `published.csv` beside this file; a test checks every line. The
columns:

* ``task``, ``protocol``: what was measured; names as in `ttt3r.evaluation.protocols`, always the
  published variant.
* ``length``: frames, or "all".
* ``method``: what its authors call it; ``rule``: the update rule of this package that is the same
  method, empty if there is none.
* ``kind``, ``source``: who says so. "paper" is the value of a paper; where only a later table or
  digest that quotes the value was at hand, the source says "quoted". "authors" is a statement of
  the method's authors outside of their paper. "rerun" is a run of the public code by others.
* ``metrics``: keys of `ttt3r.evaluation.results.METRICS`; metres, degrees, and fractions instead of
  percent.
* ``n``: sequences behind the number; ``statistic``: "mean" or "median" over sequences;
  ``sequences``: their names, where the number is not that of the whole dataset.
* ``doubt``: why the number could not be confirmed; ``remark``: what else to know.

`published_speeds.csv` holds frames per second and gigabytes (10⁹ bytes), which depend on the
machine.

The long-sequence results of the TTT3R paper are curves without printed values, so re-runs are all
there is at those lengths. Re-runs of CUT3R on long sequences differ by about 13 % between machines,
those of TTT3R by about 4 %. The re-run on ScanNet had 96 of the 100 scenes; scenes with unknown
poses are left out, so ``n`` shrinks with the length.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, cast

from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.reports.tables import (
    NOTHING,
    Row,
    Table,
    frames_text,
    heading,
    markdown_table,
    percent,
)
from ttt3r.evaluation.results import METRICS, Evaluation, Length, Metric, Settings

ALL = "all"
PUBLISHED_SIZE = 512  # longer side of the images behind every published number, pixels
PUBLISHED_WEIGHTS = "cut3r_512_dpt_4_64"

Kind = Literal["paper", "authors", "rerun"]
Statistic = Literal["mean", "median"]
KINDS: dict[Kind, str] = {"paper": "paper", "authors": "authors", "rerun": "re-run"}


@dataclass(frozen=True)
class Published:
    """One row of one published table; the columns are explained above.

    Attributes:
        task: what was measured.
        protocol: name of the protocol.
        length: frames; None for all there are.
        method: name of the method.
        kind: who says so.
        source: where.
        metrics: value of each `results.Metric.key`.
        rule: the same method here; None if there is none.
        n: sequences behind the number; None if unknown.
        statistic: over sequences.
        sequences: names; () for the whole dataset.
        doubt: why the number is not confirmed; "" if it is.
        remark: what else to know; "" for nothing.
    """

    task: Task
    protocol: str
    length: Length
    method: str
    kind: Kind
    source: str
    metrics: Mapping[str, float]
    rule: str | None = None
    n: int | None = None
    statistic: Statistic = "mean"
    sequences: tuple[str, ...] = ()
    doubt: str = ""
    remark: str = ""

    @property
    def title(self) -> str:
        """What tables call it: the method, and what the number is if not the usual mean."""
        of = [", ".join(self.sequences)] if len(self.sequences) == 1 else []
        of += [f"{len(self.sequences)} sequences"] if len(self.sequences) > 1 else []
        of += [self.statistic] if self.statistic != "mean" else []
        return ", ".join([self.method, *of])


@dataclass(frozen=True)
class PublishedSpeed:
    """How fast and large a method was on somebody's machine.

    Attributes:
        method: what its authors call it.
        source: where it is said.
        frames_per_second: None if unknown.
        gigabytes: memory of the GPU, 10⁹ bytes; None if unknown.
        conditions: what else is known of the measurement.
    """

    method: str
    source: str
    frames_per_second: float | None
    gigabytes: float | None
    conditions: str

    def __str__(self) -> str:
        told = [
            f"{self.frames_per_second:g} FPS" if self.frames_per_second else "",
            f"{self.gigabytes:g} GB" if self.gigabytes else "",
            self.conditions,
        ]
        return f"{self.method} {', '.join(filter(None, told))} ({self.source})"


@cache
def read_published() -> tuple[Published, ...]:
    """Return all published numbers."""
    return tuple(map(_published, _lines("published.csv")))


@cache
def read_speeds() -> tuple[PublishedSpeed, ...]:
    """Return all published speeds and memory sizes."""
    return tuple(
        PublishedSpeed(
            line["method"],
            line["source"],
            float(line["frames_per_second"]) if line["frames_per_second"] else None,
            float(line["gigabytes"]) if line["gigabytes"] else None,
            line["conditions"],
        )
        for line in _lines("published_speeds.csv")
    )


def published_for(task: Task, protocol: str, length: Length) -> tuple[Published, ...]:
    """Return the numbers that were measured on the very frames of a protocol at a length.

    The last part of a protocol's name only limits the length: the first 90 frames of
    ``scannet/stride3/1000`` are those of ``scannet/stride3/90``.

    Args:
        task: what is measured.
        protocol: name of the protocol, without its variant.
        length: frames; None for all that the protocol has.
    """
    wanted = _frames_of(protocol, length)
    return tuple(
        entry
        for entry in read_published()
        if entry.task == task and _frames_of(entry.protocol, entry.length) == wanted
    )


def _frames_of(protocol: str, length: Length) -> tuple[str, int | None]:
    """Return dataset and stride, and how many frames of them."""
    selection, _, limit = protocol.rpartition("/")
    limits = [n for n in (length, None if limit == ALL else int(limit)) if n is not None]
    return selection, min(limits, default=None)


def _lines(name: str) -> list[dict[str, str]]:
    text = resources.files("ttt3r.evaluation.reports").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines(), strict=True))


def _published(line: dict[str, str]) -> Published:
    pairs = (pair.rsplit("=", 1) for pair in line["metrics"].split())
    fields: dict[str, Any] = {
        **line,
        "task": cast(Task, line["task"]),
        "length": None if line["length"] == ALL else int(line["length"]),
        "metrics": {key: float(value) for key, value in pairs},
        "rule": line["rule"] or None,
        "n": int(line["n"]) if line["n"] else None,
        "sequences": tuple(line["sequences"].split()),
    }
    return Published(**fields)


@dataclass(frozen=True)
class Beside:
    """A published row, and one's own values of the same things.

    Attributes:
        length: as one's own evaluation names it; None for all frames.
        entry: what was published.
        own: one's own value of each of its metrics; empty where there is none to compare with.
        note: why there is none, or what else to know.
    """

    length: Length
    entry: Published
    own: dict[str, float]
    note: str


def published_beside(evaluations: Sequence[Evaluation]) -> tuple[list[Beside], str]:
    """Return the published rows that are comparable, and why others are not.

    Comparable is what has the same frames of the same sequences at the same image size, selected
    and scored in the published way. Whether the weights are the published ones cannot be told.

    Args:
        evaluations: one or more that differ in rule and reset only.

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
        if set(entry.sequences) - {name for e in evaluations for name in e.names}:
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
        cells = [_row(row, metrics) for row in rows]
        parts = [
            "In brackets: by how much the value here differs from the published one. "
            f"Comparable only with the published weights, {PUBLISHED_WEIGHTS}.",
            markdown_table(Table(header, (cells,), (1, len(header) - 1))),
        ]
    if reason:
        others = "Other published" if rows else "Published"
        parts.append(f"{others} numbers exist, but cannot be compared with these: {reason}.")
    if not parts:
        parts.append("No published number of this protocol at these lengths is known.")
    return "\n\n".join(parts)


def _row(row: Beside, metrics: Sequence[Metric]) -> Row:
    entry = row.entry
    doubt = f"unconfirmed: {entry.doubt}" if entry.doubt else ""
    told = [entry.source, row.note, doubt, entry.remark]
    values = []
    for metric in metrics:
        text = metric.text(entry.metrics.get(metric.key))
        if metric.key in row.own:
            text += f" ({percent(row.own[metric.key], entry.metrics[metric.key])})"
        values.append(text)
    n = NOTHING if entry.n is None else str(entry.n)
    return frames_text(row.length), entry.title, *values, n, "; ".join(filter(None, told))


def counterpart(evaluations: Sequence[Evaluation], entry: Published) -> Evaluation | None:
    """Return the evaluation of the same method: its rule, never reset, poses from the head."""
    alike = (e for e in evaluations if e.settings.rule == entry.rule and _is_plain(e.settings))
    return next(alike, None)


def origin(entry: Published) -> str:
    """Return in a word or two who says it, and whether it is confirmed."""
    return KINDS[entry.kind] + (", unconfirmed" if entry.doubt else "")


def _partial(evaluations: Sequence[Evaluation]) -> str:
    if all(evaluation.complete for evaluation in evaluations):
        return ""
    return "they are means over all sequences of the dataset, these over a subset"


def _is_plain(settings: Settings) -> bool:
    """Whether, but for the rule, a network ran as published ones did."""
    return settings.reset == "never" and settings.pose_from == "head"


def _beside(evaluations: Sequence[Evaluation], length: Length, entry: Published) -> Beside:
    evaluation = counterpart(evaluations, entry)
    if evaluation is not None and entry.sequences:
        return _beside_sequences(evaluation, length, entry)
    # A method without a rule here stands beside all evaluations.
    candidates = evaluations if evaluation is None else [evaluation]
    every = [candidate.mean(length) for candidate in candidates]
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


def _beside_sequences(evaluation: Evaluation, length: Length, entry: Published) -> Beside:
    scores = evaluation.scores(length)
    if set(entry.sequences) - scores.keys():
        return Beside(length, entry, {}, "not comparable: no score here")
    values = [scores[name].metrics for name in entry.sequences]
    own = {key: sum(v[key] for v in values) / len(values) for key in values[0]}
    return Beside(length, entry, _of(own, entry), "")


def _of(own: Mapping[str, float], entry: Published) -> dict[str, float]:
    return {key: own[key] for key in entry.metrics if key in own}
