import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.evaluations import evaluation, pair
from tests.evaluation.trajectories import random_trajectory
from ttt3r.errors import InputError, MissingExtraError, SettingError
from ttt3r.evaluation.reports.figures import (
    DepthMap,
    _blocks,
    plot_clouds,
    plot_depth_errors,
    plot_lengths,
    plot_trajectories,
)

pytest.importorskip("matplotlib")


def opened(path):
    """A figure [height, width, 3] of sensible size, on which something is drawn."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    assert 1000 < width < 2500 and 300 < height < 2500
    assert pixels.std() > 5.0
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary is left
    return pixels


def count_colour(pixels, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(-1) <= 2).sum())


def has_colour(pixels, colour):
    return count_colour(pixels, colour) > 20


def depth_map(rng, frame=0, known=0.9, height=24, width=32):
    truth = rng.uniform(1.0, 5.0, (height, width)).astype(np.float32)
    prediction = truth * rng.uniform(0.9, 1.1, truth.shape).astype(np.float32)
    truth[rng.uniform(size=truth.shape) > known] = 0.0
    image = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)
    return DepthMap(frame, image, truth, prediction)


# Error against length


def test_lengths(tmp_path):
    path = tmp_path / "new" / "lengths.png"
    plot_lengths(pair(), path)
    pixels = opened(path)
    assert has_colour(pixels, "#0072b2") and has_colour(pixels, "#d55e00")
    assert not has_colour(pixels, "#009e73")


def test_lengths_of_many_sequences_on_a_logarithmic_axis(tmp_path):
    names = tuple(f"scene{i}" for i in range(30))
    values = {n: [0.01 * i + 0.1, 0.02 * i + 0.2] for i, n in enumerate(names)}
    values["scene3"][1] = "failed: NaN"
    found = evaluation(values, lengths=(50, 1000))
    plot_lengths([found], tmp_path / "a.png")
    assert has_colour(opened(tmp_path / "a.png"), "#0072b2")


@pytest.mark.parametrize("values", [{}, {"a_00": ["failed: NaN", "dropped: no truth"]}])
def test_lengths_without_any_score(tmp_path, values):
    plot_lengths([evaluation(values, lengths=(90, None))], tmp_path / "a.png")
    opened(tmp_path / "a.png")


@pytest.mark.parametrize("count", [3, 30])
def test_a_single_length(tmp_path, count):
    values = {f"s{i}": [0.1 + 0.01 * i] for i in range(count)}
    plot_lengths([evaluation(values)], tmp_path / "a.png")
    opened(tmp_path / "a.png")


def test_published_points_are_drawn_where_comparable(tmp_path):
    values = {"a_00": [0.1], "b_00": [0.2], "c_00": [0.1]}
    grey = []
    for complete in (True, False):
        folder = tmp_path / str(complete)
        plot_lengths([evaluation(values, complete=complete)], folder / "a.png")
        grey.append(count_colour(opened(folder / "a.png"), "#888888"))
    assert grey[0] > grey[1] + 200  # other methods are grey, edges of letters may be too


def test_lengths_of_what_cannot_stand_side_by_side(tmp_path):
    first, second = pair()
    other = replace(second, settings=replace(second.settings, size=224))
    with pytest.raises(SettingError, match="differ in size"):
        plot_lengths([first, other], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# Trajectories


def test_trajectories_with_gaps_and_failures(tmp_path):
    truth = random_trajectory(1, 40)
    truth[10:14] = np.nan
    broken = random_trajectory(2, 40)
    broken[5, 0, 3] = np.nan
    estimates = {"$overwrite_": random_trajectory(1, 40), "broken": broken}
    plot_trajectories(truth, estimates, tmp_path / "a.png", "walking_xyz, $5")
    pixels = opened(tmp_path / "a.png")
    assert has_colour(pixels, "#0072b2") and has_colour(pixels, "#222222")


def test_trajectories_are_aligned_before_they_are_drawn(tmp_path):
    """Errors are real here: axes of rounding alone have labels, and so places, of any width."""
    truth, near = random_trajectory(1, 40), random_trajectory(1, 40)
    near[:, :3, 3] += 0.1 * np.random.default_rng(2).standard_normal((40, 3))
    moved = near.copy()
    moved[:, :3, 3] = 100.0 + 7.0 * moved[:, :3, 3]
    pictures = []
    for name, estimate in (("near", near), ("moved", moved)):
        plot_trajectories(truth, {"e": estimate}, tmp_path / name / "a.png", "t")
        pictures.append(opened(tmp_path / name / "a.png"))
    different = (pictures[0] != pictures[1]).any(-1).mean()
    assert different < 1e-3  # rounding may move a line over the edge of a few pixels


@pytest.mark.parametrize("known", [0, 2])
def test_no_trajectory_can_be_aligned(tmp_path, known):
    truth = random_trajectory(1, 10)
    truth[known:] = np.nan
    with pytest.raises(InputError, match="no estimate of t can be aligned"):
        plot_trajectories(truth, {"e": random_trajectory(1, 10)}, tmp_path / "a.png", "t")
    with pytest.raises(InputError, match="nothing"):
        plot_trajectories(random_trajectory(1, 10), {}, tmp_path / "a.png", "t")


# Depth


@pytest.mark.parametrize("count", [1, 3])
def test_depth_errors(tmp_path, count):
    rng = np.random.default_rng(0)
    plot_depth_errors([depth_map(rng, i) for i in range(count)], tmp_path / "a.png", "x_$1")
    assert has_colour(opened(tmp_path / "a.png"), "#bdbdbd")  # what is unknown


def test_depth_over_a_wide_range_with_bad_predictions(tmp_path):
    entry = depth_map(np.random.default_rng(0), known=0.1, height=300, width=1000)
    entry.truth[:, :300] *= 20.0
    entry.prediction[::2] = np.nan
    plot_depth_errors([entry], tmp_path / "a.png", "kitti")
    entry.prediction[:] = np.inf
    plot_depth_errors([entry], tmp_path / "a.png", "kitti")
    opened(tmp_path / "a.png")


def test_constant_depth(tmp_path):
    entry = depth_map(np.random.default_rng(0))
    entry.truth[:] = 2.0
    entry.prediction[:] = 2.0
    plot_depth_errors([entry], tmp_path / "a.png", "wall")
    opened(tmp_path / "a.png")


def test_no_depth(tmp_path):
    with pytest.raises(InputError, match="no true depth of x"):
        plot_depth_errors([], tmp_path / "a.png", "x")
    with pytest.raises(InputError, match="no true depth of x"):
        entry = depth_map(np.random.default_rng(0), known=-1.0)
        plot_depth_errors([entry], tmp_path / "a.png", "x")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_blocks_are_means_of_what_is_known(step):
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(7, 5))
    values[rng.uniform(size=values.shape) < 0.5] = np.nan
    values[:step, :step] = np.nan
    found = _blocks(values, step)
    assert found.shape == (-(-7 // step), -(-5 // step))
    for row, column in np.ndindex(*found.shape):
        block = values[row * step : (row + 1) * step, column * step : (column + 1) * step]
        known = block[~np.isnan(block)]
        if len(known):
            assert found[row, column] == pytest.approx(known.mean())
        else:
            assert np.isnan(found[row, column])


# Clouds


def test_clouds(tmp_path):
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1.0, 1.0, (500, 3)).astype(np.float32)
    prediction = truth[:400] + rng.normal(0.0, 0.05, (400, 3)).astype(np.float32)
    plot_clouds(prediction, truth, tmp_path / "a.png", "chess/seq-03")
    opened(tmp_path / "a.png")


def test_clouds_of_single_equal_points(tmp_path):
    pytest.importorskip("scipy")
    plot_clouds(np.zeros((1, 3)), np.zeros((1, 3)), tmp_path / "a.png", "one")
    opened(tmp_path / "a.png")


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.full((4, 3), np.nan)])
def test_clouds_of_nothing(tmp_path, bad):
    good = np.zeros((4, 3))
    with pytest.raises(InputError, match="the predicted cloud of x"):
        plot_clouds(bad, good, tmp_path / "a.png", "x")
    with pytest.raises(InputError, match="the true cloud of x"):
        plot_clouds(good, bad, tmp_path / "a.png", "x")


# What they share


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"ttt3r\[eval\]"):
        plot_lengths(pair(), tmp_path / "a.png")


def test_settings_of_the_user_neither_enter_nor_change(tmp_path):
    import matplotlib

    plot_lengths(pair(), tmp_path / "plain" / "a.png")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30.0}):
        plot_lengths(pair(), tmp_path / "odd" / "a.png")
        assert matplotlib.rcParams["font.size"] == 30.0
    plain, odd = (opened(tmp_path / name / "a.png") for name in ("plain", "odd"))
    np.testing.assert_array_equal(plain, odd)
