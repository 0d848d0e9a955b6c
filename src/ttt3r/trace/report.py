"""What a trace says in numbers and words."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

import numpy as np

from ttt3r.trace.health import HEALTHS, worst
from ttt3r.trace.series import SERIES
from ttt3r.trace.sketch import means
from ttt3r.trace.trace import Trace
from ttt3r.types import Health

PARTS = 4  # of the run, whose means are shown


def shares(trace: Trace) -> dict[Health, float] | None:
    """Which part of the judged frames has each health; None if none was judged.

    Exact while a bin holds one frame; later the mean of a bin stands for its frames: 0 in-domain, 1
    drifting, 2 lost, and what lies between is divided up.
    """
    if not trace.known("health"):
        return None
    column = trace.column("health")
    mean, count = means(column)[:, 0], column.known[:, 0].astype(np.float64)
    known = count > 0
    mean, count = mean[known], count[known] / count[known].sum()
    lost = float((count * np.clip(mean - 1, 0, 1)).sum())
    good = float((count * np.clip(1 - mean, 0, 1)).sum())
    return dict(zip(HEALTHS, (good, max(1 - good - lost, 0.0), lost), strict=True))


def verdict(trace: Trace) -> tuple[Health | None, str]:
    """What the run is called, and a line that says why."""
    found = shares(trace)
    if found is None:
        return None, "health: unknown, as no two neighbouring frames have points and a pose"
    name = worst(list(found.values()))
    parts = ", ".join(f"{share:.0%} {health}" for health, share in found.items())
    return name, f"health: {name} ({parts} of the frames)"


def to_dict(trace: Trace) -> dict[str, Any]:
    """Everything as JSON values: the bins of all series that are known; None where they are not."""
    name, line = verdict(trace)
    return {
        "frames": trace.frames,
        "health": name,
        "verdict": line,
        "frames_per_bin": trace.sketch.width,
        "first_frames": trace.sketch.firsts,
        "horizon_only_a_lower_bound": trace.horizon.bounded_below,
        "series": {key: _series(trace, key) for key in SERIES if trace.known(key)},
    }


def _series(trace: Trace, name: str) -> dict[str, Any]:
    column = trace.column(name)
    parts = {"mean": means(column), "least": column.least, "most": column.most}
    if SERIES[name].rows == 1:
        parts = {key: part[:, 0] for key, part in parts.items()}
    return {
        "title": SERIES[name].title,
        "unit": SERIES[name].unit,
        **{key: _finite(part.tolist()) for key, part in parts.items()},
    }


def _finite(values: Iterable[Any]) -> list[Any]:
    return [
        _finite(value) if isinstance(value, list) else value if isfinite(value) else None
        for value in values
    ]


def rows(trace: Trace, unit: str) -> list[tuple[str, ...]]:
    """A table: of each series the mean in each quarter of the run, and its least and most.

    Args:
        trace: with at least one frame.
        unit: of lengths.
    """
    table = [("", "1st quarter", "2nd", "3rd", "last", "least", "most")]
    for name, series in SERIES.items():
        if series.rows > 1 or name == "health" or not trace.known(name):
            continue
        column = trace.column(name)
        known = unit if series.unit == "length" else series.unit
        quarters = np.array_split(np.arange(len(column.known)), PARTS)
        cells = []
        for quarter in quarters:
            count = column.known[quarter, 0].sum()
            cells.append(_number(column.total[quarter, 0].sum() / count) if count else "")
        ends = _number(np.nanmin(column.least)), _number(np.nanmax(column.most))
        table.append((f"{series.title} ({known})" if known else series.title, *cells, *ends))
    return table


def _number(value: Any) -> str:
    return f"{float(value):.4g}"
