"""What an evaluation found: numbers per sequence and length, and how they become means.

Everything in reports comes from these values; they are what the JSON files hold.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ttt3r.errors import RunError
from ttt3r.evaluation.datasets.base import Task, Variant

KIND = "ttt3r-evaluation-"
FORMAT = f"{KIND}3"

Status = Literal["ok", "dropped", "failed"]
Length = int | None
"""A number of frames; None for all there are."""


@dataclass(frozen=True)
class Metric:
    """How a number is called and read.

    Attributes:
        key: what it is called in JSON files.
        title: what it is called in tables.
        unit: its unit in tables, "" for none; "%" shows a fraction in percent.
        digits: how many decimals tables show.
        better: which values are better: "lower", "higher", or "none" for mere information.
        headline: whether short tables show it; the first of a task is what plots show.
    """

    key: str
    title: str
    unit: str
    digits: int
    better: Literal["lower", "higher", "none"] = "lower"
    headline: bool = True

    @property
    def factor(self) -> float:
        """What stored values are multiplied by before they are shown."""
        return 100.0 if self.unit == "%" else 1.0

    def text(self, value: float | None) -> str:
        """Return a value as tables show it; a dash if there is none."""
        return "-" if value is None else f"{self.factor * value:.{self.digits}f}"


DEPTH_ALIGNMENTS = ("scale", "metric", "scale&shift")


def _depth_metrics(alignment: str) -> tuple[Metric, ...]:
    def metric(key: str, title: str, *more: Any, **others: Any) -> Metric:
        return Metric(f"{alignment}/{key}", f"{title} ({alignment})", *more, **others)

    return (
        metric("abs_rel", "AbsRel", "", 3),
        metric("delta_1", "δ<1.25", "", 3, "higher"),
        metric("sq_rel", "SqRel", "m", 3, headline=False),
        metric("rmse", "RMSE", "m", 3, headline=False),
        metric("log_rmse", "log RMSE", "", 3, headline=False),
        metric("delta_2", "δ<1.25²", "", 3, "higher", False),
        metric("delta_3", "δ<1.25³", "", 3, "higher", False),
    )


METRICS: dict[Task, tuple[Metric, ...]] = {
    "pose": (
        Metric("ate", "ATE", "m", 3),
        Metric("rpe_translation", "RPE trans", "m", 3),
        Metric("rpe_rotation", "RPE rot", "°", 3),
        Metric("ate_static", "ATE of a still camera", "m", 3, "none", False),
        Metric("ate_walk", "ATE of a random walk", "m", 3, "none", False),
        Metric("rotation", "rotation since first frame", "°", 2, headline=False),
        Metric("rotation_static", "rotation of a still camera", "°", 2, "none", False),
        Metric("auc_30", "AUC@30", "%", 1, "higher", False),
        Metric("rra_15", "RRA@15", "%", 1, "higher", False),
        Metric("rta_15", "RTA@15", "%", 1, "higher", False),
        Metric("ate_of_path", "ATE / path", "%", 2, headline=False),
        Metric("scale", "Sim(3) scale", "", 3, "none", False),
    ),
    "depth": (
        *(metric for alignment in DEPTH_ALIGNMENTS for metric in _depth_metrics(alignment)),
        Metric("constant/abs_rel", "AbsRel of a constant", "", 3, "none", False),
    ),
    "recon": (
        Metric("accuracy", "Acc", "m", 3),
        Metric("completeness", "Comp", "m", 3),
        Metric("normal_consistency", "NC", "", 3, "higher"),
        Metric("chamfer", "Chamfer", "m", 3),
        Metric("f_score", "F-score 5 cm", "", 3, "higher"),
        Metric("accuracy_median", "Acc median", "m", 3, headline=False),
        Metric("completeness_median", "Comp median", "m", 3, headline=False),
        Metric("normal_consistency_median", "NC median", "", 3, "higher", False),
        Metric("precision", "Precision 5 cm", "", 3, "higher", False),
        Metric("recall", "Recall 5 cm", "", 3, "higher", False),
        Metric("icp_fitness", "ICP fitness", "", 3, "none", False),
    ),
}


@dataclass(frozen=True)
class Score:
    """What one sequence scored at one length.

    Attributes:
        length: frames that were asked for; None for all there are.
        frames: frames that were shown, fewer if the sequence is shorter.
        status: "ok"; "dropped" where the truth allows no score under the protocol; "failed" where
            what was predicted does not, or the sequence cannot be read.
        metrics: value of each `Metric.key` of the task; empty unless "ok".
        note: why it was dropped or failed, or what else to know.
        weight: of the sequence in published means: number of valid pixels for depth, else 1.
        frames_per_second: of the session alone, up to this length: the device was waited for,
            reading and resizing images do not count.
    """

    length: Length
    frames: int
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    weight: float = 1.0
    frames_per_second: float | None = None


@dataclass(frozen=True)
class SequenceScores:
    """What one sequence scored at every length.

    Attributes:
        sequence: its name.
        size: (height, width) of the images that the network saw.
        scores: one per length, in the order that was asked for.
        peak_memory: largest memory while it ran, bytes: of the GPU's allocations, or else the
            resident memory of the process.
        seconds: time taken, reading and scoring included; None if the sequence cannot be read.
        digest: what tells the data from others of the same name; "" if nothing does.
        facts: on what it was measured: versions, machine, device, commit.
    """

    sequence: str
    size: tuple[int, int]
    scores: tuple[Score, ...]
    peak_memory: int | None = None
    seconds: float | None = None
    digest: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """Whether all frames could be read."""
        return self.seconds is not None


@dataclass(frozen=True)
class Settings:
    """What an evaluation depends on; a folder is only ever continued under the same settings.

    Attributes:
        task: what is measured.
        protocol: name of the protocol, without the variant.
        variant: published or corrected.
        data: name of the dataset.
        lengths: numbers of frames to score at, ascending; None for all there are.
        model: name of the weights.
        fingerprint: SHA-256 of the weights.
        rule: update rule, as text.
        reset: when the state is reset, as text.
        size: longer side of the images.
        precision: of the computation.
        pose_from: where poses come from, see `ttt3r.stream.posing`.
    """

    task: Task
    protocol: str
    variant: Variant
    data: str
    lengths: tuple[Length, ...]
    model: str
    fingerprint: str
    rule: str
    reset: str
    size: int
    precision: str
    pose_from: str = "head"

    @property
    def label(self) -> str:
        """What evaluations side by side differ in: rule, reset, and where poses come from."""
        reset = "" if self.reset == "never" else f", reset {self.reset}"
        return self.rule + reset + ("" if self.pose_from == "head" else f", {self.pose_from} poses")


@dataclass(frozen=True)
class Mean:
    """The mean over sequences at one length.

    Attributes:
        length: frames that were asked for; None for all there are.
        count: sequences in the mean.
        dropped: sequences left out because their truth allows no score.
        failed: sequences left out because the prediction does not, or they cannot be read.
        shorter: sequences in the mean that have fewer frames than asked for.
        metrics: weighted as published: depth by valid pixels, everything else plainly.
        plain: every sequence counts alike.
        median: over sequences.
        frames_per_second: over all frames of the sequences in the mean.
    """

    length: Length
    count: int
    dropped: int
    failed: int
    shorter: int
    metrics: Mapping[str, float]
    plain: Mapping[str, float]
    median: Mapping[str, float]
    frames_per_second: float | None


@dataclass(frozen=True)
class Evaluation:
    """One rule under one protocol: settings, sequences, and the means over them.

    Under a published protocol every length takes the sequences that have a score there, so the set
    changes with the length. Under a corrected one, a sequence whose truth allows no score at some
    length is left out at all of them; failures always stay visible in `Mean.failed`.

    Attributes:
        settings: what it depends on.
        sequences: all that were evaluated.
        complete: whether these are the sequences that published tables contain.
    """

    settings: Settings
    sequences: tuple[SequenceScores, ...]
    complete: bool = True

    @property
    def label(self) -> str:
        """See `Settings.label`."""
        return self.settings.label

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sequences."""
        return tuple(entry.sequence for entry in self.sequences)

    @property
    def facts(self) -> dict[str, str]:
        """On what it was measured; several values of one fact are joined."""
        found: dict[str, dict[str, None]] = {}
        for entry in self.sequences:
            for name, value in entry.facts.items():
                found.setdefault(name, {})[value] = None
        return {name: "; ".join(values) for name, values in found.items()}

    @cached_property
    def means(self) -> tuple[Mean, ...]:
        """The mean at each length."""
        return tuple(self.mean_over(length, self.names) for length in self.settings.lengths)

    def mean(self, length: Length) -> Mean:
        """Return the mean at a length of the settings."""
        return self.means[self.settings.lengths.index(length)]

    def mean_over(self, length: Length, names: Sequence[str]) -> Mean:
        """Return the mean at a length over some sequences."""
        at = self.settings.lengths.index(length)
        entries = [entry for entry in self.sequences if entry.sequence in names]
        return _mean(length, [(e.scores[at], e.sequence in self.left_out) for e in entries])

    def score(self, name: str, length: Length) -> Score | None:
        """Return what a sequence scored at a length, whatever its status; None if absent."""
        at = self.settings.lengths.index(length)
        return next((e.scores[at] for e in self.sequences if e.sequence == name), None)

    def scores(self, length: Length) -> dict[str, Score]:
        """Return the scores that enter the mean at a length, by the names of their sequences."""
        at = self.settings.lengths.index(length)
        return {
            entry.sequence: entry.scores[at]
            for entry in self.sequences
            if entry.scores[at].status == "ok" and entry.sequence not in self.left_out
        }

    @cached_property
    def left_out(self) -> set[str]:
        """Sequences that enter no mean because their truth allows no score at some length."""
        if self.settings.variant == "published":
            return set()
        return {
            entry.sequence
            for entry in self.sequences
            if any(score.status == "dropped" for score in entry.scores)
        }


def _mean(length: Length, scores: list[tuple[Score, bool]]) -> Mean:
    """Return the mean over scores, each with whether its sequence is left out."""
    used = [score for score, left_out in scores if score.status == "ok" and not left_out]
    keys = list(used[0].metrics) if used else []
    weight = sum(score.weight for score in used)
    rates = [(s.frames, s.frames_per_second) for s in used if s.frames_per_second]
    seconds = sum(frames / rate for frames, rate in rates)
    return Mean(
        length=length,
        count=len(used),
        dropped=sum(score.status == "dropped" or left_out for score, left_out in scores),
        failed=sum(score.status == "failed" and not left_out for score, left_out in scores),
        shorter=sum(length is not None and score.frames < length for score in used),
        metrics={k: sum(s.metrics[k] * s.weight for s in used) / weight for k in keys},
        plain={k: statistics.fmean(s.metrics[k] for s in used) for k in keys},
        median={k: statistics.median(s.metrics[k] for s in used) for k in keys},
        frames_per_second=sum(frames for frames, _ in rates) / seconds if seconds else None,
    )


def to_json(value: Any, **more: Any) -> str:
    """Return a value of this module as JSON; strict, so that every reader can open it.

    Args:
        value: a dataclass.
        more: further entries.

    Raises:
        ValueError: if a number is not finite.
    """
    content = {**more, **dataclasses.asdict(value)}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def evaluation_json(evaluation: Evaluation) -> str:
    """Return what `summary.json` holds; see `read_evaluation`."""
    means = [dataclasses.asdict(mean) for mean in evaluation.means]
    return to_json(evaluation, format=FORMAT, facts=evaluation.facts, means=means)


def read_evaluation(path: Path) -> Evaluation:
    """Read a `summary.json`; its means are computed anew from the sequences.

    Raises:
        RunError: if it is missing, or is not such a file.
    """
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise RunError(f"{path} was written by another version; evaluate again")
        entry = content["settings"]
        settings = Settings(**{**entry, "lengths": tuple(entry["lengths"])})
        if settings.task not in METRICS:
            raise ValueError(f"there is no task {settings.task!r}")
        if not all(length is None or isinstance(length, int) for length in settings.lengths):
            raise ValueError("a length is not a number")
        sequences = tuple(sequence_from(entry, settings) for entry in content["sequences"])
        return Evaluation(settings, sequences, bool(content["complete"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path} is not the summary of an evaluation: {error}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def sequence_from(entry: dict[str, Any], settings: Settings) -> SequenceScores:
    """Rebuild the scores of a sequence from JSON.

    Raises:
        KeyError, TypeError, ValueError: if something is missing, or not as the settings have it.
    """
    scores = tuple(Score(**score) for score in entry["scores"])
    if tuple(score.length for score in scores) != settings.lengths:
        raise ValueError(f"{entry['sequence']} has scores at other lengths")
    for score in scores:
        if score.status == "ok":
            values = [score.metrics[metric.key] for metric in METRICS[settings.task]]
            if not (score.weight > 0.0 and all(map(math.isfinite, values))):
                raise ValueError(f"the scores of {entry['sequence']} are not finite")
    height, width = entry["size"]
    return SequenceScores(**{**entry, "size": (height, width), "scores": scores})
