"""What others have published, as data: see `published.toml` beside this file."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.protocols import NAME
from ttt3r.evaluation.results import METRICS

FILE = "published.toml"
ALL = "all"

Kind = Literal["paper", "authors", "rerun"]
KINDS = {"paper": "paper", "authors": "authors", "rerun": "re-run"}
STATISTICS = ("mean", "median")


@dataclass(frozen=True)
class Published:
    """One row of one published table.

    Attributes:
        task: what was measured.
        protocol: name of the protocol, always the published variant.
        length: frames; None for all there are.
        method: what its authors call it.
        kind: who says so: the paper, the authors elsewhere, or somebody who ran the code again.
        source: where it is said.
        metrics: value of each `results.Metric.key`.
        rule: update rule of this package that is the same method; None if none is.
        n: sequences behind the number; None if that is not told.
        statistic: over sequences: "mean" or "median".
        sequences: names, where the number is not that of the whole dataset; else ().
        certain: false where the number could not be confirmed.
        reason: why it is not certain.
    """

    task: Task
    protocol: str
    length: int | None
    method: str
    kind: Kind
    source: str
    metrics: Mapping[str, float]
    rule: str | None = None
    n: int | None = None
    statistic: Literal["mean", "median"] = "mean"
    sequences: tuple[str, ...] = ()
    certain: bool = True
    reason: str = ""

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
        frames_per_second: None if not told.
        gigabytes: memory of the GPU, 10⁹ bytes; None if not told.
        conditions: what else is told about the measurement.
    """

    method: str
    source: str
    frames_per_second: float | None = None
    gigabytes: float | None = None
    conditions: str = ""


@cache
def read_published() -> tuple[Published, ...]:
    """Return all published numbers."""
    return parse_published(_text())


@cache
def read_speeds() -> tuple[PublishedSpeed, ...]:
    """Return all published speeds and memory sizes."""
    return parse_speeds(_text())


def published_for(task: Task, protocol: str, length: int | None) -> tuple[Published, ...]:
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


def _frames_of(protocol: str, length: int | None) -> tuple[str, int | None]:
    """Return dataset and stride, and how many frames of them."""
    selection, _, limit = protocol.rpartition("/")
    limits = [n for n in (length, None if limit == ALL else int(limit)) if n is not None]
    return selection, min(limits, default=None)


def parse_published(text: str) -> tuple[Published, ...]:
    """Read the results of a `published.toml`.

    Raises:
        InputError: if it is no TOML, or an entry has an unknown, missing or senseless field.
    """
    entries = tuple(
        _result(entry, f"result {number}")
        for number, entry in enumerate(_tables(text, "results"), start=1)
    )
    seen = set()
    for number, entry in enumerate(entries, start=1):
        for metric in entry.metrics:
            identity = dataclasses.astuple(dataclasses.replace(entry, metrics={}, n=None))
            key = (str(identity), metric)
            if key in seen:
                raise _broken(f"result {number}", f"{entry.method} has its {metric} twice")
            seen.add(key)
    return entries


def parse_speeds(text: str) -> tuple[PublishedSpeed, ...]:
    """Read the speeds of a `published.toml`.

    Raises:
        InputError: as `parse_published`.
    """
    speeds = []
    for number, entry in enumerate(_tables(text, "speeds"), start=1):
        where = f"speed {number}"
        _known_fields(entry, PublishedSpeed, where)
        numbers = [k for k in ("frames_per_second", "gigabytes") if k in entry]
        if not numbers:
            raise _broken(where, "neither frames_per_second nor gigabytes is given")
        for key in numbers:
            _positive(entry[key], key, where)
        _texts(entry, ("method", "source", "conditions"), where)
        speeds.append(PublishedSpeed(**entry))
    return tuple(speeds)


def _text() -> str:
    return resources.files("ttt3r.evaluation.reports").joinpath(FILE).read_text("utf-8")


def _tables(text: str, name: str) -> list[dict[str, Any]]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{FILE} is no TOML: {error}") from error
    unknown = content.keys() - {"results", "speeds"}
    if unknown:
        raise InputError(f"{FILE} may hold [[results]] and [[speeds]], not {_list(unknown)}")
    tables = content.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise InputError(f"{FILE}: {name} must be written as [[{name}]]")
    return tables


def _result(entry: dict[str, Any], where: str) -> Published:
    _known_fields(entry, Published, where)
    _texts(entry, ("protocol", "method", "source", "rule", "reason"), where)
    _choice(entry, "task", METRICS, where)
    _choice(entry, "kind", KINDS, where)
    _choice({"statistic": "mean", **entry}, "statistic", STATISTICS, where)
    match = NAME.fullmatch(entry["protocol"])
    if match is None or match[5]:
        raise _broken(where, f"{entry['protocol']!r} is not DATASET/strideK/N or …/all")
    length = entry["length"]
    if length != ALL and not _is_count(length):
        raise _broken(where, f'length is {length!r}, but must be a number of frames or "{ALL}"')
    if match[4] != ALL and (length == ALL or length > int(match[4])):
        raise _broken(where, f"{entry['protocol']} has no length of {length} frames")
    if "n" in entry and not _is_count(entry["n"]):
        raise _broken(where, f"n is {entry['n']!r}, but must be a number of sequences")
    names = entry.get("sequences", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _broken(where, "sequences must be a list of names")
    certain = entry.get("certain", True)
    if not isinstance(certain, bool) or certain == bool(entry.get("reason")):
        raise _broken(where, "certain = false needs a reason, and only that does")
    _metrics(entry, where)
    return Published(
        **{
            **entry,
            "length": None if length == ALL else length,
            "sequences": tuple(names),
        }
    )


def _metrics(entry: dict[str, Any], where: str) -> None:
    values, known = entry["metrics"], {m.key: m for m in METRICS[entry["task"]]}
    if not isinstance(values, dict) or not values:
        raise _broken(where, "metrics must be a table of at least one number")
    if values.keys() - known.keys():
        raise _broken(
            where, f"unknown metrics {_list(values.keys() - known.keys())}; known: {_list(known)}"
        )
    for key, value in values.items():
        _positive(value, key, where)
        if known[key].better == "higher" and value > 1.0:
            raise _broken(where, f"{key} is {value}, but must be a fraction, not percent")


def _known_fields(entry: dict[str, Any], kind: type, where: str) -> None:
    known = dataclasses.fields(kind)
    required = {f.name for f in known if f.default is dataclasses.MISSING}
    unknown, missing = entry.keys() - {f.name for f in known}, required - entry.keys()
    if unknown:
        raise _broken(where, f"unknown fields: {_list(unknown)}")
    if missing:
        raise _broken(where, f"missing fields: {_list(missing)}")


def _texts(entry: dict[str, Any], names: Sequence[str], where: str) -> None:
    for name in names:
        if name in entry and not (isinstance(entry[name], str) and entry[name].strip()):
            raise _broken(where, f"{name} must be a text")


def _choice(entry: dict[str, Any], name: str, choices: Any, where: str) -> None:
    value = entry[name]
    if not isinstance(value, str) or value not in choices:
        raise _broken(where, f"{name} is {value!r}; choose one of {', '.join(choices)}")


def _positive(value: Any, name: str, where: str) -> None:
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0.0:
        raise _broken(where, f"{name} is {value!r}, but must be a positive decimal number")


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _broken(where: str, problem: str) -> InputError:
    return InputError(f"{FILE}, {where}: {problem}. Correct the entry.")


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
