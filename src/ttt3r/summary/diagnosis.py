"""The picture of a trace: gate and horizon of the tokens, and charts of all else over time."""

import numpy as np
from PIL import Image

from ttt3r.drawing.colours import Range, paint, robust_range
from ttt3r.summary.canvas import (
    EMPTY,
    INK,
    INNER,
    LABEL,
    PAPER,
    QUIET,
    SMALL,
    TITLE,
    Panel,
    scale_bar,
    shortened,
    write,
)
from ttt3r.summary.charts import FOOT, LEFT, Line, chart
from ttt3r.summary.comparison import stacked
from ttt3r.trace.series import SERIES
from ttt3r.trace.sketch import means
from ttt3r.trace.trace import Trace

HEAD = 44
MAP, CHART = 176, 190  # pixels of the heights of a map's content, and of a chart
MAPS = ("token_gate", "token_horizon")
CHARTS = (
    "health",
    "agreement",
    "confidence",
    "state_step",
    "state_drift",
    "pose_memory_step",
    "pose_memory_drift",
    "state_bytes",
    "translation",
    "rotation",
    "segment",
)


def draw_trace(trace: Trace, title: str, verdict: str, unit: str) -> Image.Image:
    """Draw a trace, 1600 pixels wide: all that it knows of the stream, over time.

    Args:
        trace: with at least one frame.
        title: name of the run.
        verdict: what its health is, in a line.
        unit: of lengths.
    """
    panels = [_head(title, verdict)]
    panels += [_map(trace, name) for name in MAPS if trace.known(name)]
    shown = [name for name in CHARTS if trace.known(name) and _changes(trace, name)]
    half = (INNER - 32) // 2
    charts = [_chart(trace, name, unit, half) for name in shown]
    for left, right in zip(charts[::2], [*charts[1::2], None], strict=False):
        row = Panel(Image.new("RGB", (INNER, CHART), PAPER))
        row.image.paste(left.image, (0, 0))
        if right is not None:
            row.image.paste(right.image, (INNER - half, 0))
        panels.append(row)
    return stacked(panels)


def _head(title: str, verdict: str) -> Panel:
    panel = Panel(Image.new("RGB", (INNER, 66), PAPER))
    write(panel.draw(), (0, 0), shortened(title, TITLE, INNER), TITLE)
    write(panel.draw(), (0, 42), shortened(verdict, SMALL + 2, INNER), SMALL + 2, QUIET)
    return panel


def _ends(trace: Trace) -> tuple[str, str]:
    return "frame 0", f"frame {trace.frames - 1:,}"


def _chart(trace: Trace, name: str, unit: str, width: int) -> Panel:
    column, series = trace.column(name), SERIES[name]
    known = unit if series.unit == "length" else series.unit
    line = Line(means(column)[:, 0], column.least[:, 0], column.most[:, 0])
    text = f"{series.title} ({known})" if known else series.title
    at = np.array(trace.sketch.firsts, np.float64)
    return chart(text, at, {name: line}, width, CHART, _ends(trace))


def _map(trace: Trace, name: str) -> Panel:
    """Time goes to the right, groups of tokens go down."""
    values = means(trace.column(name)).T
    values = values[np.isfinite(values).any(axis=1)]
    gate = name == "token_gate"
    shown = Range(0.0, 1.0) if gate else robust_range(values, logarithmic=True)
    colours = paint(shown.share(values))
    colours[~np.isfinite(values)] = EMPTY
    panel = Panel(Image.new("RGB", (INNER, HEAD + MAP + FOOT), PAPER))
    size = (INNER - LEFT, MAP)
    picture = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    panel.image.paste(picture, (LEFT, HEAD))
    draw = panel.draw()
    what = SERIES[name].title[:1].upper() + SERIES[name].title[1:]
    write(draw, (0, HEAD - 14), f"{what}: state tokens down", LABEL, INK, "ls")
    scale_bar(panel, "ordered", shown, "" if gate else SERIES[name].unit)
    ends = _ends(trace)
    write(draw, (LEFT, HEAD + MAP + 5), ends[0], SMALL, QUIET)
    write(draw, (INNER - 1, HEAD + MAP + 5), ends[1], SMALL, QUIET, "ra")
    return panel


def _changes(trace: Trace, name: str) -> bool:
    """Whether there is something to see: the number of the segment may be 0 throughout."""
    column = trace.column(name)
    return name not in ("segment", "state_bytes") or bool(
        np.nanmin(column.least) < np.nanmax(column.most)
    )
