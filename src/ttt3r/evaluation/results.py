"""What an evaluation found: numbers per sequence and length, and how they become means.

Everything in reports comes from these values; they are what the JSON files hold.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttt3r.errors import RunError
from ttt3r.evaluation.datasets.base import Task, Variant

KIND = "ttt3r-evaluation-"
FORMAT = f"{KIND}2"

Status = Literal["ok", "dropped", "failed"]


@dataclass(frozen=True)
class Metric:
    """How a number is called and read.

    Attributes:
        key: what it is called in JSON files.
        title: what it is called in tables.
        unit: its unit, "" for none.
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


DEPTH_ALIGNMENTS = ("scale", "metric", "scale&shift")


def _depth_metrics() -> tuple[Metric, ...]:
    def of(alignment: str) -> tuple[Metric, ...]:
        return (
            Metric(f"{alignment}/abs_rel", f"AbsRel ({alignment})", "", 3),
            Metric(f"{alignment}/delta_1", f"δ<1.25 ({alignment})", "", 3, "higher"),
            Metric(f"{alignment}/sq_rel", f"SqRel ({alignment})", "m", 3, headline=False),
            Metric(f"{alignment}/rmse", f"RMSE ({alignment})", "m", 3, headline=False),
            Metric(f"{alignment}/log_rmse", f"log RMSE ({alignment})", "", 3, headline=False),
            Metric(f"{alignment}/delta_2", f"δ<1.25² ({alignment})", "", 3, "higher", False),
            Metric(f"{alignment}/delta_3", f"δ<1.25³ ({alignment})", "", 3, "higher", False),
        )

    constant = Metric("constant/abs_rel", "AbsRel of a constant", "", 3, "none", False)
    return (*(metric for alignment in DEPTH_ALIGNMENTS for metric in of(alignment)), constant)


METRICS: dict[Task, tuple[Metric, ...]] = {
    "pose": (
        Metric("ate", "ATE", "m", 3),
        Metric("rpe_translation", "RPE trans", "m", 3),
        Metric("rpe_rotation", "RPE rot", "°", 3),
        Metric("ate_static", "ATE of a still camera", "m", 3, "none", False),
        Metric("rotation", "rotation since first frame", "°", 2, headline=False),
        Metric("auc_30", "AUC@30", "%", 1, "higher", False),
        Metric("rra_15", "RRA@15", "%", 1, "higher", False),
        Metric("rta_15", "RTA@15", "%", 1, "higher", False),
        Metric("ate_percent", "ATE / path", "%", 2, headline=False),
        Metric("scale", "Sim(3) scale", "", 3, "none", False),
    ),
    "depth": _depth_metrics(),
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
            what was predicted does not.
        metrics: value of each `Metric.key` of the task; empty unless "ok".
        note: why it was dropped or failed, or what else to know.
        weight: of the sequence in published means: number of valid pixels for depth, else 1.
        frames_per_second: of the session alone, up to this length: the device was waited for,
            reading and resizing images do not count.
    """

    length: int | None
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
        seconds: time of everything, reading and scoring included.
    """

    sequence: str
    size: tuple[int, int]
    scores: tuple[Score, ...]
    peak_memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Settings:
    """What an evaluation depends on; a folder is only ever continued under the same settings.

    Attributes:
        task: what is measured.
        protocol: name of the protocol, without the variant.
        variant: published or corrected.
        data: name of the dataset.
        lengths: numbers of frames to score at; None for all there are.
        sequences: names of the sequences, in order.
        complete: whether these are all that the published tables contain.
        model: name of the weights.
        fingerprint: SHA-256 of the weights.
        rule: update rule, as text.
        reset: reset policy, as text.
        size: longer side of the images.
        precision: of the computation.
        device: where it runs, such as "cpu" or "cuda".
    """

    task: Task
    protocol: str
    variant: Variant
    data: str
    lengths: tuple[int | None, ...]
    sequences: tuple[str, ...]
    complete: bool
    model: str
    fingerprint: str
    rule: str
    reset: str
    size: int
    precision: str
    device: str


@dataclass(frozen=True)
class Mean:
    """The mean over sequences at one length.

    Attributes:
        length: frames that were asked for; None for all there are.
        count: sequences in the mean.
        dropped: sequences left out because their truth allows no score.
        failed: sequences left out because the prediction does not.
        shorter: sequences in the mean that have fewer frames than asked for.
        metrics: weighted as published: depth by valid pixels, everything else plainly.
        plain: every sequence counts alike.
        median: over sequences.
        frames_per_second: over all frames of the sequences in the mean.
    """

    length: int | None
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
    """One rule under one protocol: settings, every sequence, and the means over them.

    Attributes:
        settings: what it depends on.
        facts: what it does not depend on but readers want to know: versions, machine, commit.
        sequences: those that are done.
        means: one per length.
    """

    settings: Settings
    facts: Mapping[str, str]
    sequences: tuple[SequenceScores, ...]
    means: tuple[Mean, ...]

    @property
    def label(self) -> str:
        """Rule and reset policy, which is what evaluations side by side differ in."""
        settings = self.settings
        reset = "" if settings.reset == "never" else f", reset {settings.reset}"
        return settings.rule + reset


def means(settings: Settings, sequences: Sequence[SequenceScores]) -> tuple[Mean, ...]:
    """Return the mean at each length.

    Under a published protocol every length takes the sequences that have a score there, so the set
    changes with the length. Under a corrected one, a sequence whose truth allows no score at some
    length is left out at all of them; failures always stay visible in `Mean.failed`.
    """
    unusable = left_out(settings, sequences)
    return tuple(
        _mean(length, [(s.scores[i], s.sequence in unusable) for s in sequences])
        for i, length in enumerate(settings.lengths)
    )


def left_out(settings: Settings, sequences: Sequence[SequenceScores]) -> set[str]:
    """Return the sequences that enter no mean for want of truth at some length; see `means`."""
    if settings.variant == "published":
        return set()
    return {
        entry.sequence
        for entry in sequences
        if any(score.status == "dropped" for score in entry.scores)
    }


def scores_at(evaluation: Evaluation, length: int | None) -> dict[str, Score]:
    """Return the scores that enter the mean at a length, by the names of their sequences."""
    lost = left_out(evaluation.settings, evaluation.sequences)
    at = evaluation.settings.lengths.index(length)
    return {
        entry.sequence: entry.scores[at]
        for entry in evaluation.sequences
        if entry.scores[at].status == "ok" and entry.sequence not in lost
    }


def _mean(length: int | None, scores: list[tuple[Score, bool]]) -> Mean:
    used = [score for score, unusable in scores if score.status == "ok" and not unusable]
    keys = list(used[0].metrics) if used else []
    weight = sum(score.weight for score in used)
    rates = [(s.frames, s.frames_per_second) for s in used if s.frames_per_second]
    seconds = sum(frames / rate for frames, rate in rates)
    return Mean(
        length=length,
        count=len(used),
        dropped=sum(score.status == "dropped" or unusable for score, unusable in scores),
        failed=sum(score.status == "failed" and not unusable for score, unusable in scores),
        shorter=sum(length is not None and score.frames < length for score in used),
        metrics={k: sum(s.metrics[k] * s.weight for s in used) / weight for k in keys},
        plain={k: sum(s.metrics[k] for s in used) / len(used) for k in keys},
        median={k: _median([s.metrics[k] for s in used]) for k in keys},
        frames_per_second=sum(frames for frames, _ in rates) / seconds if seconds else None,
    )


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1 : middle + 1]) / 2


def to_json(value: Any) -> str:
    """Return a value of this module as JSON; strict, so that every reader can open it.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(dataclasses.asdict(value), indent=1, ensure_ascii=False, allow_nan=False)


def read_evaluation(path: Path) -> Evaluation:
    """Read a `summary.json`.

    The means are computed anew from the sequences.

    Raises:
        RunError: if it is missing or is none.
    """
    content = read_json(path)
    try:
        if content.pop("format") != FORMAT:
            raise RunError(f"{path} was written by another version; evaluate again")
        settings = settings_from(content["settings"])
        sequences = tuple(sequence_from(entry, settings) for entry in content["sequences"])
        return Evaluation(settings, dict(content["facts"]), sequences, means(settings, sequences))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(f"{path} is no summary of an evaluation: {error}") from error


def evaluation_json(evaluation: Evaluation) -> str:
    """Return what `summary.json` holds; see `read_evaluation`."""
    content = {"format": FORMAT, **dataclasses.asdict(evaluation)}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def settings_from(entry: dict[str, Any]) -> Settings:
    """Rebuild settings from JSON."""
    lists = {"lengths": tuple(entry["lengths"]), "sequences": tuple(entry["sequences"])}
    settings = Settings(**{**entry, **lists})
    if settings.task not in METRICS:
        raise ValueError(f"there is no task {settings.task!r}")
    if not all(length is None or isinstance(length, int) for length in settings.lengths):
        raise ValueError("a length is not a number")
    return settings


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
