"""Points followed from frame to frame, for formats whose points name the images that see them.

Every cell of a grid over the image starts a point where none is followed already. In the next
frames each point is projected, and counts as seen where the depth there agrees with its own.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ttt3r.runs.frame_file import LARGEST_HALF

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


@dataclass
class _Begun:
    """The points that began in one view; `kept` is known once nobody looks for them any more."""

    first: int
    world: Float[np.ndarray, "points 3"]
    colour: UInt8[np.ndarray, "points 3"]
    kept: Bool[np.ndarray, " points"]


class Tracker:
    """Follows points through views that come in order; memory grows with the window only.

    Args:
        cell: side of a grid cell, pixels.
        window: how many views after the one where it began a point is looked for.
        tolerance: how far depth may be from the point's, as a share of that.
        min_confidence: pixels at or below this are not used.
    """

    def __init__(self, cell: int, window: int, tolerance: float, min_confidence: float) -> None:
        self._cell, self._window = cell, window
        self._tolerance, self._min_confidence = tolerance, min_confidence
        self._begun: deque[_Begun] = deque()  # one for each view, back to the oldest one needed
        self._seen: deque[tuple[Int[np.ndarray, " seen"], Float[np.ndarray, "seen 2"]]] = deque()
        self._open = 0  # position in these of the oldest view whose points are still looked for
        self._views = self._points = 0

    def add(self, view: View) -> list[tuple[Seen, Cohort]]:
        """Look for the points in one more view, and begin new ones.

        Returns:
            What is settled by it, of one earlier view each, in order: what that view sees, and the
            points that began there.
        """
        number, pixels = self._find(view)
        taken = self._grid(view)
        taken[
            pixels[:, 1].round().astype(int) // self._cell,
            pixels[:, 0].round().astype(int) // self._cell,
        ] = True
        began = self._begin(view, taken)
        first = self._points - len(began)
        self._seen.append(
            (
                np.concatenate([number, np.arange(first, self._points)]),
                np.concatenate([pixels, began]),
            )
        )
        self._views += 1
        return [self._settle()] if len(self._seen) - self._open > self._window else []

    def finish(self) -> list[tuple[Seen, Cohort]]:
        """No more views: settle the rest."""
        return [self._settle() for _ in range(len(self._seen) - self._open)]

    def _find(self, view: View) -> tuple[Int[np.ndarray, " seen"], Float[np.ndarray, "seen 2"]]:
        """Numbers and pixels of the points that a view sees."""
        begun = [self._begun[i] for i in range(self._open, len(self._begun))]
        if not begun:
            return np.empty(0, np.int64), np.empty((0, 2))
        world = np.concatenate([item.world for item in begun])
        pose = view.world_from_camera
        camera = (world - pose[:3, 3]) @ pose[:3, :3]
        in_front = np.flatnonzero(camera[:, 2] > LEAST_DEPTH)
        camera = camera[in_front]
        projected = camera @ view.intrinsics.T
        pixels = projected[:, :2] / projected[:, 2:]
        height, width = view.confidence.shape
        inside = ((pixels > -0.5) & (pixels < (width - 0.5, height - 0.5))).all(axis=1)
        in_front, camera, pixels = in_front[inside], camera[inside], pixels[inside]
        x, y = pixels.round().astype(np.int64).T
        depth, usable = self._depth(view, y, x)
        agrees = usable & (np.abs(depth - camera[:, 2]) <= self._tolerance * camera[:, 2])
        return begun[0].first + in_front[agrees], pixels[agrees]

    def _depth(
        self, view: View, y: Int[np.ndarray, " n"], x: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Depth at some pixels, and whether it can be used."""
        depth, confidence = view.points[y, x, 2], view.confidence[y, x]
        good = (depth > LEAST_DEPTH) & (depth < LARGEST_HALF)
        return depth, good & (confidence > self._min_confidence) & np.isfinite(confidence)

    def _grid(self, view: View) -> Bool[np.ndarray, "rows columns"]:
        height, width = view.confidence.shape
        return np.zeros((-(-height // self._cell), -(-width // self._cell)), bool)

    def _begin(
        self, view: View, taken: Bool[np.ndarray, "rows columns"]
    ) -> Float[np.ndarray, "began 2"]:
        """Begin a point in the middle of each free cell that can be used; return their pixels."""
        height, width = view.confidence.shape
        rows, columns = np.nonzero(~taken)
        y = np.minimum(rows * self._cell + self._cell // 2, height - 1)
        x = np.minimum(columns * self._cell + self._cell // 2, width - 1)
        depth, usable = self._depth(view, y, x)
        y, x, depth = y[usable], x[usable], depth[usable].astype(np.float64)
        pixels = np.stack([x, y], axis=1).astype(np.float64)
        rays = np.column_stack([pixels, np.ones(len(x))]) @ np.linalg.inv(view.intrinsics).T
        pose = view.world_from_camera
        world = (rays * depth[:, None]) @ pose[:3, :3].T + pose[:3, 3]
        self._begun.append(_Begun(self._points, world, view.image[y, x], np.zeros(len(x), bool)))
        self._points += len(x)
        return pixels

    def _settle(self) -> tuple[Seen, Cohort]:
        """Close the points of the oldest view that is open."""
        began = self._begun[self._open]
        first, last = began.first, began.first + len(began.world)
        parts = []
        for position in range(self._open, len(self._seen)):
            number = self._seen[position][0]
            start, stop = np.searchsorted(number, (first, last))
            place = np.arange(start, stop)
            view = self._views - len(self._seen) + position
            parts.append((number[start:stop] - first, np.full(len(place), view), place))
        which, view, place = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        length = np.bincount(which, minlength=len(began.world))
        began.kept[:] = length > 1
        order = np.argsort(which, kind="stable")
        order = order[began.kept[which[order]]]
        kept = np.flatnonzero(began.kept)
        cohort = Cohort(
            first + kept,
            began.world[kept],
            began.colour[kept],
            length[kept],
            view[order],
            place[order],
        )
        number, pixels = self._seen[self._open]
        known = np.concatenate([self._begun[i].kept for i in range(self._open + 1)])
        seen = Seen(number, pixels, known[number - self._begun[0].first])
        self._open += 1
        while self._open > self._window:  # no later view sees a point that began there
            self._begun.popleft()
            self._seen.popleft()
            self._open -= 1
        return seen, cohort
