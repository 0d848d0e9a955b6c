"""The picture of a run: what it is drawn from, what is seen on it, and odd runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.exporters.test_exporters import make_run
from tests.viewer.room import walk
from ttt3r.errors import RunError
from ttt3r.runs.facts import Facts, facts_of
from ttt3r.summary import canvas, samples, views
from ttt3r.summary.picture import draw_summary, path_length, write_summary
from ttt3r.summary.samples import Samples, Thinned, pooled, read_samples
from ttt3r.types import Prediction


def collected(predictions: list[Prediction]) -> Samples:
    result = Samples()
    for prediction in predictions:
        result.add(prediction)
    return result


def share_of(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    return float((np.asarray(picture) == colour).all(axis=-1).mean())


def bare(index: int) -> Prediction:
    """A frame of a long run, without maps."""
    pose = torch.eye(4)
    pose[0, 3] = 0.01 * index
    gate = torch.full((8,), 0.5)
    return Prediction(
        index=index,
        timestamp=index / 30,
        segment=index // 1000,
        world_from_camera=pose,
        gate=gate,
    )


@pytest.mark.parametrize("length", [0, 1000])
@pytest.mark.parametrize("count", [1, 8, 9, 1000])
def test_thinned(count: int, length: int):
    thinned: Thinned[int] = Thinned(8, length and count)
    for index in range(count):
        thinned.offer(index, lambda index=index: index)
    kept = list(thinned)
    assert kept == list(range(0, count, thinned.stride))
    assert len(kept) <= 8 and (len(kept) > 4 or count <= 4)


def test_samples_of_a_long_run_are_bounded():
    long = collected([bare(index) for index in range(2500)])
    assert long.count == 2500 and long.last_timestamp == 2499 / 30
    assert len(long.frames) <= samples.MOST_FRAMES and len(long.moments) <= samples.MOST_MOMENTS
    assert path_length(long) == pytest.approx(24.96, abs=0.05)
    picture = draw_summary(long, Facts())
    assert picture.width == 1600 and 600 < picture.height < 2500
    assert share_of(picture, views.JOIN) > 0


def test_reading_gives_what_streaming_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(samples, "MOST_FRAMES", 4)
    monkeypatch.setattr(samples, "MOST_MOMENTS", 8)
    # A folder holds maps as float16, so these are rounded first.
    predictions = [
        p.map(lambda tensor: tensor.half().float() if tensor.ndim > 1 else tensor)
        for p in walk(21, segment=7)
    ]
    streamed = collected(predictions)
    read = read_samples(make_run(tmp_path / "run", predictions))
    assert (read.count, read.last_timestamp) == (21, 2.0)
    assert [s.index for s in read.frames] == [s.index for s in streamed.frames] == [0, 8, 16]
    for ours, theirs in zip(read.moments, streamed.moments, strict=True):
        assert (ours.index, ours.segment) == (theirs.index, theirs.segment)
        assert (ours.gate is None) == (theirs.gate is None)
    for ours, theirs in zip(read.frames, streamed.frames, strict=True):
        np.testing.assert_array_equal(ours.points, theirs.points)
        assert np.array_equal(ours.colours, theirs.colours)


def test_pooled():
    values = np.arange(10, dtype=np.float32)
    assert np.array_equal(pooled(values, 10), values)
    assert pooled(values, 5).tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert len(pooled(values, 3)) == 3


def test_the_picture_shows_the_run():
    predictions = list(walk(12, segment=4))
    picture = draw_summary(collected(predictions), Facts("walk", ("rule ttt3r",), unit="m"))
    assert picture.size[0] == 1600
    colours = np.asarray(picture).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
    assert len(np.unique(colours)) > 2000
    assert share_of(picture, canvas.PAPER) < 0.6
    joined = share_of(picture, views.JOIN)
    whole = views.views(collected(list(walk(12))), "m").image
    assert share_of(whole, views.JOIN) == 0 < joined


def test_points_are_drawn_where_they_are():
    """One red point, one metre ahead and half a metre to the right."""
    view = views.Frame(views.ABOVE, np.zeros(2), 100.0, (400, 300))
    assert view.pixels(np.array([0.5, 7.0, 1.0])).tolist() == [250, 50]
    side = views.Frame(views.SIDE, np.zeros(2), 100.0, (400, 300))
    assert side.pixels(np.array([7.0, 0.5, 1.0])).tolist() == [300, 200]


LOST = torch.full((4, 4), float("nan"))
ODD: dict[str, Callable[[Prediction], Prediction]] = {
    "no points": lambda p: replace(p, points=None, confidence=None),
    "no poses": lambda p: replace(p, world_from_camera=None),
    "no gate": lambda p: replace(p, gate=None),
    "nothing is placed": lambda p: replace(p, world_from_camera=LOST),
    "lost in between": lambda p: replace(p, world_from_camera=LOST) if p.index == 1 else p,
    "no images": lambda p: replace(p, image=None),
    "nothing finite": lambda p: replace(p, points=torch.full((48, 64, 3), float("nan"))),
    "still camera": lambda p: replace(p, world_from_camera=torch.eye(4)),
    "growing gate": lambda p: replace(p, gate=torch.rand(1 + 300 * p.index)),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_runs(change: Callable[[Prediction], Prediction]):
    picture = draw_summary(collected([change(p) for p in walk(3)]), Facts())
    assert picture.width == 1600 and 300 < picture.height < 2500


@pytest.mark.parametrize(("width", "height"), [(64, 48), (32, 96), (160, 32), (32, 32)])
def test_one_frame_of_any_shape(width: int, height: int):
    picture = draw_summary(collected(list(walk(1, width, height))), Facts())
    assert picture.width == 1600 and picture.height < 2500


def test_write(tmp_path: Path):
    run = make_run(tmp_path / "run", list(walk(2)))
    write_summary(run, tmp_path / "summary.png")
    with Image.open(tmp_path / "summary.png") as picture:
        assert picture.format == "PNG" and picture.width == 1600
    with pytest.raises(RunError, match="no frames yet"):
        write_summary(make_run(tmp_path / "empty", []), tmp_path / "empty.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run", "summary.png"]


def test_facts():
    model = {"name": "builtin", "trained": True, "metric": True}
    facts = facts_of("walk", {"model": model, "rule": "ttt3r", "status": "complete"})
    assert facts == Facts("walk", ("model builtin", "rule ttt3r"), "m")
    assert "not trained" in facts_of("walk", {"model": model | {"trained": False}}).warning
    assert "interrupted" in facts_of("walk", {"status": "interrupted"}).warning
    assert facts_of("walk", {}).unit == "units"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.234, "1.23"), (0.05, "0.0500"), (12345.6, "12,346"), (1e9, "1.0e+09")],
)
def test_numbers(value: float, text: str):
    assert canvas.number_text(value) == text


@pytest.mark.parametrize(
    ("length", "step"), [(4.0, 1.0), (7.9, 1.0), (8.0, 2.0), (1000.0, 200.0), (0.003, 0.0005)]
)
def test_steps_of_the_grid(length: float, step: float):
    assert canvas.round_step(length, 4) == pytest.approx(step)
