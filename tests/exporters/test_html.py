"""The page of a run: its size, and runs that have frames without a place."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.exporters.test_exporters import make_run
from tests.viewer.room import walk
from ttt3r.errors import SettingError
from ttt3r.exporters import export, html
from ttt3r.viewer.scene import Limits


def test_frames_without_a_place_are_left_out_and_counted(tmp_path: Path):
    lost = torch.full((4, 4), float("nan"))
    predictions = [replace(p, world_from_camera=lost) if p.index == 1 else p for p in walk(3)]
    written = export(make_run(tmp_path / "run", predictions), "html", tmp_path / "a.html")
    assert "(1 frames without a pose left out)" in written.what
    assert b'"unplaced": 1' in written.path.read_bytes()


def test_it_fits(tmp_path: Path):
    run = make_run(tmp_path / "run", list(walk(12, 160, 120)))
    sizes = [
        export(run, "html", tmp_path / f"{most}.html", max_megabytes=most).path.stat().st_size
        for most in (0.5, 14.0)
    ]
    assert sizes[0] <= 500_000 < sizes[1] <= 14_000_000


def test_300_frames_are_below_15_megabytes():
    """What 300 frames may hold at most, if pictures are as large as photographs of this size."""
    limits = html._limits(300, 13.9e6 / html.TEXT)
    assert limits.images == 300 and limits.points > 500_000
    assert Limits().images == 300


@pytest.mark.parametrize("most", [0.1, -1.0, float("nan"), float("inf")])
def test_senseless_sizes(tmp_path: Path, most: float):
    run = make_run(tmp_path / "run", list(walk(1)))
    with pytest.raises(SettingError, match="max_megabytes must be at least"):
        export(run, "html", tmp_path / "a", max_megabytes=most)
