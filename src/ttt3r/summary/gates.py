"""How far the update rule moved each state token, over time, and where segments were joined."""

import itertools

import numpy as np
from PIL import Image, ImageDraw

from ttt3r.drawing.colours import Range, paint
from ttt3r.summary.canvas import (
    EMPTY,
    INK,
    INNER,
    LABEL,
    PAPER,
    QUIET,
    SMALL,
    Panel,
    moment_text,
    scale_bar,
    width_of,
    write,
)
from ttt3r.summary.samples import Moment, Samples
from ttt3r.summary.views import JOIN

HEAD, FOOT = 42, 26
HEIGHT = 192  # pixels of the map
BAND = 14  # pixels of the band of segments
MOST_NUMBERS = 40  # of segments that are written on the band
TINTS = ((203, 213, 225), (226, 232, 240))  # of segments, in turn


def gates(samples: Samples) -> Panel:
    """Time goes to the right, tokens go down; below it a band of the segments."""
    moments = list(samples.moments)
    rows = max((len(m.gate) for m in moments if m.gate is not None), default=0)
    height = HEAD + (HEIGHT if rows else 0) + BAND + FOOT
    panel = Panel(Image.new("RGB", (INNER, height), PAPER))
    draw = panel.draw()
    joins = [i for i in range(1, len(moments)) if moments[i].segment != moments[i - 1].segment]
    if rows:
        panel.image.paste(_map(moments, rows), (0, HEAD))
        scale_bar(panel, "ordered", Range(0.0, 1.0))
        title = "Gate (beta): frames to the right, state tokens down"
    else:
        title = "Segments (this run has no gate)"
    if joins:
        left = round(width_of(title, LABEL)) + 24
        draw.line((left, HEAD - 26, left, HEAD - 10), JOIN, 2)
        write(draw, (left + 8, HEAD - 12), _joined(len(joins)), SMALL, JOIN, "ls")
    write(draw, (0, HEAD - 12), title, LABEL, INK, "ls")
    column = INNER / len(moments)
    for index in joins:
        x = round(index * column)
        draw.line((x, HEAD - 4, x, height - FOOT), JOIN, 2 if len(joins) < 100 else 1)
    _band(draw, moments, [0, *joins, len(moments)], height - FOOT - BAND)
    _times(draw, moments, height - FOOT + 5)
    return panel


def _joined(count: int) -> str:
    return f"segments joined ({count:,} times)" if count > 1 else "segments joined"


def _map(moments: list[Moment], rows: int) -> Image.Image:
    """Columns of moments; light where a fresh state took the frame over whole."""
    values = np.full((rows, len(moments)), np.nan, np.float32)
    for column, moment in enumerate(moments):
        if moment.gate is not None:
            places = np.arange(rows) * len(moment.gate) // rows
            values[:, column] = moment.gate[places]
    colours = paint(values)
    colours[np.isnan(values)] = EMPTY
    sharp = len(moments) < INNER / 2
    way = Image.Resampling.NEAREST if sharp else Image.Resampling.BOX
    return Image.fromarray(colours).resize((INNER, HEIGHT), way)


def _band(draw: ImageDraw.ImageDraw, moments: list[Moment], edges: list[int], top: int) -> None:
    column = INNER / len(moments)
    for number, (first, end) in enumerate(itertools.pairwise(edges)):
        left, right = round(first * column), round(end * column)
        draw.rectangle((left, top, max(right - 1, left), top + BAND - 1), TINTS[number % 2])
        text = f"{moments[first].segment}"
        if right - left > 12 + 10 * len(text) and len(edges) < MOST_NUMBERS:
            write(draw, ((left + right) / 2, top + BAND / 2), text, BAND, QUIET, "mm")


def _times(draw: ImageDraw.ImageDraw, moments: list[Moment], top: int) -> None:
    """First, middle and last frame with their times."""
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        moment = moments[round(share * (len(moments) - 1))]
        text = moment_text(moment.index, moment.timestamp)
        if share in (0.0, 1.0) or len(moments) > 2:
            write(draw, (share * INNER, top), text, SMALL, QUIET, anchor)
