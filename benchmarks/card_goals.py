"""What the built-in weights are meant to reach, and what they do: the model card's first lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.intervals import Interval, bootstrap_ratio
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.reports.tables import Table, markdown_table
from ttt3r.evaluation.results import Evaluation, Length

RULE, PUBLISHED = "ttt3r", "overwrite"
Measured = Mapping[tuple[str, Task], Sequence[Evaluation]]


@dataclass(frozen=True)
class Goal:
    """A mean error of `ttt3r` as a share of another one, and how small it should be.

    Attributes:
        title: what is compared, in words.
        part: key of the card's part.
        task: which of its evaluations.
        metric: key of the error.
        against: key of the error of an answer that uses no image; "" takes the same error under
            `overwrite`.
        floor: what the weights must reach.
        goal: what they should reach.
        length: how many frames; None for all there are.
    """

    title: str
    part: str
    task: Task
    metric: str
    against: str
    floor: float
    goal: float
    length: Length = None


GOALS = (
    Goal(
        "depth of held-out clips: AbsRel after one scale, over that of a constant",
        "clips", "depth", "scale/abs_rel", "constant/abs_rel", 0.48, 0.36,
    ),
    Goal(
        "rotation of held-out clips, over that of a still camera",
        "clips", "pose", "rotation", "rotation_static", 0.22, 0.12,
    ),
    Goal(
        "path of held-out clips: ATE over that of random walks",
        "clips", "pose", "ate", "ate_walk", 0.45, 0.25,
    ),
    Goal(
        "depth of real sequences: AbsRel after one scale, over that of a constant",
        "real", "depth", "scale/abs_rel", "constant/abs_rel", 0.8, 0.65,
    ),
    Goal(
        "path of real sequences: ATE over that of a still camera",
        "real", "pose", "ate", "ate_static", 0.65, 0.45,
    ),
    Goal(
        "long streams: ATE at 256 frames over that of overwrite",
        "streams", "pose", "ate", "", 0.9, 0.75, 256,
    ),
)  # fmt: skip


def reached(goal: Goal, measured: Measured) -> Interval | None:
    """Return the share for the rule `ttt3r`, with its interval; None if it was not measured.

    Errors of real sequences are divided by the length of the path first, as units differ.
    """
    evaluations = {e.label: e for e in measured.get((goal.part, goal.task), ())}
    if RULE not in evaluations or (not goal.against and PUBLISHED not in evaluations):
        return None
    lengths = evaluations[RULE].settings.lengths
    length = goal.length or lengths[-1]
    if length not in lengths:
        return None
    own = evaluations[RULE].scores(length)
    other = own if goal.against else evaluations[PUBLISHED].scores(length)
    names, against = [name for name in own if name in other], goal.against or goal.metric
    pairs = np.array([(own[n].metrics[goal.metric], other[n].metrics[against]) for n in names])
    if not len(pairs):
        return None
    if goal.part == "real" and goal.metric == "ate":
        paths = [own[n].metrics["ate"] / own[n].metrics["ate_of_path"] for n in names]
        pairs = pairs / np.array(paths)[:, None]
    return bootstrap_ratio(pairs)


def verdict(goal: Goal, share: Interval | None) -> str:
    """One word or two on a share."""
    if share is None:
        return "not measured"
    if share.mean <= goal.goal:
        return "goal reached"
    return "floor reached" if share.mean <= goal.floor else "missed"


def against_constants(measured: Measured) -> str:
    """Say at which lengths `ttt3r` has a lower mean ATE than every other rule of the streams."""
    evaluations = measured.get(("streams", "pose"), ())
    own = next((e for e in evaluations if e.label == RULE), None)
    others = [e for e in evaluations if e.label not in (RULE, PUBLISHED)]
    if own is None or not others:
        return ""
    lengths = [
        str(mean.length)
        for at, mean in enumerate(own.means)
        if all(mean.metrics["ate"] < other.means[at].metrics["ate"] for other in others)
    ]
    names = " and ".join(f"`{other.label}`" for other in others)
    where = f"at {', '.join(lengths)} frames" if lengths else "at **no** length"
    return f"On the streams, the mean ATE of `{RULE}` is below those of {names} {where}."


def goals_text(measured: Measured) -> str:
    """Return the table of goals, and what it says of the gate."""
    rows = []
    for goal in GOALS:
        share = reached(goal, measured)
        shown = "-" if share is None else share.text(2)
        rows.append((goal.title, shown, f"{goal.floor:g}", f"{goal.goal:g}", verdict(goal, share)))
    head = ("mean error with ttt3r, as a share", "measured", "floor", "goal", "")
    table = markdown_table(Table(head, (rows,), (0, 4)))
    about = (
        "Shares are those of means over sequences; below 1 is better than the other. Brackets hold "
        "95 % of the shares of as many sequences drawn anew from these, with replacement."
    )
    return "\n\n".join(filter(None, (table, about, against_constants(measured))))
