"""A point cloud of any number of points, thinned to one per cell of a grid, in bounded memory."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from ttt3r.errors import SettingError

MOST_CELLS = 4_000_000  # about 400 MB
BITS = 21  # of a cell's number along an axis
REACH = 1 << (BITS - 1)  # cells from the origin to each side


class Cloud(NamedTuple):
    """Points with colours.

    Attributes:
        points: positions.
        colours: RGB.
        confidence: of each point.
    """

    points: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    confidence: Float32[np.ndarray, " n"]


class _Cells(NamedTuple):
    """Sums over the points of each cell; no cell occurs twice, and numbers rise."""

    numbers: Int64[np.ndarray, " cells"]
    positions: np.ndarray  # float64 [cells, 3]
    weights: np.ndarray  # float32 [cells, 4]: red, green, blue, count
    confidence: np.ndarray  # float32 [cells], the largest


class VoxelCloud:
    """Collects points and keeps one for each cell: their mean position and mean colour.

    Adding takes a time that grows with the points added, hardly with those held. The order in which
    points come changes the result by rounding only.

    Args:
        size: edge of a cell, in the unit of the points.
        most: cells to hold; if there are more, cells become twice as wide, as often as needed.

    Attributes:
        size: edge of a cell now.
        left_out: points that were too far away to have a cell, or not finite.

    Raises:
        SettingError: if the size is not a positive number.
    """

    def __init__(self, size: float, most: int = MOST_CELLS) -> None:
        if not (np.isfinite(size) and size > 0):
            raise SettingError(f"the size of a voxel must be a number above 0, not {size}")
        self.size = float(size)
        self.left_out = 0
        self._most = most
        self._parts: list[_Cells] = []  # each about twice as large as the next

    def add(
        self,
        points: Float[np.ndarray, "n 3"],
        colours: UInt8[np.ndarray, "n 3"],
        confidence: Float[np.ndarray, " n"] | None = None,
    ) -> None:
        """Add points.

        Args:
            points: positions, in the unit of `size`.
            colours: RGB of each.
            confidence: of each; 1 if it is not given. A cell takes the largest of its points.
        """
        if confidence is None:
            confidence = np.ones(len(points), np.float32)
        cells = np.floor(points / self.size)
        inside = (np.abs(cells + 0.5) < REACH).all(axis=1)  # False of NaN, too
        self.left_out += int(len(points) - inside.sum())
        weights = np.ones((int(inside.sum()), 4), np.float32)
        weights[:, :3] = colours[inside]
        numbers = packed(cells[inside].astype(np.int64))
        chosen = points[inside].astype(np.float64), weights, confidence[inside].astype(np.float32)
        self._parts.append(_summed(_Cells(numbers, *chosen)))
        while len(self._parts) > 1 and _size(self._parts[-2]) < 2 * _size(self._parts[-1]):
            self._parts[-2:] = [_merged(self._parts[-2:])]
        if sum(map(_size, self._parts)) > 2 * self._most:
            self._compact()

    def __len__(self) -> int:
        self._compact()
        return sum(map(_size, self._parts))

    def cloud(self) -> Cloud:
        """The points, in the order of their cells; more can be added afterwards."""
        self._compact()
        if not self._parts:
            return Cloud(
                np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32)
            )
        (cells,) = self._parts
        counts = cells.weights[:, 3:]
        positions = (cells.positions / counts).astype(np.float32)
        colours = (cells.weights[:, :3] / counts).round().astype(np.uint8)
        return Cloud(positions, colours, cells.confidence)

    def _compact(self) -> None:
        """Sum up all parts, and widen the cells until they are few enough."""
        if len(self._parts) > 1:
            self._parts = [_merged(self._parts)]
        while self._parts and _size(self._parts[0]) > self._most:
            (cells,) = self._parts
            self.size *= 2
            self._parts = [_summed(cells._replace(numbers=packed(unpacked(cells.numbers) >> 1)))]


def _size(cells: _Cells) -> int:
    return len(cells.numbers)


def packed(cells: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """One number for three, each from -`REACH` to `REACH` - 1."""
    x, y, z = (cells + REACH).T
    return (x << 2 * BITS) | (y << BITS) | z


def unpacked(numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 3"]:
    """The inverse of `packed`."""
    mask = (1 << BITS) - 1
    columns = [(numbers >> shift) & mask for shift in (2 * BITS, BITS, 0)]
    return np.stack(columns, axis=1) - REACH


def _merged(parts: list[_Cells]) -> _Cells:
    return _summed(_Cells(*(np.concatenate(column) for column in zip(*parts, strict=True))))


def _summed(cells: _Cells) -> _Cells:
    """Join what has the same number."""
    order = np.argsort(cells.numbers, kind="stable")
    numbers = cells.numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    if len(starts) == 0:
        return cells
    return _Cells(
        numbers[starts],
        np.add.reduceat(cells.positions[order], starts),
        np.add.reduceat(cells.weights[order], starts),
        np.maximum.reduceat(cells.confidence[order], starts),
    )
