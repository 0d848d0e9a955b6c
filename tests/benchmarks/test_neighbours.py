"""The clouds and the naive way of the benchmark, and that it runs."""

import json
import sys

import numpy as np
import pytest

from benchmarks import neighbours
from benchmarks.neighbours import ROOM, measure_rest, measure_search, naive_nearest, surface_cloud


def test_clouds_lie_on_the_walls():
    cloud = surface_cloud(110_000, 0, 0.0)
    assert cloud.shape == (110_000, 3)
    beyond = np.abs(cloud) / (ROOM / 2.0)
    np.testing.assert_allclose(beyond.max(1), 1.0)
    assert len(np.unique(beyond.argmax(1))) > 1  # more than one wall
    assert (surface_cloud(110_000, 0, 0.01) - cloud).std() == pytest.approx(0.01, rel=0.05)


def test_the_naive_way_is_every_distance(monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS_AT_ONCE", 500)
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(100, 3)), rng.normal(size=(33, 3))
    table = np.linalg.norm(queries[:, None] - points, axis=-1)
    np.testing.assert_allclose(naive_nearest(points, queries), table.min(1))


def test_measurements_say_what_they_count():
    search = measure_search(3000, 50, "cpu", 1)
    assert search["naive_seconds"] == pytest.approx(
        search["naive_timed_seconds"] * 2 * search["points"] / search["naive_queries"]
    )
    assert search["seconds"] == search["build_seconds"] + search["query_seconds"]
    assert measure_rest(3000, "cpu", 1)["normals_seconds"] > 0.0


def test_the_command_prints_a_report(monkeypatch, capsys, tmp_path):
    def here(module, arguments):
        part = arguments[-1]
        assert (module, part in ("search", "rest")) == ("neighbours", True)
        return (
            measure_search(2000, 9, "cpu", 1) if part == "search" else measure_rest(1000, "cpu", 1)
        )

    monkeypatch.setattr("benchmarks.machine.in_subprocess", here)
    kept = tmp_path / "numbers.json"
    monkeypatch.setattr(sys, "argv", ["neighbours", "--json", str(kept)])
    neighbours.main()
    printed = capsys.readouterr().out
    assert "between two clouds of 2,000 points" in printed
    assert "9 of the 4,000 queries" in printed and "was not measured" in printed
    assert set(json.loads(kept.read_text())) == {"machine", "search", "rest"}
