"""What a trace follows over time, and in which order its values lie in a row of the sketch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ttt3r.trace.sketch import Row

TOKEN_ROWS = 32  # rows into which the state's tokens are averaged, in their order


@dataclass(frozen=True)
class Series:
    """One thing that is followed.

    Attributes:
        title: for people.
        unit: "" for a plain number; "length" for the unit of the run's lengths.
        rows: how many values it has; 1, or one for each group of tokens.
    """

    title: str
    unit: str = ""
    rows: int = 1


# A series is added at the end: files that know it not yet then still read.
SERIES: dict[str, Series] = {
    "gate": Series("gate (beta), over all tokens"),
    "horizon": Series("effective horizon, over all tokens", "frames"),
    "state_step": Series("state, change per frame |S(t) - S(t-1)|"),
    "state_drift": Series("state, distance from its start |S(t) - S(0)|"),
    "state_norm": Series("state, size |S(t)|"),
    "pose_memory_step": Series("pose memory, change per frame"),
    "pose_memory_drift": Series("pose memory, distance from its start"),
    "state_bytes": Series("memory of the state", "bytes"),
    "confidence": Series("mean confidence"),
    "agreement": Series("agreement with the frame before"),
    "translation": Series("camera, step", "length"),
    "rotation": Series("camera, turn", "degrees"),
    "segment": Series("segment"),
    "health": Series("health: 0 in-domain, 1 drifting, 2 lost"),
    "token_gate": Series("gate (beta)", rows=TOKEN_ROWS),
    "token_horizon": Series("effective horizon", "frames", rows=TOKEN_ROWS),
}
PLACES: dict[str, slice] = {}
for _name, _series in SERIES.items():
    _first = sum(item.rows for item in list(SERIES.values())[: len(PLACES)])
    PLACES[_name] = slice(_first, _first + _series.rows)
VALUES = sum(item.rows for item in SERIES.values())


class RowMaker:
    """Collects what is known of one frame; the rest is NaN."""

    def __init__(self) -> None:
        self._row = Row(*(np.full(VALUES, np.nan) for _ in Row._fields))

    def put(self, name: str, value: float | int) -> None:
        """Set a series of one value."""
        for part in self._row:
            part[PLACES[name]] = value

    def put_tokens(self, name: str, values: Float64[np.ndarray, " tokens"]) -> None:
        """Set "gate" or "horizon" over all tokens, and the series of groups of tokens.

        Fewer tokens than rows fill the first rows, one each.
        """
        self._set(PLACES[name], values, np.zeros(1, np.int64))
        rows = min(TOKEN_ROWS, len(values))
        first = PLACES[f"token_{name}"].start
        self._set(slice(first, first + rows), values, np.arange(rows) * len(values) // rows)

    def _set(self, place: slice, values: np.ndarray, starts: np.ndarray) -> None:
        sizes = np.diff(starts, append=len(values))
        self._row.mean[place] = np.add.reduceat(values, starts) / sizes
        self._row.least[place] = np.minimum.reduceat(values, starts)
        self._row.most[place] = np.maximum.reduceat(values, starts)

    @property
    def row(self) -> Row:
        """What was collected."""
        return self._row
