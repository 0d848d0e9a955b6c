"""What a trace says in numbers, words and pictures; and the command that says it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import TINY, Ttt3r, make_clip, ttt3r  # noqa: F401 (a fixture)
from ttt3r.runs.reader import TRACE, Run
from ttt3r.summary.canvas import EMPTY, WIDTH
from ttt3r.summary.charts import COLOURS, Line, chart, colours_of, legend, paths
from ttt3r.summary.diagnosis import draw_trace
from ttt3r.trace import report
from ttt3r.trace.health import worst
from ttt3r.trace.series import PLACES, SERIES, VALUES, RowMaker
from ttt3r.trace.sketch import Sketch
from ttt3r.trace.trace import Trace


def made(count: int, most: int = 256) -> Trace:
    """A trace whose first half is in-domain, and its last quarter lost."""
    sketch = Sketch(most=most)
    for frame in range(count):
        row = RowMaker()
        share = frame / count
        row.put("health", (share >= 0.5) + (share >= 0.75))
        row.put("translation", share)
        row.put_tokens("gate", np.linspace(0, share, 40))
        row.put_tokens("horizon", np.linspace(1, 1 + frame, 40))
        sketch = sketch.add(row.row)
    return replace(Trace(), sketch=sketch)


def test_every_value_has_a_place():
    places = [index for place in PLACES.values() for index in range(VALUES)[place]]
    assert places == list(range(VALUES)) and PLACES.keys() == SERIES.keys()


def test_fewer_tokens_than_rows_fill_the_first():
    row = RowMaker()
    row.put_tokens("gate", np.array([0.1, 0.5]))
    found = row.row.mean[PLACES["token_gate"]]
    assert found[:2].tolist() == [0.1, 0.5] and np.isnan(found[2:]).all()
    assert row.row.least[PLACES["gate"]].tolist() == [0.1]


@pytest.mark.parametrize("most", [256, 8])
def test_shares(most: int):
    found = report.shares(made(64, most))
    assert found == pytest.approx({"in-domain": 0.5, "drifting": 0.25, "lost": 0.25})
    assert report.verdict(made(64))[0] == "lost"
    assert report.verdict(Trace(made(1).sketch))[0] == "in-domain"
    assert report.shares(Trace()) is None and report.verdict(Trace())[0] is None


def test_what_a_run_is_called():
    assert worst([0.95, 0.05, 0.0]) == "in-domain"
    assert worst([0.8, 0.2, 0.0]) == worst([0.88, 0.06, 0.06]) == "drifting"
    assert worst([0.0, 0.8, 0.2]) == "lost"


def test_the_table_and_json():
    trace = made(64)
    table = report.rows(trace, "m")
    step = next(row for row in table if row[0] == "camera, step (m)")
    assert step[1:] == ("0.1172", "0.3672", "0.6172", "0.8672", "0", "0.9844")
    said = json.loads(json.dumps(report.to_dict(trace)))
    assert said["health"] == "lost" and said["first_frames"] == list(range(64))
    assert said["series"]["translation"]["mean"][32] == 0.5
    assert len(said["series"]["token_gate"]["mean"][0]) == 32
    assert "confidence" not in said["series"]


def test_the_picture():
    picture = np.asarray(draw_trace(made(64), "name", "verdict", "m"))
    assert picture.shape[1] == WIDTH
    assert (picture == COLOURS[0]).all(-1).sum() > 300  # the lines
    assert (draw_trace(made(1), "name", "verdict", "m").height) > 300


def test_charts_break_where_nothing_is_known():
    at = np.arange(40.0)
    values = np.where((at > 10) & (at < 30), np.nan, 1.0)
    whole = np.asarray(
        chart("x", at, {"a": Line(values, values - 1, values + 1)}, 500, 200, ("", "")).image
    )
    columns = (whole == colours_of(["a"])["a"]).all(-1).any(0)
    assert columns[76:170].mean() > 0.9 and not columns[210:360].any()
    nothing = chart("x", at, {"a": Line(at * np.nan)}, 500, 200, ("", ""))
    assert (np.asarray(nothing.image) == EMPTY).all(-1).mean() > 0.3


def test_paths_keep_one_scale():
    circle = np.linspace(0, 2 * np.pi, 60)
    path = np.stack([np.cos(circle), 0 * circle, np.sin(circle)], 1)
    drawn = np.asarray(paths("x", {"truth": 2 * path, "a": path}, 600, 400).image)
    inside = (drawn == COLOURS[0]).all(-1)
    wide, high = (np.ptp(np.flatnonzero(inside.any(axis))) for axis in (0, 1))
    assert abs(int(wide) - int(high)) <= 4  # lines are two pixels wide
    assert legend(["a" * 30] * 9, 400).image.height > legend(["a"], 400).image.height


def test_the_command(ttt3r: Ttt3r, tmp_path: Path):  # noqa: F811
    clip = make_clip(tmp_path / "walk.mp4", 5)
    for out, more in (("a", ["--trace"]), ("b", [])):
        assert ttt3r("run", clip, *TINY, "--quiet", "--out", out, *more).status == 0
    traced = ttt3r("inspect", "a", "--png", "a.png")
    assert traced.status == 0 and traced.out.startswith("5 frames; health: ")
    assert "state, change per frame" in traced.out and "effective horizon at the end" in traced.out
    with Image.open("a.png") as picture:
        assert picture.width == WIDTH
    plain = ttt3r("inspect", "b")
    assert "made without --trace" in plain.out and "state, change" not in plain.out
    one, other = (json.loads(ttt3r("inspect", run, "--json").out) for run in "ab")
    assert one["traced"] and not other["traced"]
    # Frames on disk are float16, which moves points across the limit of 10 % now and then.
    assert one["series"]["gate"] == other["series"]["gate"]
    assert one["series"]["translation"] == other["series"]["translation"]
    (Run.open("a").folder / TRACE).write_bytes(b"nothing")
    broken = ttt3r("inspect", "a")
    assert broken.status == 2 and "missing or damaged" in broken.err
    assert torch.isfinite(Run.open("b")[1].gate).all()
