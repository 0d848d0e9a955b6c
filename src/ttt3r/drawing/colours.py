"""Colours of maps: what a depth, a confidence or a gate looks like.

Two palettes, made here from paths through OKLCH (Björn Ottosson, "A perceptual color space for
image processing", 2020): in `ordered` lightness rises steadily, so it also reads in grey;
`rainbow` goes from blue over green to red and shows small differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from ttt3r.errors import SettingError

STEPS = 256
SMOOTHED = 16  # steps to each side
NOTHING = (40, 40, 40)  # the colour of what is not known
MOST_SAMPLES = 100_000  # of which a range is taken
SHOWN = (2.0, 98.0)  # percentiles at which a range begins and ends

# Lightness in [0, 1], chroma, hue in degrees, at even steps. A chroma that a screen cannot show is
# lowered.
_PATHS: dict[str, list[tuple[float, float, float]]] = {
    "ordered": [
        (0.28, 0.14, 312),
        (0.40, 0.13, 280),
        (0.52, 0.10, 230),
        (0.64, 0.11, 175),
        (0.77, 0.17, 145),
        (0.92, 0.18, 105),
    ],
    "rainbow": [
        (0.32, 0.12, 290),
        (0.54, 0.17, 262),
        (0.74, 0.13, 205),
        (0.83, 0.16, 150),
        (0.88, 0.17, 108),
        (0.74, 0.17, 62),
        (0.55, 0.19, 34),
        (0.36, 0.14, 25),
    ],
}
PALETTES = tuple(_PATHS)


@cache
def palette(name: str) -> UInt8[np.ndarray, "256 3"]:
    """The colours of a palette, sRGB, from its low end to its high end.

    Args:
        name: one of `PALETTES`.

    Raises:
        SettingError: if there is no such palette.
    """
    if name not in _PATHS:
        raise SettingError(f"unknown palette {name!r}; choose one of: {', '.join(PALETTES)}")
    knots = np.array(_PATHS[name])
    knots[:, 2] = np.degrees(np.unwrap(np.radians(knots[:, 2])))
    at = np.linspace(0, len(knots) - 1, STEPS)
    lightness, chroma, hue = (np.interp(at, range(len(knots)), column) for column in knots.T)
    table = _displayable(lightness, chroma, np.radians(hue))
    table.flags.writeable = False  # the cache hands out this very array
    return table


def paint(
    share: Float[np.ndarray, "*shape"], palette_name: str = "ordered"
) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour numbers in [0, 1]; what lies outside takes the nearest end, NaN the colour `NOTHING`.

    Raises:
        SettingError: if there is no such palette.
    """
    known = ~np.isnan(share)
    steps = np.where(known, share, 0.0).clip(0, 1) * (STEPS - 1)
    colours = palette(palette_name)[steps.round().astype(np.uint8)]
    colours[~known] = NOTHING
    return colours


@dataclass(frozen=True)
class Range:
    """Which values the ends of a palette stand for.

    Attributes:
        low: value at the low end.
        high: value at the high end, above `low`.
        logarithmic: equal ratios, not equal differences, take equal parts of the palette; then
            both ends are above 0.
    """

    low: float
    high: float
    logarithmic: bool = False

    def share(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Where values lie between the ends: 0 at `low`, 1 at `high`; NaN of what has no place."""
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.log(values) if self.logarithmic else values
        low, high = np.log([self.low, self.high]) if self.logarithmic else (self.low, self.high)
        result = (moved - low) / (high - low)
        return np.where(np.isfinite(values) & np.isfinite(result), result, np.nan)

    def value(self, share: float) -> float:
        """The value at a place between the ends; the inverse of `share`."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + (self.high - self.low) * share


def robust_range(
    maps: Sequence[Float[np.ndarray, "..."]] | Float[np.ndarray, "..."],
    *,
    logarithmic: bool = False,
    percentiles: tuple[float, float] = SHOWN,
) -> Range:
    """The range in which most values lie, so that few far ones do not decide on the colours.

    Args:
        maps: one or several arrays; what is not finite does not count, nor what is not above 0 if
            the range is logarithmic. Large ones are sampled at even steps.
        logarithmic: see `Range`.
        percentiles: where the range begins and ends.

    Returns:
        A range that is never empty; (1, 2) if there is no value at all.
    """
    arrays = [maps] if isinstance(maps, np.ndarray) else maps
    each = MOST_SAMPLES // max(len(arrays), 1) + 1
    samples = [_some(array.ravel(), each) for array in arrays]
    values = np.concatenate([*samples, np.empty(0)]).astype(np.float64)
    values = values[np.isfinite(values) & ((values > 0) | (not logarithmic))]
    if len(values) == 0:
        return Range(1.0, 2.0, logarithmic)
    low, high = (float(end) for end in np.percentile(values, percentiles))
    least = max(abs(low), 1e-6) * 1e-3  # a flat map still has two ends
    return Range(low, max(high, low + least), logarithmic)


def depth_colours(
    depth: Float[np.ndarray, "*shape"], shown: Range | None = None
) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour a depth: near is red, far is blue; `NOTHING` where it is not finite or not above 0.

    Args:
        depth: along the optical axis, in any unit.
        shown: nearest and farthest depth to tell apart; by default, where most of this map lies.
    """
    shown = shown or robust_range(depth, logarithmic=True)
    share = shown.share(np.where(depth > 0, depth, np.nan))
    return paint(1 - share, "rainbow")


def confidence_colours(
    confidence: Float[np.ndarray, "*shape"], shown: Range | None = None
) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour a confidence: dark is low, yellow is high; `NOTHING` where it is not finite.

    Args:
        confidence: at least 1.
        shown: the values at the ends; by default, where most of this map lies.
    """
    return paint((shown or robust_range(confidence, logarithmic=True)).share(confidence), "ordered")


def _some(values: np.ndarray, count: int) -> np.ndarray:
    return values[:: max(len(values) // count, 1)]


def _displayable(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Colours as bytes; where a screen cannot show one, the most chroma that it can."""
    lowest, highest = np.zeros_like(chroma), chroma
    for _ in range(20):
        middle = (lowest + highest) / 2
        linear = _linear_rgb(_lab(lightness, middle, hue))
        fits = ((linear >= -1e-4) & (linear <= 1 + 1e-4)).all(axis=-1)
        lowest, highest = np.where(fits, middle, lowest), np.where(fits, highest, middle)
    linear = _linear_rgb(_smooth(_lab(lightness, lowest, hue))).clip(0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (curved * 255).round().astype(np.uint8)


def _smooth(lab: np.ndarray) -> np.ndarray:
    """A running mean, which takes the bends out of the path; the ends stay."""
    padded = np.pad(lab, ((SMOOTHED, SMOOTHED), (0, 0)), "reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * SMOOTHED + 1, axis=0)
    return windows.mean(axis=-1)


# Ottosson's matrices: from Lab to the cube roots of cone responses, and from these to linear sRGB.
_CONES_FROM_LAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_RGB_FROM_CONES = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _lab(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    return np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)


def _linear_rgb(lab: np.ndarray) -> np.ndarray:
    return (lab @ _CONES_FROM_LAB.T) ** 3 @ _RGB_FROM_CONES.T
