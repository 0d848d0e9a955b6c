"""Known positions over time, from the files of other programs and devices.

A TUM trajectory has lines `timestamp tx ty tz [qx qy qz qw]`. A GPS log is a CSV file with a head
that names columns of time, latitude, longitude and altitude, in any order, among others.
"""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ttt3r.alignment.geodesy import east_north_up
from ttt3r.errors import InputError

# What columns are called, in small letters and without units; and the units that are understood.
_TIME_NAMES = """
    time timestamp timestamps t sec secs second seconds utc datetime gpstime utctime timeutc elapsed
    elapsedtime
"""
_HEIGHT_NAMES = "alt altitude ele elev elevation height gpsalt gpsaltitude gpsheight"
_NAMES = {
    "time": set(_TIME_NAMES.split()),
    "latitude": {"lat", "latitude", "gpslat", "gpslatitude"},
    "longitude": {"lon", "lng", "long", "longitude", "gpslon", "gpslng", "gpslong", "gpslongitude"},
    "altitude": set(_HEIGHT_NAMES.split()),
}
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DEGREES = dict.fromkeys(("deg", "degree", "degrees", "°"), 1.0) | {"rad": math.degrees(1)}
_METRES = dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1.0)
_METRES |= dict.fromkeys(("ft", "foot", "feet"), 0.3048)
_UNITS = {"time": _SECONDS, "latitude": _DEGREES, "longitude": _DEGREES, "altitude": _METRES}
_HEAD = re.compile(r"^\s*(.*?)\s*(?:[\[(]\s*(.*?)\s*[\])])?\s*$")


@dataclass(frozen=True)
class Track:
    """Known positions.

    Attributes:
        name: of the file.
        times: seconds, increasing, float64 [n].
        places: metres [n, 3].
        origin: latitude and longitude in degrees, altitude in metres of (0, 0, 0), where x is east,
            y is north and z is up; None where the file has axes of its own.
        skipped: lines without a position, or with the time of one before.
    """

    name: str
    times: Float[np.ndarray, " n"]
    places: Float[np.ndarray, "n 3"]
    origin: tuple[float, float, float] | None
    skipped: int = 0


def read_track(path: Path) -> Track:
    """Read a trajectory or a GPS log.

    Raises:
        InputError: if it cannot be read, is neither, lacks a column, holds something else than
            numbers, or has latitudes and longitudes that are not degrees.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise InputError(f"{path} is empty; it has no line with a position")
    is_tum = _is_number(lines[0][1].split()[0])
    rows, skipped = (_tum if is_tum else _gps)(path, lines)
    if not rows:
        raise InputError(f"{path} has no line with a position ({skipped} without)")
    table = np.array(rows, np.float64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    new = np.concatenate([[True], np.diff(table[:, 0]) > 0])
    table, skipped = table[new], skipped + int((~new).sum())
    if is_tum:
        return Track(path.name, table[:, 0], table[:, 1:], None, skipped)
    return Track(path.name, table[:, 0], *of_fixes(table[:, 1:]), skipped)


def of_fixes(
    fixes: Float[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, "n 3"], tuple[float, float, float]]:
    """Metres east, north and up of the first fix, and that one."""
    first = fixes[0]
    return east_north_up(fixes, first), (float(first[0]), float(first[1]), float(first[2]))


def check_fix(latitude: float, longitude: float, where: str) -> None:
    """Refuse what is no place on the Earth.

    Raises:
        InputError: naming the place in the file.
    """
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise InputError(
            f"{where} has latitude {latitude:g} and longitude {longitude:g}; they must be in "
            "degrees, between -90 and 90, and -180 and 180"
        )


def _tum(path: Path, lines: list[tuple[int, str]]) -> tuple[list[tuple[float, ...]], int]:
    rows: list[tuple[float, ...]] = []
    for number, line in lines:
        words = line.split()
        if len(words) not in (4, 8) or not all(map(_is_number, words)):
            raise InputError(
                f"line {number} of {path} is not `timestamp tx ty tz qx qy qz qw`: {line.strip()!r}"
            )
        rows.append(tuple(map(float, words[:4])))
    good = [row for row in rows if all(map(math.isfinite, row))]
    return good, len(rows) - len(good)


def _gps(path: Path, lines: list[tuple[int, str]]) -> tuple[list[tuple[float, ...]], int]:
    (_, head), *rest = lines
    mark = max(",;\t", key=head.count)
    names = next(csv.reader([head], delimiter=mark))
    columns = _columns(path, names)
    rows: list[tuple[float, ...]] = []
    for number, line in rest:
        words = next(csv.reader([line], delimiter=mark))
        where = f"line {number} of {path}"
        if len(words) < len(names):
            raise InputError(f"{where} has {len(words)} columns, and the head {len(names)}")
        row = tuple(_value(kind, words[at], unit, where) for kind, (at, unit) in columns.items())
        # Devices without reception write nothing, or 0, 0.
        if all(map(math.isfinite, row)) and (row[1] or row[2]):
            check_fix(row[1], row[2], where)
            rows.append(row)
    return rows, len(rest) - len(rows)


def _columns(path: Path, names: list[str]) -> dict[str, tuple[int, float]]:
    """Where the four columns are, and what their numbers are multiplied by."""
    found: dict[str, tuple[int, float]] = {}
    for at, name in enumerate(names):
        for kind, unit in _meanings(name, path):
            found.setdefault(kind, (at, unit))
    missing = [kind for kind in _NAMES if kind not in found]
    if missing:
        raise InputError(
            f"{path} has no column of {' and '.join(missing)}; its head is {', '.join(names)!r}. "
            "Name them time, lat, lon and alt; a trajectory has lines "
            "`timestamp tx ty tz qx qy qz qw`"
        )
    return {kind: found[kind] for kind in _NAMES}


def _meanings(head: str, path: Path) -> Iterator[tuple[str, float]]:
    """What a column may be, and the unit of its numbers."""
    match = _HEAD.match(head.casefold())
    name, unit = match.groups() if match else (head, None)
    words = re.split(r"[^a-z0-9]+", name)
    joined = "".join(words)
    for kind, known in _NAMES.items():
        units = _UNITS[kind]
        if joined in known:
            if unit and unit not in units and kind != "time":
                raise InputError(
                    f"{path} has {kind} in {unit!r}; known units are {', '.join(units)}"
                )
            yield kind, units.get(unit or "", 1.0)
        elif len(words) > 1 and "".join(words[:-1]) in known and words[-1] in units:
            yield kind, units[words[-1]]


def _value(kind: str, word: str, unit: float, where: str) -> float:
    """A number; NaN for nothing."""
    word = word.strip()
    if not word:
        return math.nan
    try:
        return float(word) * unit
    except ValueError:
        pass
    if kind == "time":
        try:
            moment = datetime.fromisoformat(word)
        except ValueError:
            pass
        else:
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return moment.timestamp()
    raise InputError(f"{where} has the {kind} {word!r}, which is not understood")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
