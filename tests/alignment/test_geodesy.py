"""The Earth's ellipsoid, against numbers that follow from its axes by hand."""

import numpy as np
import pytest

from ttt3r.alignment.geodesy import earth_centred, east_north_up

# Of WGS84: half axes, and from them the curvature of meridians at the equator b²/a and at the poles
# a²/b, and that of the circle across, a at the equator.
A, B = 6378137.0, 6356752.314245
DEGREE = np.pi / 180


def test_half_axes() -> None:
    fixes = np.array([[0.0, 0, 0], [0, 90, 0], [0, 180, 100], [90, 0, 0], [-90, 45, 10]])
    expected = [[A, 0, 0], [0, A, 0], [-A - 100, 0, 0], [0, 0, B], [0, 0, -B - 10]]
    np.testing.assert_allclose(earth_centred(fixes), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("latitude", "north", "east"),
    [
        (0.0, B * B / A * DEGREE, A * DEGREE),  # 110 574 m and 111 319 m
        (90.0, A * A / B * DEGREE, 0.0),  # 111 694 m
        # a cos φ / sqrt(1 - e² sin² φ) and a (1 - e²) / (1 - e² sin² φ)^1.5, e² = 1 - b²/a²
        (45.0, 111131.745, 78846.806),
    ],
)
def test_a_degree(latitude: float, north: float, east: float) -> None:
    origin = np.array([latitude, 10.0, 0.0])
    step = 1e-5  # so small that the Earth is flat: 1 m
    near = np.array([[latitude + step, 10.0, 0.0], [latitude, 10.0 + step, 0.0]])
    got = east_north_up(near, origin)
    assert got[0] == pytest.approx([0.0, north * step, 0.0], abs=1e-5)
    assert got[1] == pytest.approx([east * step, 0.0, 0.0], abs=1e-5)


def test_up_and_the_curve_of_the_earth() -> None:
    origin = np.array([47.0, 8.0, 400.0])
    got = east_north_up(np.array([[47.0, 8.0, 425.5], [47.0, 8.0, 400.0]]), origin)
    np.testing.assert_allclose(got, [[0, 0, 25.5], [0, 0, 0]], atol=1e-8)
    # 10 km away, the ground is d² / 2R = 7.8 m below the plane
    far = east_north_up(np.array([[47.09, 8.0, 400.0]]), origin)[0]
    assert far[1] == pytest.approx(10_007, abs=10) and far[2] == pytest.approx(-7.85, abs=0.05)
