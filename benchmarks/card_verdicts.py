"""What the measurements say, in yes and no; computed, never chosen."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.card_rows import BASELINES, CONSTANT, MEAN_IMAGE, STATIC, VELOCITY, WALK, Row

GOAL_DEPTH_CLIPS, GOAL_DEPTH_REAL, GOAL_ATE_PERCENT = 0.12, 0.25, 15.0
UNDEFINED = "n/a"


@dataclass(frozen=True)
class Verdict:
    """An answer to a question about the weights.

    Attributes:
        question: in words.
        answer: None if the measurements cannot tell.
        why: the numbers behind it.
    """

    question: str
    answer: bool | None
    why: str

    def line(self) -> str:
        """As an item of a list."""
        word = {True: "yes", False: "**no**", None: "not measured"}[self.answer]
        return f"* {self.question}: {word}. {self.why}"


def values(rows: Iterable[Row], key: str) -> list[float]:
    """The values that are defined."""
    return [row[key] for row in rows if row.get(key) is not None]


def mean(rows: Iterable[Row], key: str) -> float | None:
    """Plain mean of the values that are defined; None if there is none."""
    found = values(rows, key)
    return statistics.fmean(found) if found else None


def median(rows: Iterable[Row], key: str) -> float | None:
    """Median of the values that are defined; None if there is none."""
    found = values(rows, key)
    return statistics.median(found) if found else None


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table."""
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def against_baselines(
    methods: dict[str, list[Row]], rule: str, where: str, ate: tuple[str, str, int]
) -> list[Verdict]:
    """Compare a rule with the baselines by plain means over sequences.

    `ate` names the absolute trajectory error to compare: its key, its unit and digits.
    """
    questions = (
        ("depth after one scale per sequence", "abs_rel", (CONSTANT, MEAN_IMAGE), "AbsRel", 3),
        ("metric depth", "abs_rel_metric", (CONSTANT, MEAN_IMAGE), "AbsRel", 3),
        ("rotation", "rotation", (STATIC, VELOCITY), "mean error °", 2),
        ("translation", ate[0], (STATIC,), ate[1], ate[2]),
        ("translation", ate[0], (WALK,), ate[1], ate[2]),
    )
    return [
        _less(methods, rule, key, others, f"{where}, {rule}: {what} better than", unit, digits)
        for what, key, others, unit, digits in questions
    ]


def _less(
    methods: dict[str, list[Row]],
    rule: str,
    key: str,
    others: Sequence[str],
    question: str,
    unit: str,
    digits: int,
) -> Verdict:
    """Whether `rule` is below all others on the sequences on which it is defined, none failing."""
    names = " and ".join(others)
    rows = methods.get(rule, [])
    usable = [i for i, row in enumerate(rows) if row.get(key) is not None]
    failed = sum(bool(row.get("failed")) for row in rows)
    own = mean(rows, key)
    question = f"{question} {names}"
    if failed:
        return Verdict(question, False, f"{failed} of {len(rows)} sequences failed")
    if own is None:
        return Verdict(question, None, "no sequence defines it")
    said, better = [], True
    for other in others:
        theirs = mean([methods[other][i] for i in usable], key)
        if theirs is not None:
            better &= own < theirs
            pairs = [(rows[i][key], methods[other][i].get(key)) for i in usable]
            wins = sum(b is not None and a < b for a, b in pairs)
            said.append(f"{number(theirs, digits)} ({other}; lower on {wins})")
    if not said:
        return Verdict(question, None, "no baseline is defined")
    why = f"{unit} {number(own, digits)} against {', '.join(said)}, mean over {len(usable)}"
    return Verdict(question, better, why)


def goal(rows: Sequence[Row], key: str, most: float, what: str, digits: int = 3) -> Verdict:
    """Whether a mean is at most `most`, and nothing failed."""
    own, failed = mean(rows, key), sum(bool(row.get("failed")) for row in rows)
    if own is None and not failed:
        return Verdict(what, None, "no sequence defines it")
    why = f"Mean {number(own, digits)}, goal {most:g}"
    if failed:
        why += f"; {failed} of {len(rows)} sequences failed"
    return Verdict(what, own is not None and own <= most and not failed, why)


def placed_better(rows: Sequence[Row], where: str) -> Verdict:
    """Whether the predicted poses put points nearer to the truth than no motion at all does."""
    question = f"{where}: points placed better by the predicted poses than without motion"
    pairs = [(row["placed"], row["placed_static"]) for row in rows if row.get("placed") is not None]
    if not pairs:
        return Verdict(question, None, "no sequence defines it")
    own, static = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    wins = sum(a < b for a, b in pairs)
    why = f"{number(own)} against {number(static)}; lower on {wins} of {len(rows)}"
    return Verdict(question, own < static and len(pairs) == len(rows), why)


@dataclass(frozen=True)
class Duel:
    """One rule against another on the same streams at one length.

    Attributes:
        frames: the length.
        first: mean of the first rule; None if undefined.
        second: mean of the second.
        wins: streams on which the first is strictly below.
        streams: streams on which both are defined.
        total: all streams.
    """

    frames: int
    first: float | None
    second: float | None
    wins: int
    streams: int
    total: int

    @property
    def won(self) -> bool:
        """Lower mean and more than half of all streams."""
        lower = self.first is not None and self.second is not None and self.first < self.second
        return lower and 2 * self.wins > self.total


def stream_rows(streams: Sequence[dict[str, Any]], frames: int, method: str) -> list[Row]:
    """The rows of a method at a length, one per stream."""
    return [stream["prefixes"][str(frames)][method] for stream in streams]


def duel(streams: Sequence[dict[str, Any]], frames: int, first: str, second: str, key: str) -> Duel:
    """Compare two methods at one length on the streams on which both are defined."""
    pairs = [
        (a[key], b[key])
        for a, b in zip(
            stream_rows(streams, frames, first), stream_rows(streams, frames, second), strict=True
        )
        if a.get(key) is not None and b.get(key) is not None
    ]
    means = [statistics.fmean(side) for side in zip(*pairs, strict=True)] or [None, None]
    wins = sum(a < b for a, b in pairs)
    return Duel(frames, means[0], means[1], wins, len(pairs), len(streams))


def long_streams(
    streams: Sequence[dict[str, Any]], prefixes: Sequence[int], key: str, unit: str
) -> Verdict:
    """Whether ttt3r beats overwrite at the longest length, and from which length it always does."""
    duels = [duel(streams, frames, "ttt3r", "overwrite", key) for frames in prefixes]
    last = duels[-1]
    question = f"ttt3r beats overwrite at {last.frames} frames in {unit}"
    why = (
        f"{number(last.first, 4)} against {number(last.second, 4)}; "
        f"lower on {last.wins} of {last.total} streams"
    )
    if last.streams < last.total:
        why += f" ({last.total - last.streams} not defined)"
    if not last.streams:
        return Verdict(question, None, "no stream defines it")
    if not last.won:
        at = [str(d.frames) for d in duels if d.won]
        why += f"; it does at {', '.join(at)} frames" if at else "; it does so at no length"
        return Verdict(question, False, why)
    since = last.frames
    for found in reversed(duels):
        if not found.won:
            break
        since = found.frames
    return Verdict(question, True, f"{why}; it does so from {since} frames on")


def all_verdicts(results: dict[str, Any]) -> dict[str, list[Verdict]]:
    """The verdicts of every part: "clips", "streams" and "real"."""
    clips, streams, real = results["clips"], results["streams"], results["real"]
    found: dict[str, list[Verdict]] = {"clips": [], "streams": [], "real": []}
    by_method = real_methods(real)
    for rule in ("overwrite", "ttt3r"):
        found["clips"] += against_baselines(clips, rule, "clips", ("ate", "ATE m", 3))
        found["clips"].append(placed_better(clips[rule], f"clips, {rule}"))
        found["clips"] += [
            goal(
                clips[rule],
                "abs_rel",
                GOAL_DEPTH_CLIPS,
                f"clips, {rule}: AbsRel after one scale at most {GOAL_DEPTH_CLIPS}",
            ),
            goal(
                clips[rule],
                "ate_percent",
                GOAL_ATE_PERCENT,
                f"clips, {rule}: ATE at most {GOAL_ATE_PERCENT:g} % of the path",
                1,
            ),
        ]
        if real:
            found["real"] += against_baselines(
                by_method, rule, "real", ("ate_percent", "ATE % of the path", 1)
            )
            found["real"].append(
                goal(
                    by_method[rule],
                    "abs_rel",
                    GOAL_DEPTH_REAL,
                    f"real, {rule}: AbsRel after one scale at most {GOAL_DEPTH_REAL}",
                )
            )
    prefixes = results["settings"]["prefixes"]
    found["streams"] = [
        long_streams(streams, prefixes, "ate", "ATE m"),
        long_streams(streams, prefixes, "abs_rel", "AbsRel"),
        long_streams(streams, prefixes, "rotation", "rotation °"),
    ]
    return found


def real_methods(real: Sequence[dict[str, Any]]) -> dict[str, list[Row]]:
    """Rows by method, of those methods that every real sequence was measured with."""
    names = ("overwrite", "ttt3r", *BASELINES)
    return {name: [sequence["rows"][name] for sequence in real] for name in names}
