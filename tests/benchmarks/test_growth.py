"""Streams end at their budget, and the figure shows what was measured."""

import csv
import json
import math
import sys
from dataclasses import replace
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import growth
from benchmarks.growth import COLUMNS, follow, marks_to, measure, read_stream, render_stream
from benchmarks.growth_figure import round_ticks, spread_apart
from benchmarks.growth_networks import FAMILIES, WIDTHS
from ttt3r.models.base import State
from ttt3r.models.cut3r import Cut3r
from ttt3r.models.fast3r import Fast3r
from ttt3r.models.point3r import Point3r
from ttt3r.models.streamvggt import StreamVggt
from ttt3r.models.vggt import Vggt

NO_LIMIT = (math.inf, math.inf)


@pytest.fixture(scope="module")
def stream(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("growth") / "stream.rgb"
    render_stream(path, 12, WIDTHS["tiny"].sizes[16])
    return path


def test_the_stream_moves_and_is_read_back(stream):
    images = list(read_stream(stream, WIDTHS["tiny"].sizes[16]))
    assert len(images) == 12
    assert {image.shape for image in images} == {(32, 32, 3)}
    assert all((a != b).any() for a, b in pairwise(images))


def test_marks_end_with_the_stream():
    assert marks_to(1) == [1]
    assert marks_to(7) == [1, 2, 5, 7]
    assert marks_to(1000) == list(growth.MARKS)


@pytest.mark.parametrize("width", ["tiny", "small"])
def test_all_families_have_the_same_widths_and_tokens(width):
    configs = WIDTHS[width].configs
    recurrent = [configs[network] for network in (Cut3r, Point3r, Fast3r)]
    aggregated = [configs[network] for network in (StreamVggt, Vggt)]
    widths = {(c.encoder_dim, c.encoder_depth, c.decoder_dim, c.decoder_depth) for c in recurrent}
    widths |= {(c.dim, c.encoder_depth, c.dim, c.depth) for c in aggregated}
    assert len(widths) == 1
    sizes = WIDTHS[width].sizes
    assert len({(h // patch, w // patch) for patch, (h, w) in sizes.items()}) == 1
    assert all(side % patch == 0 for patch, size in sizes.items() for side in size)


@pytest.mark.parametrize("key", FAMILIES)
def test_every_family_runs_and_its_state_grows_as_it_should(key, stream):
    result = measure(key, "tiny", stream, 5, NO_LIMIT)
    rows = result["rows"]
    assert [row["frame"] for row in rows] == [1, 2, 5] and result["ended"] == "all 5 frames"
    assert all(row["seconds"] > 0.0 and row["peak_bytes"] > 0 for row in rows)
    assert all((row["pointers"] is not None) == (key == "point3r") for row in rows)
    first, _, last = (row["state_bytes"] for row in rows)
    if key in ("overwrite", "ttt3r"):
        assert last == first
    elif key == "point3r":
        assert first < last
        assert rows[0]["pointers"] == 4 and 4 < rows[2]["pointers"] <= 20
    else:  # beside the age, everything is per frame
        assert last - 8 == 5 * (first - 8)


def test_the_window_stops_growing(stream, monkeypatch):
    monkeypatch.setitem(FAMILIES, "window", replace(FAMILIES["window"], rule="window(2)"))
    rows = measure("window", "tiny", stream, 10, NO_LIMIT)["rows"]
    sizes = {row["frame"]: row["state_bytes"] for row in rows}
    assert sizes[1] < sizes[2] == sizes[5] == sizes[10]


def test_the_size_of_a_state_is_that_of_its_tensors():
    class Twin(State):
        def to_tensors(self):
            return {"a": torch.zeros(3, 4), "b.c": torch.zeros(5, dtype=torch.int64)}

    assert growth.state_bytes(Twin()) == 3 * 4 * 4 + 5 * 8


def scripted(monkeypatch, seconds):
    """Let each frame take the next of `seconds`; returns what `follow` pushes to."""
    now, steps = [0.0], iter(seconds)
    monkeypatch.setattr(growth, "clock", lambda device: now[0])

    def push(image):
        now[0] += next(steps)

    return push


def test_a_time_budget_ends_a_stream_at_the_frame_that_spends_it(monkeypatch):
    push = scripted(monkeypatch, [1.0] * 20)
    rows, end = follow(push, repeat(None, 20), 20, (7.0, math.inf), lambda: {})
    assert end == "stopped at frame 7: time budget"
    assert [row["frame"] for row in rows] == [1, 2, 5, 7]


def test_a_memory_budget_ends_a_stream(monkeypatch):
    peaks = iter([10, 20, 30, 40])
    monkeypatch.setattr(growth, "peak_memory", lambda: next(peaks))
    rows, end = follow(lambda image: None, repeat(None, 9), 9, (math.inf, 30), lambda: {})
    assert end == "stopped at frame 3: memory budget"
    assert rows[-1]["frame"] == 3


def test_a_budget_spent_by_the_last_frame_stops_nothing(monkeypatch):
    push = scripted(monkeypatch, [1.0] * 5)
    _, end = follow(push, repeat(None, 5), 5, (5.0, math.inf), lambda: {})
    assert end == "all 5 frames"


def test_times_are_medians_of_the_latest_frames_since_the_mark_before(monkeypatch):
    push = scripted(monkeypatch, [9.0, 2.0, 3.0, 4.0, 8.0, 1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 8.0])
    rows, _ = follow(push, repeat(None, 10), 10, NO_LIMIT, lambda: {})
    assert [row["seconds"] for row in rows] == [9.0, 2.0, 4.0, 1.0]


def test_a_short_stream_is_an_error():
    with pytest.raises(ValueError, match="3 frames, not 4"):
        follow(lambda image: None, repeat(None, 3), 4, NO_LIMIT, lambda: {})


def test_labels_keep_their_order_and_distance():
    moved = spread_apart([0.0, 0.01, 0.5, 0.98, 0.99, 1.0], 0.1)
    assert moved == sorted(moved) and moved[-1] == 1.0 and moved[0] == 0.0
    assert min(np.diff(moved)) > 0.1 - 1e-9
    assert spread_apart([0.2, 0.6], 0.1) == [0.2, 0.6]


def test_ticks_are_round_and_few():
    assert round_ticks(0.9, 12.0) == [1.0, 2.0, 5.0, 10.0]
    assert round_ticks(0.9, 1100.0) == [1.0, 10.0, 100.0, 1000.0]
    assert round_ticks(253.0, 331.0) == [253.0, 331.0]


def run_here(monkeypatch, *arguments):
    """Run the command with its workers in this process."""
    options = {}

    def here(module, words):
        options.update(zip(words[::2], words[1::2], strict=True))
        assert module == "growth"
        budgets = (float(options["--seconds"]), float(options["--memory"]) * 2.0**30)
        frames, path = int(options["--frames"]), Path(options["--stream"])
        result = measure(options["--worker"], options["--width"], path, frames, budgets)
        return json.loads(json.dumps(result))

    monkeypatch.setattr("benchmarks.machine.in_subprocess", here)
    monkeypatch.setattr(sys, "argv", ["growth", "--width", "tiny", *arguments])
    growth.main()


def test_the_command_writes_report_table_and_figure(monkeypatch, capsys, tmp_path):
    paths = {kind: tmp_path / "new" / f"growth.{kind}" for kind in ("csv", "png", "json")}
    run_here(
        monkeypatch, "--frames", "6", "--only", "ttt3r,point3r", "--csv", str(paths["csv"]),
        "--plot", str(paths["png"]), "--json", str(paths["json"]),
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "| CUT3R, ttt3r | all 6 frames |" in printed
    assert "python -m benchmarks.growth --width tiny --frames 6" in printed
    pointers = [line for line in printed.splitlines() if line.startswith("| Point3R, fuse | 4 |")]
    assert len(pointers) == 1

    with paths["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["family"], row["frame"]) for row in rows] == [
        (title, frame) for title in ("CUT3R, ttt3r", "Point3R, fuse") for frame in "1256"
    ]
    kept = json.loads(paths["json"].read_text())
    flat = [row for result in kept["results"] for row in result["rows"]]
    assert [int(row["state_bytes"]) for row in rows] == [row["state_bytes"] for row in flat]

    picture = np.asarray(Image.open(paths["png"]).convert("RGB"))
    assert picture.shape[1] > 2 * picture.shape[0]
    for panel in np.array_split(picture, 3, axis=1):
        for colour in ((0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73)):  # of the two families
            assert (panel == colour).all(-1).sum() > 100


def test_a_spent_budget_is_a_result(monkeypatch, capsys):
    run_here(monkeypatch, "--frames", "5", "--only", "vggt", "--seconds", "0")
    assert "| VGGT | stopped at frame 1: time budget |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [("--only", "ttt3r,dust3r"), ("--frames", "0"), ("--width", "huge")]
)
def test_wrong_arguments_are_named(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit):
        run_here(monkeypatch, *arguments)
    assert arguments[1].split(",")[-1] in capsys.readouterr().err
