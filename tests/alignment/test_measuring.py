"""Runs that are scaled by a factor or a known distance, and what `info` says of lengths."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from tests.cli.conftest import Ttt3r, shared, ttt3r  # noqa: F401 (fixtures)
from tests.exporters.test_exporters import make_run
from tests.viewer.room import walk
from ttt3r.alignment.measuring import Place, point_at
from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.runs.placement import Placement
from ttt3r.runs.reader import Run
from ttt3r.types import ImageTransform


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", list(walk(6, 64, 48)))
    return tmp_path / "run"


def scale_of(run: Path) -> float:
    world = Placement.read(run).world
    return 1.0 if world is None else float(se3.similarity_scale(world))


def test_a_factor(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    before = list(Run.open(run))
    for _ in range(2):  # the second time changes nothing
        result = ttt3r("scale", run, "2.5")
        assert (result.status, result.out) == (0, "lengths times 2.5\n")
    for was, now in zip(before, Run.open(run), strict=True):
        torch.testing.assert_close(now.points, 2.5 * was.points)
        torch.testing.assert_close(now.world_from_camera[:3, 3], 2.5 * was.world_from_camera[:3, 3])
        assert torch.equal(now.world_from_camera[:3, :3], was.world_from_camera[:3, :3])
    assert ttt3r("scale", run, "--undo").out == "no longer measured: lengths times 2.5\n"
    assert scale_of(run) == 1


def test_a_known_distance(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    """The true distance of two walls' points is asked for in another unit."""
    opened = Run.open(run)
    first, second = (point_at(opened, Place(f, x, y)) for f, x, y in ((1, 20, 12), (4, 50, 30)))
    metres = 3.0 * float((first - second).norm())
    for _ in range(2):
        result = ttt3r("scale", run, "--known", "1:20,12", "4:50,30", f"{metres:.9f}")
        assert result.status == 0, result.err
        assert scale_of(run) == pytest.approx(3, rel=1e-6)
    text = Placement.read(run).world_text
    assert text == f"measured: {metres:g} m between 1:20,12 and 4:50,30"
    moved = Run.open(run)
    first, second = (point_at(moved, Place(f, x, y)) for f, x, y in ((1, 20, 12), (4, 50, 30)))
    assert float((first - second).norm()) == pytest.approx(metres, rel=1e-5)


def test_places_are_in_the_original_image(tmp_path: Path) -> None:
    """An image of twice the size whose left and upper two columns and rows were cut."""
    (item,) = walk(1, 64, 48)
    transform = ImageTransform((136, 104), (68, 52), (2, 2, 64, 48))
    item = replace(item, transform=transform)
    run = make_run(tmp_path / "run", [item])
    assert item.points is not None
    # The centre of processed pixel (x, y) is at 2 (x + 2) + 0.5 of the original image.
    got = point_at(run, Place(0, 2 * (20 + 2) + 0.5, 2 * (12 + 2) + 0.5))
    torch.testing.assert_close(got, item.points[12, 20].double(), rtol=2e-3, atol=0)  # float16
    between = point_at(run, Place(0, 2 * (20.5 + 2) + 0.5, 2 * (12 + 2) + 0.5))
    middle = (item.points[12, 20] + item.points[12, 21]).double() / 2
    torch.testing.assert_close(between, middle, rtol=2e-3, atol=0)


def test_no_point_between_surfaces(tmp_path: Path) -> None:
    """At an edge, it is that of the nearest pixel."""
    (item,) = walk(1, 8, 6)
    assert item.points is not None
    item.points[:, :4] *= 0.1
    run = make_run(tmp_path / "run", [item])
    near, far = run[0].points[2, 3].double(), run[0].points[2, 4].double()
    for x, expected in ((3.4, near), (3.6, far)):
        torch.testing.assert_close(point_at(run, Place(0, x, 2.0)), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of"),
        (["2", "--undo"], "give one of"),
        (["0"], "must be above 0"),
        (["nan"], "must be above 0"),
        (["--known", "0:1,1", "0:5,5", "-1"], "must be above 0"),
        (["--known", "0:1,1", "0:1,1", "1"], "the same point"),
        (["--known", "0:1", "0:1,1", "1"], "a place is FRAME:X,Y"),
        (["--known", "9:1,1", "0:1,1", "1"], "there is no frame 9"),
        (["--known", "0:64,1", "0:1,1", "1"], "lies outside of the image"),
        (["--known", "0:-1,1", "0:1,1", "1"], "lies outside of the image"),
    ],
)
def test_senseless_words(run: Path, ttt3r: Ttt3r, words: list[str], message: str) -> None:  # noqa: F811
    result = ttt3r("scale", run, *words)
    assert result.status == 2 and message in result.err
    assert scale_of(run) == 1


def test_nothing_is_known_there(tmp_path: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    (item,) = walk(1, 8, 6)
    assert item.points is not None
    item.points[2, 3] = 0
    make_run(tmp_path / "run", [item])
    result = ttt3r("scale", "run", "--known", "0:3,2", "0:6,4", "1")
    assert result.status == 2 and "nothing is known at 3,2 of frame 0" in result.err


def test_an_aligned_run_is_not_scaled(run: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    Path("poses.tum").write_text("".join(f"{k / 10} {k} {3 * (k % 2)} {k % 3}\n" for k in range(6)))
    assert ttt3r("align", run, "poses.tum").status == 0
    result = ttt3r("scale", run, "2")
    assert result.status == 2 and "is aligned to poses.tum, which says its lengths" in result.err
    assert ttt3r("align", run, "--undo").status == 0 and ttt3r("scale", run, "2").status == 0


def test_info_says_what_scale_a_run_has(shared: Path, tmp_path: Path, ttt3r: Ttt3r) -> None:  # noqa: F811
    run = copytree(shared / "run", tmp_path / "run")

    def said() -> tuple[str, dict]:
        lines = ttt3r("info", run).out.splitlines()
        (line,) = [line for line in lines if line.startswith("scale ")]
        return line.removeprefix("scale").strip(), json.loads(ttt3r("info", run, "--json").out)

    text, facts = said()
    assert text == "unknown" and facts["scale"] == {"metric": False, "from": "unknown"}
    length = facts["trajectory_length"]
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["model"]["metric"] = True
    (run / "manifest.json").write_text(json.dumps(manifest))
    text, facts = said()
    assert text == "metric by the weights"
    assert facts["scale"] == {"metric": True, "from": "metric by the weights"}
    assert ttt3r("scale", run, "2").status == 0
    text, facts = said()
    assert text == "measured: lengths times 2" and facts["scale"]["metric"] is True
    assert facts["trajectory_length"] == pytest.approx(2 * length, rel=1e-5)
    n = facts["frames"]
    random = np.random.default_rng(0).normal(size=(n, 3))
    stamps = [p.timestamp for p in Run.open(run)]
    rows = [f"{t} {x} {y} {z}\n" for t, (x, y, z) in zip(stamps, random, strict=True)]
    Path("poses.tum").write_text("".join(rows))
    assert ttt3r("align", run, "poses.tum").status == 0
    text, facts = said()
    assert text.startswith("aligned to poses.tum: 12 of 12") and facts["scale"]["metric"] is True


def test_a_place_is_read() -> None:
    assert Place.parse("12:310,205.5") == Place(12, 310, 205.5)
    for text in ("12", "12:3", "a:1,2", "1:2,3,4", ""):
        with pytest.raises(SettingError, match="FRAME:X,Y"):
            Place.parse(text)
