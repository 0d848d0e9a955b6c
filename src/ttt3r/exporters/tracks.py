"""Points followed from frame to frame, for formats whose points name the images that see them.

Every cell of a grid over the image starts a point where none is followed already. In the next
frames each point is projected, and counts as seen where the depth there agrees with its own.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt, UInt8

from ttt3r.types import LARGEST_HALF

LEAST_DEPTH = 1e-6


@dataclass(frozen=True)
class View:
    """What a frame says about points; pixels are the processed image's, centres at integers.

    Attributes:
        points: in the camera's frame; only their z is used.
        confidence: of each.
        image: colours.
        world_from_camera: its pose.
        intrinsics: pinhole matrix that projections and points follow.
    """

    points: Float[np.ndarray, "height width 3"]
    confidence: Float[np.ndarray, "height width"]
    image: UInt8[np.ndarray, "height width 3"]
    world_from_camera: Float[np.ndarray, "4 4"]
    intrinsics: Float[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Seen:
    """The points that one view sees, in the order of their numbers.

    Attributes:
        number: of each point.
        pixels: (x, y) of each.
        kept: whether the point is one of a `Cohort`; the others were seen once only.
    """

    number: Int[np.ndarray, " seen"]
    pixels: Float[np.ndarray, "seen 2"]
    kept: Bool[np.ndarray, " seen"]


@dataclass(frozen=True)
class Cohort:
    """The points that began in one view and were seen in another, and who sees them.

    Attributes:
        number: of each point, increasing.
        world: its place.
        colour: RGB.
        length: how many views see each, at least 2.
        view: number of each such view, from 0, point by point.
        place: which of the points that the view sees it is, likewise.
    """

    number: Int[np.ndarray, " points"]
    world: Float[np.ndarray, "points 3"]
    colour: UInt8[np.ndarray, "points 3"]
    length: Int[np.ndarray, " points"]
    view: Int[np.ndarray, " seen"]
    place: Int[np.ndarray, " seen"]


class Settled(NamedTuple):
    """What is known for good.

    Attributes:
        seen: what some views see, in the order of the views, each view once.
        began: the points that began in these views.
    """

    seen: list[Seen]
    began: Cohort


class Tracker:
    """Follows points through views that come in order; memory grows with the window only.

    Points are settled when no later view looks for them, those of `window` views at once: each
    step of it takes about the same time for one view as for many.

    Args:
        cell: side of a grid cell, pixels.
        window: how many views after the one where it began a point is looked for.
        tolerance: how far depth may be from the point's, as a share of that.
        min_confidence: pixels at or below this are not used.
    """

    def __init__(self, cell: int, window: int, tolerance: float, min_confidence: float) -> None:
        self._cell, self._window = cell, window
        self._tolerance, self._min_confidence = tolerance, min_confidence
        self._first_view = 0  # the oldest one that is not settled
        self._seen: list[tuple[Int[np.ndarray, " seen"], Float[np.ndarray, "2 seen"]]] = []
        self._starts = [0]  # the first point of each of these views, and of the next one
        # Of the points that began in them, one column each, with room for more.
        self._world = np.empty((3, 1024))
        self._colours = np.empty((1024, 3), np.uint8)
        # Of the `window` views before them: whether each point is kept.
        self._kept = np.empty(0, bool)
        self._grid: _Grid | None = None

    def add(self, view: View) -> Settled | None:
        """Look for the points in one more view, and begin new ones.

        Returns:
            What is settled by it; None if nothing is.
        """
        grid = self._grid
        if grid is None or not grid.fits(view):
            grid = self._grid = _Grid.of(view, self._cell)
        number, pixels, at = self._find(view)
        began, world, colours = self._begin(view, grid, at)
        first, last = self._starts[-1], self._starts[-1] + began.shape[1]
        self._starts.append(last)
        self._remember(world, colours)
        all_ = np.concatenate([number, np.arange(first, last)])
        self._seen.append((all_, np.concatenate([pixels, began], axis=1)))
        return self._settle(self._window) if len(self._seen) == 2 * self._window else None

    def finish(self) -> Settled:
        """No more views: settle the rest."""
        return self._settle(len(self._seen))

    def _find(
        self, view: View
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "2 n"], Int[np.ndarray, " n"]]:
        """Numbers and pixels of the points that a view sees, and the index of the nearest pixel."""
        first = self._starts[max(0, len(self._seen) - self._window)]
        pose, matrix = view.world_from_camera, view.intrinsics
        rotation = matrix @ pose[:3, :3].T
        begin, end = first - self._starts[0], self._starts[-1] - self._starts[0]
        projected = rotation @ self._world[:, begin:end]
        projected -= (rotation @ pose[:3, 3])[:, None]
        z = projected[2]
        height, width = view.confidence.shape
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = projected[:2] / z
            # Numbers below 0 become large ones without a sign.
            column, row = np.rint(pixels).astype(np.int64).view(np.uint64)
        which = np.flatnonzero((column < width) & (row < height) & (z > LEAST_DEPTH))
        z = z[which]
        at = (row * width + column)[which].view(np.int64)
        depth, usable = self._depth(view, at)
        agrees = usable & (np.abs(depth - z) <= self._tolerance * z)
        which = which[agrees]
        return first + which, pixels.take(which, axis=1), at[agrees]

    def _depth(
        self, view: View, at: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Depth at some pixels, by their index, and whether it can be used."""
        depth = view.points.reshape(-1)[2::3][at].astype(np.float64)
        confidence = view.confidence.reshape(-1).take(at).astype(np.float64)
        usable = (depth > LEAST_DEPTH) & (depth < LARGEST_HALF)
        usable &= (confidence > self._min_confidence) & np.isfinite(confidence)
        return depth, usable

    def _begin(
        self, view: View, grid: "_Grid", at: Int[np.ndarray, " seen"]
    ) -> tuple[Float[np.ndarray, "2 n"], Float[np.ndarray, "3 n"], UInt8[np.ndarray, "n 3"]]:
        """Begin a point in the middle of each cell that is free and can be used.

        Args:
            view: the frame.
            grid: its cells.
            at: index of pixels that see a point already.
        """
        is_free = np.ones(len(grid.middles), bool)
        is_free[grid.cells.take(at)] = False
        free = np.flatnonzero(is_free)
        depth, usable = self._depth(view, grid.middles[free])
        free, depth = free[usable], depth[usable]
        rays = grid.rays.take(free, axis=1)
        pose = view.world_from_camera
        world = pose[:3, :3] @ (rays * depth) + pose[:3, 3:]
        colours = view.image.reshape(-1, 3).take(grid.middles[free], axis=0)
        return grid.pixels.take(free, axis=1), world, colours

    def _remember(
        self, world: Float[np.ndarray, "3 new"], colours: UInt8[np.ndarray, "new 3"]
    ) -> None:
        """Keep the points that the newest view began."""
        begin, end = (start - self._starts[0] for start in self._starts[-2:])
        if end > len(self._colours):
            room = end + len(self._colours)
            grown = np.empty((3, room)), np.empty((room, 3), np.uint8)
            grown[0][:, :begin], grown[1][:begin] = self._world[:, :begin], self._colours[:begin]
            self._world, self._colours = grown
        self._world[:, begin:end], self._colours[begin:end] = world, colours

    def _settle(self, count: int) -> Settled:
        """Close the points that began in the oldest views, so many of them."""
        first, last = self._starts[0], self._starts[count]
        lengths = np.array([len(number) for number, _ in self._seen], np.int64)
        numbers = np.concatenate([np.empty(0, np.int64), *(number for number, _ in self._seen)])
        mine = np.flatnonzero((numbers >= first) & (numbers < last))
        which = numbers[mine] - first
        ends = np.cumsum(lengths)
        view = np.repeat(np.arange(len(lengths)), lengths)[mine]
        place = mine - (ends - lengths)[view]
        length = np.bincount(which, minlength=last - first)
        is_kept = length > 1
        small = last - first <= 2**16  # numpy sorts these by their digits
        order = np.argsort(which.astype(np.uint16) if small else which, kind="stable")
        order = order[is_kept[which[order]]]
        kept = np.flatnonzero(is_kept)
        cohort = Cohort(
            first + kept,
            self._world[:, kept].T,
            self._colours[kept],
            length[kept],
            self._first_view + view[order],
            place[order],
        )
        known = np.concatenate([self._kept, is_kept])
        base = first - len(self._kept)
        seen = [Seen(number, at.T, known[number - base]) for number, at in self._seen[:count]]
        self._forget(count)
        self._kept = is_kept
        return Settled(seen, cohort)

    def _forget(self, count: int) -> None:
        """Drop what is settled."""
        begin, end = self._starts[count] - self._starts[0], self._starts[-1] - self._starts[0]
        self._world[:, : end - begin] = self._world[:, begin:end].copy()
        self._colours[: end - begin] = self._colours[begin:end].copy()
        del self._seen[:count], self._starts[:count]
        self._first_view += count


@dataclass(frozen=True)
class _Grid:
    """The cells of images of one size and camera; pixels are named by their index.

    Attributes:
        shape: (height, width).
        intrinsics: of the camera.
        middles: the pixel in the middle of each cell.
        pixels: (x, y) of these.
        rays: through these, with z = 1.
        cells: which cell each pixel is in.
    """

    shape: tuple[int, ...]
    intrinsics: Float[np.ndarray, "3 3"]
    middles: Int[np.ndarray, " cells"]
    pixels: Float[np.ndarray, "2 cells"]
    rays: Float[np.ndarray, "3 cells"]
    cells: UInt[np.ndarray, " pixels"]

    @staticmethod
    def of(view: View, side: int) -> "_Grid":
        height, width = view.confidence.shape
        rows, columns = -(-height // side), -(-width // side)
        y = np.minimum(np.arange(rows) * side + side // 2, height - 1)
        x = np.minimum(np.arange(columns) * side + side // 2, width - 1)
        pixels = np.stack([np.tile(x, rows), np.repeat(y, columns)]).astype(np.float64)
        rays = np.linalg.inv(view.intrinsics) @ np.vstack([pixels, np.ones(rows * columns)])
        cells = np.add.outer(np.arange(height) // side * columns, np.arange(width) // side)
        middles = np.add.outer(y * width, x).ravel()
        cells = cells.ravel().astype(np.min_scalar_type(rows * columns))  # fits the cache
        return _Grid((height, width), view.intrinsics, middles, pixels, rays, cells)

    def fits(self, view: View) -> bool:
        """Whether these are the cells of a view."""
        same = view.intrinsics is self.intrinsics or np.array_equal(
            view.intrinsics, self.intrinsics
        )
        return same and view.confidence.shape == self.shape
