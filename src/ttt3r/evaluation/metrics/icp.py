"""Rigid registration of two point clouds by iterated closest points."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.neighbours import Neighbours, searched
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points


class IcpResult(NamedTuple):
    """Where a source cloud belongs, and how well it fits there.

    Attributes:
        transform: rigid ``target_from_source`` [4, 4].
        fitness: fraction of the source points that have a target point near enough.
        inlier_rmse: root mean square distance of those points; 0 if there are none.
        rounds: how often the transform was fitted.
    """

    transform: Float64[np.ndarray, "4 4"]
    fitness: float
    inlier_rmse: float
    rounds: int


class _Matches(NamedTuple):
    """Pairs of a source and a target point, and what they amount to."""

    source: Int[np.ndarray, " pairs"]
    target: Int[np.ndarray, " pairs"]
    fitness: float
    rmse: float


def icp(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "m 3"] | Neighbours,
    max_distance: float = 0.1,
    rounds: int = 30,
    tolerance: float = 1e-6,
) -> IcpResult:
    """Move a cloud onto another, starting where it is.

    Besl and McKay, "A method for registration of 3-D shapes", PAMI 1992, with a largest distance:
    every source point is paired with its nearest target point, the pairs give the best rigid
    transform, and so on. Ends after `rounds`, or once neither the fitness nor the inlier RMSE
    changes by as much as `tolerance`, or when fewer than three points are matched, which
    determine nothing.

    Args:
        source: [n, 3].
        target: [m, 3], or a search structure over it.
        max_distance: only target points nearer than this are paired, metres.
        rounds: how often to fit the transform at most.
        tolerance: smallest change that goes on, of the fitness and of the RMSE (metres).

    Raises:
        InputError: if a cloud is empty or not finite, or the matched points are so few or lie so
            that no transform is better than another.
        SettingError: if `max_distance` is not positive.
    """
    search = searched(target)
    source = np.ascontiguousarray(source, dtype=np.float64)
    transform, moved, fitted = np.eye(4), source, 0
    matches = _match(moved, search, max_distance)
    while fitted < rounds and len(matches.source) >= 3:
        step = _fit(moved, search, matches)
        transform, fitted = step @ transform, fitted + 1
        moved, before = transformed(source, transform), matches
        matches = _match(moved, search, max_distance)
        changes = abs(matches.fitness - before.fitness), abs(matches.rmse - before.rmse)
        if max(changes) < tolerance:
            break
    return IcpResult(transform, matches.fitness, matches.rmse, fitted)


def transformed(
    points: Float[np.ndarray, "*shape 3"], transform: Float[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "*shape 3"]:
    """Return points moved by a transform, in float64."""
    points = np.ascontiguousarray(points, dtype=np.float64)
    matrix = torch.from_numpy(transform.astype(np.float64))
    return se3.apply(matrix, torch.from_numpy(points)).numpy()


def _match(moved: Float[np.ndarray, "n 3"], search: Neighbours, max_distance: float) -> _Matches:
    distances, indices = search.nearest(moved, max_distance)
    near = np.flatnonzero(np.isfinite(distances))
    if not len(near):
        return _Matches(near, near, 0.0, 0.0)
    rmse = float(np.sqrt(np.mean(np.square(distances[near]))))
    return _Matches(near, indices[near], len(near) / len(moved), rmse)


def _fit(
    moved: Float[np.ndarray, "n 3"], search: Neighbours, matches: _Matches
) -> Float64[np.ndarray, "4 4"]:
    source = torch.from_numpy(moved[matches.source])
    target = torch.from_numpy(search.points[matches.target])
    try:
        return align_points(source, target, None, with_scale=False).numpy()
    except InputError as error:
        raise InputError(f"iterated closest points failed: {error}") from error
