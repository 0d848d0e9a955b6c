"""Colours of maps: palettes, ranges, and what is not known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt3r.drawing.colours import (
    NOTHING,
    PALETTES,
    Range,
    confidence_colours,
    depth_colours,
    paint,
    palette,
    robust_range,
)
from ttt3r.errors import SettingError

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", PALETTES)
def test_neighbours_differ_little(name: str):
    table = palette(name).astype(int)
    assert table.shape == (256, 3)
    assert np.abs(np.diff(table, axis=0)).max() <= 12  # no edges where there are none
    assert len(np.unique(table, axis=0)) > 200


def test_the_ordered_palette_gets_lighter():
    # Luminance of bytes, without the screen's curve: it rises by far more than one rounding.
    luminance = palette("ordered") @ LUMINANCE
    assert (np.diff(luminance[::4]) > 0).all() and luminance[-1] - luminance[0] > 150


def test_a_palette_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        palette("ordered")[0] = 0


def test_unknown_palette():
    with pytest.raises(SettingError, match=r"'jet'; choose one of: ordered, rainbow"):
        palette("jet")


def test_paint():
    values = np.array([[0.0, 1.0, np.nan], [-3.0, 7.0, 0.5]])
    colours = paint(values)
    table = palette("ordered")
    assert colours.dtype == np.uint8 and colours.shape == (2, 3, 3)
    assert (colours[0, 0] == table[0]).all() and (colours[0, 1] == table[255]).all()
    assert tuple(colours[0, 2]) == NOTHING
    assert (colours[1, 0] == table[0]).all() and (colours[1, 1] == table[255]).all()
    assert (colours[1, 2] == table[128]).all()


@given(st.floats(0.01, 10), st.floats(1.1, 100), st.booleans(), st.floats(0, 1))
def test_a_range_and_back(low: float, ratio: float, logarithmic: bool, share: float):
    shown = Range(low, low * ratio, logarithmic)
    # Float64 rounding of logarithms, divided by a logarithm of at least 0.1.
    back = shown.share(np.array([shown.value(share)]))[0]
    assert back == pytest.approx(share, abs=1e-12)


def test_few_far_values_do_not_decide():
    depth = np.linspace(1, 5, 1000)
    depth[:5] = 1e6, np.inf, np.nan, -4.0, 0.0
    shown = robust_range(depth, logarithmic=True)
    assert 1 < shown.low < 1.2 and 4.8 < shown.high < 5
    several = robust_range([depth[:500], depth[500:]], logarithmic=True)
    assert several == shown


@pytest.mark.parametrize("values", [np.empty(0), np.full(4, np.nan), np.full((3, 3), -1.0)])
def test_a_range_of_nothing(values: np.ndarray):
    assert robust_range(values, logarithmic=True) == Range(1.0, 2.0, True)


def test_a_flat_map_has_two_ends():
    shown = robust_range(np.full((4, 4), 3.0))
    assert shown.low == 3.0 < shown.high
    assert np.isfinite(shown.share(np.array([3.0]))).all()


def test_near_is_red_and_far_is_blue():
    colours = depth_colours(np.array([[1.0, 2.0, 4.0], [0.0, np.nan, np.inf]])).astype(int)
    near, _, far = colours[0]
    assert near[0] > near[2] + 50 and far[2] > far[0] + 30
    assert (colours[1] == NOTHING).all()


def test_confidence():
    colours = confidence_colours(np.array([1.0, 2.0, 9.0, np.nan], np.float32))
    assert colours[0].sum() < colours[2].sum() and tuple(colours[3]) == NOTHING
