"""Exact nearest neighbours in point sets of any size, on the processor or on a device.

On the processor this is scipy's k-d tree (Maneewongvatana and Mount, "Analysis of approximate
nearest neighbor searching with clustered point sets", 1999, whose sliding midpoint it cuts at).
On other devices, whole blocks of points are compared. Distances are Euclidean, in the unit of the
points, and computed in float64.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ttt3r.errors import InputError, MissingExtraError, SettingError

Method = Literal["tree", "blocks"]

LARGEST_COORDINATE = 1e100  # so that no square overflows
MORTON_BITS = 21  # per axis: three times this fits into 64 bits
BLOCK = 256  # points that are compared at once
BATCH = 256  # blocks of queries that are worked on at once
ROUNDING = 1e-12  # by how much a distance in float64 may be off, relatively


class Neighbours:
    """A search structure over points.

    Args:
        points: [n, 3], at least one, finite. Not to be changed while this lives: float64 is
            referred to, anything else copied.
        device: where to search; queries and answers are always arrays of numpy.
        workers: threads of the tree; -1 for one per core.
        method: "tree" is the k-d tree and works on the processor; "blocks" compares blocks of
            points on any device. None takes the tree on the processor and blocks elsewhere.

    Raises:
        InputError: if `points` is no such array.
        MissingExtraError: if the tree is wanted and scipy is not installed.
        SettingError: if `method` is unknown, or the tree is wanted on another device.
    """

    def __init__(
        self,
        points: Float[np.ndarray, "n 3"],
        device: str = "cpu",
        workers: int = -1,
        method: Method | None = None,
    ) -> None:
        self.points = _checked(points, "the points")
        self.device = device
        on_processor = torch.device(device).type == "cpu"
        method = method or ("tree" if on_processor else "blocks")
        if method not in ("tree", "blocks"):
            raise SettingError(f"unknown method {method!r}; choose tree or blocks")
        if method == "tree" and not on_processor:
            raise SettingError(f"the tree works on the cpu only, not on {device}; choose blocks")
        self._search = (
            _Tree(self.points, workers) if method == "tree" else _Blocks(self.points, device)
        )

    def __len__(self) -> int:
        return len(self.points)

    def nearest(
        self, queries: Float[np.ndarray, "m 3"], max_distance: float | None = None
    ) -> tuple[Float64[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Return the nearest point of each query; among equally near ones, any.

        Args:
            queries: [m, 3], at least one, finite.
            max_distance: only points nearer than this count; None for no limit.

        Returns:
            Distances [m] and indices into the points [m]; infinity and n where no point is near
            enough.

        Raises:
            InputError: if `queries` is no such array.
            SettingError: if `max_distance` is not positive.
        """
        limit = np.inf if max_distance is None else max_distance
        if not limit > 0.0:
            raise SettingError(f"the largest distance is {limit}; it must be positive")
        distances, indices = self._find(queries, 1, float(limit))
        return distances[:, 0], indices[:, 0]

    def k_nearest(self, queries: Float[np.ndarray, "m 3"], k: int) -> Int[np.ndarray, "m {k}"]:
        """Return the indices [m, k] of the nearest points of each query, nearest first.

        A query that is one of the points finds itself.

        Raises:
            InputError: if `queries` is no such array.
            SettingError: unless 1 ≤ k ≤ n.
        """
        if not 1 <= k <= len(self):
            raise SettingError(f"{k} neighbours were asked for; choose 1 to {len(self)}")
        return self._find(queries, k, np.inf)[1]

    def _find(
        self, queries: Float[np.ndarray, "m 3"], k: int, limit: float
    ) -> tuple[Float64[np.ndarray, "m k"], Int[np.ndarray, "m k"]]:
        """Answer the queries along a curve: neighbours in memory then visit the same nodes."""
        queries = _checked(queries, "the queries")
        order = spatial_order(queries)
        found = self._search.find(queries[order], k, limit)
        distances, indices = np.empty((len(order), k)), np.empty((len(order), k), dtype=np.int64)
        distances[order], indices[order] = found
        return distances, indices


def searched(points: Float[np.ndarray, "n 3"] | Neighbours, device: str = "cpu") -> Neighbours:
    """Return `points` if that is a search structure already, else one over them."""
    return points if isinstance(points, Neighbours) else Neighbours(points, device)


def spatial_order(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Return the order in which a Morton curve visits finite points [n, 3], n ≥ 1.

    Morton, "A computer oriented geodetic data base and a new technique in file sequencing",
    1966: the bits of the coordinates take turns.
    """
    low = points.min(0)
    extent = float((points.max(0) - low).max()) or 1.0
    keys = np.zeros(len(points), dtype=np.uint64)
    for axis in range(3):
        steps = (points[:, axis] - low[axis]) / extent * (2**MORTON_BITS - 1)
        keys |= _spread(steps.astype(np.uint64)) << np.uint64(axis)
    return np.argsort(keys)


def _spread(values: np.ndarray) -> np.ndarray:
    """Move bit i of 21 bits to bit 3 i."""
    for shift, mask in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        values = (values | (values << np.uint64(shift))) & np.uint64(mask)
    return values


def _checked(points: np.ndarray, name: str) -> Float64[np.ndarray, "n 3"]:
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(
            f"{name} have the shape {points.shape}; give [n, 3] with at least one point"
        )
    points = np.ascontiguousarray(points, dtype=np.float64)
    # False for NaN; of the extremes, because they need no array of their own.
    if not (points.min() >= -LARGEST_COORDINATE and points.max() <= LARGEST_COORDINATE):
        wrong = int((~(np.abs(points) <= LARGEST_COORDINATE)).any(1).sum())
        raise InputError(
            f"{wrong} of {len(points)} of {name} are not finite (or beyond "
            f"{LARGEST_COORDINATE:g}), so they have no neighbours. Leave them out."
        )
    return points


class _Tree:
    """The k-d tree of scipy."""

    def __init__(self, points: Float64[np.ndarray, "n 3"], workers: int) -> None:
        try:
            from scipy.spatial import KDTree
        except ImportError as error:
            raise MissingExtraError("scipy", "eval", "comparing point clouds") from error
        # Measured on surfaces of ten million points: cutting at the sliding midpoint, with boxes
        # that are not shrunk, builds three times faster than scipy's own choice and answers twice
        # as fast. Leaves of 16 to 48 points differ by less than 5 %.
        self._tree = KDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)
        self._workers = workers

    def find(
        self, queries: Float64[np.ndarray, "m 3"], k: int, limit: float
    ) -> tuple[Float64[np.ndarray, "m k"], Int[np.ndarray, "m k"]]:
        distances, indices = self._tree.query(
            queries, k, distance_upper_bound=limit, workers=self._workers
        )
        return np.reshape(distances, (-1, k)), np.reshape(indices, (-1, k))  # [m] for k = 1


class _Boxes(NamedTuple):
    """Axis-aligned boxes: two opposite corners, [b, 3] each."""

    low: Float[Tensor, "b 3"]
    high: Float[Tensor, "b 3"]


class _Blocks:
    """A search that compares blocks of points, and skips those that are too far away.

    Points are put into spatial order and cut into blocks, each with its bounding box; so are
    queries. A block of queries visits the blocks of points by the distance of the boxes, until
    that exceeds the distance of the worst answer so far. Everything else is farther.
    """

    def __init__(self, points: Float64[np.ndarray, "n 3"], device: str) -> None:
        self._count, self._device = len(points), device
        order = torch.from_numpy(spatial_order(points))
        blocks = _blocks(torch.from_numpy(points)[order])
        padding = blocks.shape[0] * BLOCK - len(points)
        self._boxes = _Boxes(*(corner.to(device) for corner in _boxes(blocks)))
        if padding:
            blocks[-1, BLOCK - padding :] = torch.inf  # nobody's neighbour
        self._points = blocks.to(device)
        padded = torch.cat([order, order.new_full((padding,), len(points))])
        self._indices = padded.reshape(-1, BLOCK).to(device)

    def find(
        self, queries: Float64[np.ndarray, "m 3"], k: int, limit: float
    ) -> tuple[Float64[np.ndarray, "m k"], Int[np.ndarray, "m k"]]:
        batches = self._batches(_blocks(torch.from_numpy(queries)), k, limit)
        distances, indices = zip(*batches, strict=True)
        rows = slice(len(queries))
        return torch.cat(distances)[rows].numpy(), torch.cat(indices)[rows].numpy()

    def _batches(
        self, blocks: Float[Tensor, "b block 3"], k: int, limit: float
    ) -> Iterator[tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]]:
        for batch in blocks.split(BATCH):
            distances, indices = self._visit(batch.to(self._device), k, limit)
            missing = ~(distances < limit)
            distances[missing], indices[missing] = torch.inf, self._count
            yield distances.flatten(0, 1).cpu(), indices.flatten(0, 1).cpu()

    def _visit(
        self, queries: Float[Tensor, "b block 3"], k: int, limit: float
    ) -> tuple[Float[Tensor, "b block k"], Int[Tensor, "b block k"]]:
        """Return distances and indices of the k nearest points; those beyond `limit` are void."""
        boxes = _boxes(queries)
        gaps = torch.maximum(
            self._boxes.low - boxes.high[:, None], boxes.low[:, None] - self._boxes.high
        )
        bounds, visits = (gaps.clamp(min=0.0).norm(dim=-1) * (1.0 - ROUNDING)).sort(dim=1)
        best = queries.new_full((*queries.shape[:2], k), limit)
        indices = torch.full_like(best, self._count, dtype=torch.int64)
        active = torch.arange(len(queries), device=queries.device)
        for turn in range(visits.shape[1]):
            active = active[bounds[active, turn] <= best[active].amax((1, 2))]
            if not len(active):
                break
            block = visits[active, turn]
            distances = torch.cdist(
                queries[active],
                self._points[block],
                compute_mode="donot_use_mm_for_euclid_dist",  # which loses half of the digits
            )
            candidates = self._indices[block][:, None].expand_as(distances)
            merged = torch.cat([best[active], distances], dim=-1)
            best[active], chosen = merged.topk(k, largest=False)
            indices[active] = torch.cat([indices[active], candidates], dim=-1).gather(-1, chosen)
        return best, indices


def _blocks(points: Float[Tensor, "n 3"]) -> Float[Tensor, "b block 3"]:
    """Cut points into blocks; the last is filled by repeating the last point."""
    padding = -len(points) % BLOCK
    return torch.cat([points, points[-1:].expand(padding, 3)]).reshape(-1, BLOCK, 3)


def _boxes(blocks: Float[Tensor, "b block 3"]) -> _Boxes:
    return _Boxes(blocks.amin(1), blocks.amax(1))
