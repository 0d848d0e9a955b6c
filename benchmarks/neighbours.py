"""Exact nearest neighbours between two point clouds: `python -m benchmarks.neighbours`.

The clouds are what reconstruction is scored on: pointmaps of a room from many views, once as they
are and once with noise. Neighbours are searched both ways, by `ttt3r.evaluation.metrics.neighbours`
and by comparing everything with everything; the latter is timed on some queries and extrapolated.
Normals and a round of iterated closest points, which scoring needs too, are timed at a size of
their own.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks import machine
from ttt3r.evaluation.machine import peak_memory
from ttt3r.evaluation.metrics.icp import icp
from ttt3r.evaluation.metrics.neighbours import Neighbours
from ttt3r.evaluation.metrics.normals import estimate_normals

SIDE = 224  # pixels of a view that are scored, in each direction
ROOM = np.array([3.0, 2.4, 4.0])  # metres
HALF_ANGLE = 0.27  # tangent, of the part of a view that is scored
NOISE = {"truth": 0.002, "prediction": 0.02}  # metres
PAIRS_AT_ONCE = 2**25  # of the naive way
NORMAL_NEIGHBOURS = 30

Result = TypeVar("Result")


def surface_cloud(count: int, seed: int, noise: float) -> np.ndarray:
    """Points [count, 3] of the walls of a room, seen from a camera that goes round in it."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-HALF_ANGLE, HALF_ANGLE, SIDE)
    rays = np.stack([*np.meshgrid(grid, grid), np.ones((SIDE, SIDE))], axis=-1).reshape(-1, 3)
    views = -(-count // len(rays))
    cloud = np.empty((views * len(rays), 3))
    for view, angle in enumerate(np.linspace(0.0, np.pi, views)):
        sine, cosine = np.sin(angle), np.cos(angle)
        directions = rays @ np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
        centre = np.array([0.3 * np.cos(3 * angle), 0.1 * np.sin(5 * angle), 0.3 * sine])
        with np.errstate(divide="ignore"):
            walls = (np.copysign(ROOM / 2.0, directions) - centre) / directions
        points = centre + directions * walls.min(axis=1, keepdims=True)
        rows = slice(view * len(rays), (view + 1) * len(rays))
        cloud[rows] = points + rng.normal(0.0, noise, points.shape)
    return cloud[:count]


def naive_nearest(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Distances [m] to the nearest points: the whole table, a few queries at a time."""
    nearest = np.empty(len(queries))
    step = max(1, PAIRS_AT_ONCE // len(points))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        squares = np.zeros((len(queries[rows]), len(points)))
        for axis in range(3):
            difference = queries[rows, axis, None] - points[:, axis]
            squares += np.square(difference, out=difference)
        nearest[rows] = np.sqrt(squares.min(axis=1))
    return nearest


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure_search(count: int, queries: int, device: str, workers: int) -> dict[str, Any]:
    """Search both ways, and the naive way for some queries, in this process."""
    truth, prediction = (
        surface_cloud(count, seed, noise) for seed, noise in enumerate(NOISE.values())
    )
    before = peak_memory()
    build, searches = timed(
        lambda: [Neighbours(cloud, device, workers) for cloud in (truth, prediction)]
    )
    there, (distances, _) = timed(lambda: searches[0].nearest(prediction))
    back, _ = timed(lambda: searches[1].nearest(truth))
    peak = peak_memory()
    some = np.random.default_rng(2).choice(count, min(queries, count), replace=False)
    naive, expected = timed(lambda: naive_nearest(truth, prediction[some]))
    np.testing.assert_allclose(distances[some], expected, rtol=1e-9)
    return {
        "points": count,
        "build_seconds": build,
        "query_seconds": there + back,
        "seconds": build + there + back,
        "naive_queries": len(some),
        "naive_timed_seconds": naive,
        "naive_seconds": naive / len(some) * 2 * count,
        "clouds_peak_bytes": before,
        "peak_bytes": peak,
    }


def measure_rest(count: int, device: str, workers: int) -> dict[str, Any]:
    """Normals and one round of iterated closest points, in this process."""
    truth, prediction = (
        surface_cloud(count, seed, noise) for seed, noise in enumerate(NOISE.values())
    )
    search = Neighbours(truth, device, workers)
    normals, _ = timed(lambda: estimate_normals(search, NORMAL_NEIGHBOURS))
    first, _ = timed(lambda: icp(prediction, search, rounds=0))
    one, _ = timed(lambda: icp(prediction, search, rounds=1, tolerance=0.0))
    return {
        "points": count,
        "normals_seconds": normals,
        "icp_round_seconds": one - first,
        "peak_bytes": peak_memory(),
    }


def report(facts: dict[str, Any], search: dict[str, Any], rest: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    way, naive = search["seconds"], search["naive_seconds"]

    def gib(result: dict[str, Any], key: str) -> str:
        return "" if result[key] is None else f"{result[key] / machine.GIB:.2f}"

    rows = [
        [
            "ttt3r",
            *(f"{search[key]:.1f}" for key in ("build_seconds", "query_seconds", "seconds")),
            gib(search, "peak_bytes"),
            f"{naive / way:,.0f}x",
        ]
    ]
    rows.append(["everything with everything, extrapolated", "", "", f"{naive:,.0f}", "", "1x"])
    header = ["way", "build (s)", "query (s)", "together (s)", "peak memory (GiB)", "faster"]
    parts = [
        [f"normals from {NORMAL_NEIGHBOURS} neighbours", f"{rest['normals_seconds']:.1f}"],
        ["one round of iterated closest points", f"{rest['icp_round_seconds']:.1f}"],
    ]
    return "\n".join(
        [
            f"## Nearest neighbours between two clouds of {search['points']:,} points, both ways",
            "",
            machine.sentence(facts),
            "",
            machine.table(header, rows),
            "",
            f"Comparing everything with everything took {search['naive_timed_seconds']:.1f} s for "
            f"{search['naive_queries']} of the {2 * search['points']:,} queries; its total is "
            "that, extrapolated, and was not measured. The distances agree. The clouds alone "
            f"needed up to {gib(search, 'clouds_peak_bytes')} GiB.",
            "",
            machine.table([f"other parts of scoring, {rest['points']:,} points", "seconds"], parts),
            "",
            f"Their peak memory is {gib(rest, 'peak_bytes')} GiB.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__)
    parser.add_argument("--points", type=int, default=10_000_000, help="points of each cloud")
    parser.add_argument("--rest-points", type=int, default=1_000_000, help="for normals and ICP")
    parser.add_argument("--naive-queries", type=int, default=100, help="how many are timed")
    parser.add_argument("--workers", type=int, default=-1, help="threads; -1 for one per core")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--worker", choices=("search", "rest"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device, workers = options.device, options.workers
    if options.worker == "search":
        found = measure_search(options.points, options.naive_queries, device, workers)
        print(json.dumps(found))
        return
    if options.worker == "rest":
        print(json.dumps(measure_rest(options.rest_points, device, workers)))
        return
    arguments = ["--points", str(options.points), "--rest-points", str(options.rest_points)]
    arguments += ["--naive-queries", str(options.naive_queries), "--workers", str(workers)]
    arguments += ["--device", device, "--worker"]
    search, rest = (
        machine.in_subprocess("neighbours", [*arguments, part]) for part in ("search", "rest")
    )
    facts = machine.describe(device)
    print(report(facts, search, rest))
    if options.json:
        results = {"machine": facts, "search": search, "rest": rest}
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
