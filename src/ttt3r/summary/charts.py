"""Charts of numbers over time, and of paths seen from above."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from ttt3r.summary.canvas import (
    EMPTY,
    GAP,
    INK,
    LABEL,
    LINE,
    PAPER,
    QUIET,
    SMALL,
    Colour,
    Number,
    Panel,
    number_text,
    round_step,
    shortened,
    write,
)

HEAD, FOOT, LEFT = 36, 26, 76
# Okabe and Ito's colours, which people with any kind of colour vision tell apart, and ink.
COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (120, 110, 60),
    (90, 60, 130),
)
BAND = 0.8  # how much lighter the band between least and most is
TRUTH = "truth"  # the name of the line that is drawn in ink


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        values: at each place; NaN where there is none, and the line is broken.
        least: lower end of its band, or None.
        most: upper end of its band, or None.
    """

    values: Float[np.ndarray, " places"]
    least: Float[np.ndarray, " places"] | None = None
    most: Float[np.ndarray, " places"] | None = None


def colours_of(names: list[str]) -> dict[str, Colour]:
    """A colour for each name; ink for the truth."""
    others = [name for name in names if name != TRUTH]
    found = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)}
    return {name: found.get(name, INK) for name in names}


def chart(
    title: str,
    at: Float[np.ndarray, " places"],
    lines: Mapping[str, Line],
    width: int,
    height: int,
    ends: tuple[str, str],
) -> Panel:
    """Draw lines over time.

    Args:
        title: what is drawn, with its unit.
        at: where each place lies, rising.
        lines: by name; the names are not written.
        width: pixels of all of it.
        height: pixels of all of it.
        ends: what is written below the first and the last place.
    """
    panel = Panel(Image.new("RGB", (width, height), PAPER))
    draw = panel.draw()
    write(draw, (0, HEAD - 12), shortened(title, LABEL, width), LABEL, INK, "ls")
    box = (LEFT, HEAD, width - 1, height - FOOT)
    draw.rectangle(box, EMPTY)
    low, high = _range([part for line in lines.values() for part in _parts(line)])
    x = _scaled(at, float(at[0]), float(at[-1]), box[0], box[2])
    _grid(draw, box, low, high)
    for name, colour in colours_of(list(lines)).items():
        line = lines[name]
        if line.least is not None and line.most is not None:
            least, most = (_scaled(p, low, high, box[3], box[1]) for p in (line.least, line.most))
            _band(draw, x, least, most, colour)
    for name, colour in colours_of(list(lines)).items():
        _stroke(draw, x, _scaled(lines[name].values, low, high, box[3], box[1]), colour)
    write(draw, (box[0], box[3] + 5), ends[0], SMALL, QUIET)
    write(draw, (box[2], box[3] + 5), ends[1], SMALL, QUIET, "ra")
    return panel


def paths(
    title: str, positions: Mapping[str, Float[np.ndarray, "frames 3"]], width: int, height: int
) -> Panel:
    """Draw paths from above: x to the right, z upwards, both in one scale."""
    panel = Panel(Image.new("RGB", (width, height), PAPER))
    draw = panel.draw()
    write(draw, (0, HEAD - 12), shortened(title, LABEL, width), LABEL, INK, "ls")
    box = (LEFT, HEAD, width - 1, height - FOOT)
    draw.rectangle(box, EMPTY)
    flat = {name: path[:, [0, 2]] for name, path in positions.items()}
    whole = np.concatenate([np.zeros((1, 2)), *flat.values()])
    whole = whole[np.isfinite(whole).all(1)]
    low, high = whole.min(0), whole.max(0)
    unit = max(float(((high - low) / (box[2] - box[0], box[3] - box[1])).max()) * 1.08, 1e-9)
    half = np.array([box[2] - box[0], box[3] - box[1]]) * unit / 2
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    _grid(draw, box, bottom, top)
    order = sorted(flat, key=lambda name: name != TRUTH)  # the truth below the others
    for name in order:
        across = _scaled(flat[name][:, 0], left, right, box[0], box[2])
        _stroke(
            draw,
            across,
            _scaled(flat[name][:, 1], bottom, top, box[3], box[1]),
            colours_of(list(flat))[name],
        )
    write(draw, (box[2], box[3] + 5), "x to the right, z upwards, one scale", SMALL, QUIET, "ra")
    return panel


def legend(names: list[str], width: int) -> Panel:
    """The names in their colours, in as many rows as they take."""
    places, x, y = [], 0.0, 0
    for name in names:
        wide = 34 + 9.5 * len(name) + 3 * GAP
        if x and x + wide > width:
            x, y = 0.0, y + 26
        places.append((name, x, y))
        x += wide
    panel = Panel(Image.new("RGB", (width, y + 26), PAPER))
    draw = panel.draw()
    for name, left, top in places:
        draw.line((left, top + 12, left + 24, top + 12), colours_of(names)[name], 4)
        write(draw, (left + 32, top + 12), name, SMALL, INK, "lm")
    return panel


def _parts(line: Line) -> list[np.ndarray]:
    return [part for part in (line.values, line.least, line.most) if part is not None]


def _range(parts: list[np.ndarray]) -> tuple[float, float]:
    """Least and most of all, with some room; 0 is shown if it is near."""
    values = np.concatenate([*parts, np.empty(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if 0 < low < high / 2:
        low = 0.0
    room = max(high - low, 1e-3 * abs(high), 1e-9) * 0.06
    return low - (room if low else 0.0), high + room


def _scaled(
    values: np.ndarray, low: Number, high: Number, first: Number, last: Number
) -> Float[np.ndarray, " n"]:
    span = high - low if high > low else 1.0
    return first + (values - low) / span * (last - first)


def _grid(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], low: Number, high: Number
) -> None:
    step = round_step(high - low, 3)
    for number in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1):
        y = box[3] + (number * step - low) / (high - low) * (box[1] - box[3])
        draw.line((box[0], y, box[2], y), LINE)
        write(draw, (box[0] - 6, y), number_text(number * step), SMALL, QUIET, "rm")


def _stroke(draw: ImageDraw.ImageDraw, x: np.ndarray, y: np.ndarray, colour: Colour) -> None:
    """A line that breaks where it is not known; a lonely place is a dot."""
    known = np.isfinite(x) & np.isfinite(y)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        points = list(zip(x[begin:end].tolist(), y[begin:end].tolist(), strict=True))
        if len(points) == 1:
            (left, top), size = points[0], 2
            draw.ellipse((left - size, top - size, left + size, top + size), colour)
        else:
            draw.line(points, colour, 2, joint="curve")


def _band(
    draw: ImageDraw.ImageDraw, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: Colour
) -> None:
    light = tuple(round(part + (255 - part) * BAND) for part in colour)
    known = np.isfinite(low) & np.isfinite(high)
    for index in np.flatnonzero(known[:-1] & known[1:]):
        here = [x[index], x[index + 1], x[index + 1], x[index]]
        corners = [low[index], low[index + 1], high[index + 1], high[index]]
        draw.polygon([(float(a), float(b)) for a, b in zip(here, corners, strict=True)], light)
