"""Streams end at their budget or where memory does, with what was measured until then."""

import math
from dataclasses import replace
from itertools import pairwise, repeat
from pathlib import Path

import pytest
import torch

from benchmarks import growth, growth_networks
from benchmarks.growth import (
    follow,
    look_at,
    marks_to,
    measure,
    read_stream,
    render_stream,
)
from benchmarks.growth_networks import FAMILIES, WIDTHS
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.models.fast3r.network import Fast3r
from ttt3r.models.point3r.network import Point3r
from ttt3r.models.streamvggt.network import StreamVggt
from ttt3r.models.vggt.network import Vggt

NO_LIMIT = (math.inf, math.inf)
NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


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
    if key.endswith("once"):
        assert first is last is None
    elif key in ("overwrite", "ttt3r"):
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


def test_half_the_precision_takes_less(stream):
    whole, half = (
        measure("streamvggt", "tiny", stream, 2, NO_LIMIT, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert half["weights_bytes"] < whole["weights_bytes"]
    assert half["rows"][-1]["state_bytes"] < whole["rows"][-1]["state_bytes"]


def read_nothing():
    return {"peak_bytes": None}


def scripted(monkeypatch, seconds):
    """Let each frame take the next of `seconds`; returns what `follow` pushes to."""
    now, steps = [0.0], iter(seconds)
    monkeypatch.setattr(growth, "clock", lambda device: now[0])

    def push(image):
        now[0] += next(steps)

    return push


def test_a_time_budget_ends_a_stream_at_the_frame_that_spends_it(monkeypatch):
    push = scripted(monkeypatch, [1.0] * 20)
    rows, end = follow(push, repeat(None, 20), 20, (7.0, math.inf), read_nothing)
    assert end == "stopped at frame 7: time budget"
    assert [row["frame"] for row in rows] == [1, 2, 5, 7]


def test_a_memory_budget_ends_a_stream():
    peaks = iter([10, 20, 30, 40])
    rows, end = follow(
        lambda image: None, repeat(None, 9), 9, (math.inf, 30), lambda: {"peak_bytes": next(peaks)}
    )
    assert end == "stopped at frame 3: memory budget"
    assert [row["peak_bytes"] for row in rows] == [10, 20, 30]


def test_a_budget_spent_by_the_last_frame_stops_nothing(monkeypatch):
    push = scripted(monkeypatch, [1.0] * 5)
    _, end = follow(push, repeat(None, 5), 5, (5.0, math.inf), read_nothing)
    assert end == "all 5 frames"


def test_times_are_medians_of_the_latest_frames_since_the_mark_before(monkeypatch):
    push = scripted(monkeypatch, [9.0, 2.0, 3.0, 4.0, 8.0, 1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 8.0])
    rows, _ = follow(push, repeat(None, 10), 10, NO_LIMIT, read_nothing)
    assert [row["seconds"] for row in rows] == [9.0, 2.0, 4.0, 1.0]


@pytest.mark.parametrize(("frame", "marks"), [(1, []), (2, [1]), (3, [1, 2]), (5, [1, 2, 4])])
def test_the_end_of_memory_ends_a_stream_with_what_was_measured(frame, marks):
    taken = []

    def push(image):
        if len(taken) + 1 == frame:
            raise NO_ROOM
        taken.append(image)

    # The peak is read before the frame that fails, whose attempt would count.
    rows, end = follow(push, repeat(None, 5), 5, NO_LIMIT, lambda: {"peak_bytes": len(taken)})
    assert end == f"stopped at frame {frame}: out of memory"
    assert [(row["frame"], row["peak_bytes"]) for row in rows] == [(mark, mark) for mark in marks]


def test_other_errors_are_not_swallowed():
    def push(image):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        follow(push, repeat(None, 5), 5, NO_LIMIT, read_nothing)


def test_the_clock_waits_for_the_device(monkeypatch):
    asked, device = [], torch.device("cuda", 1)

    def clock(device):
        asked.append(device)
        return float(len(asked))

    monkeypatch.setattr(growth, "clock", clock)
    rows, _ = follow(lambda image: None, repeat(None, 2), 2, NO_LIMIT, read_nothing, device)
    assert asked == [device] * 4
    assert [row["seconds"] for row in rows] == [1.0, 1.0]


def test_weights_without_room_end_a_family_before_its_first_frame(monkeypatch, stream):
    def build(*_):
        raise NO_ROOM

    monkeypatch.setattr(growth_networks, "build", build)
    result = measure("vggt", "tiny", stream, 5, NO_LIMIT)
    assert (result["rows"], result["ended"]) == ([], "stopped at frame 1: out of memory")
    assert result["weights_bytes"] is None


def test_looks_take_in_ever_more_frames(monkeypatch):
    """Seconds per frame of each; the budget counts all looks."""
    push = scripted(monkeypatch, [1.0, 4.0, 20.0])
    seen = []

    def look(clip):
        push(clip)
        seen.append(clip)

    rows, end = look_at(look, lambda: iter(range(9)), 9, (25.0, math.inf), read_nothing)
    assert seen == [[0], [0, 1], [0, 1, 2, 3, 4]] and end == "stopped at frame 5: time budget"
    assert [(row["frame"], row["seconds"]) for row in rows] == [(1, 1.0), (2, 2.0), (5, 4.0)]
    push = scripted(monkeypatch, [1.0, 1.0])
    rows, end = look_at(look, lambda: iter(range(2)), 2, (0.5, math.inf), read_nothing)
    assert len(rows) == 1 and end == "stopped at frame 1: time budget"


def test_a_look_that_does_not_fit_is_the_end():
    def look(clip):
        if len(clip) > 2:
            raise NO_ROOM

    rows, end = look_at(look, lambda: iter(range(9)), 9, NO_LIMIT, read_nothing)
    assert [row["frame"] for row in rows] == [1, 2] and end == "stopped at frame 5: out of memory"

    def broken(clip):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        look_at(broken, lambda: iter(range(9)), 9, NO_LIMIT, read_nothing)


def test_a_short_stream_is_an_error():
    with pytest.raises(ValueError, match="3 frames, not 4"):
        follow(lambda image: None, repeat(None, 3), 4, NO_LIMIT, read_nothing)
