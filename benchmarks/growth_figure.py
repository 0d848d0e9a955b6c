"""Time, state and memory against the length of the stream, as a picture."""

import math
from pathlib import Path
from typing import Any

from benchmarks.growth_report import MIB, on_gpu
from ttt3r.evaluation.reports.figures import BLACK, COLOURS, new_figure

PANELS = (
    ("seconds", 1e-3, "time per frame (ms)"),
    ("state_bytes", MIB, "size of the state (MiB)"),
    ("peak_bytes", MIB, "peak memory of the process (MiB)"),
)
GPU_PANELS = (*PANELS[:2], ("peak_bytes", MIB, "peak GPU memory (MiB)"))
# Rules of one network share a colour and differ in dashes.
STYLES = {
    "overwrite": (COLOURS[0], "--"),
    "ttt3r": (COLOURS[0], "-"),
    "point3r": (COLOURS[2], "-"),
    "streamvggt": (COLOURS[1], "-"),
    "window": (COLOURS[1], "--"),
    "vggt": (COLOURS[3], "-"),
    "vggt_once": (COLOURS[3], "--"),
    "fast3r": (BLACK, "-"),
    "fast3r_once": (BLACK, "--"),
}
LEAST_GAP = 0.055  # between labels, as a part of the axis
LABEL_AT = 1.06  # of the axis
ROOM = 0.04  # above and below the lines, as a part of their range
MOST_TICKS = 7


def spread_apart(positions: list[float], gap: float) -> list[float]:
    """Move ascending positions up, or down from 1, until neighbours are a gap apart."""
    moved = list(positions)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    ceiling = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def round_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within a range, or the powers alone if too many.

    Where fewer than two lie within, the ends of the range are returned.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0, 2.0, 5.0), (1.0,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks if len(ticks) > 1 else [low, high]


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw three panels, one line for each family; a cross says that it was stopped.

    Args:
        results: as of `growth.measure`.
        path: PNG file to write.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    title = "What a stream costs as it gets longer (a cross: stopped by a budget or lack of memory)"
    panels = GPU_PANELS if on_gpu(results) else PANELS
    with new_figure(path, title, 15.0, 4.8) as figure:
        for axis, (key, unit, name) in zip(figure.subplots(1, 3), panels, strict=True):
            axis.set_title(name, loc="left")
            axis.set_xlabel("frame")
            lines = _draw_lines(axis, results, key, unit)
            if lines:
                _set_axes(axis, lines)
                _label(axis, lines)


def _draw_lines(
    axis: Any, results: list[dict[str, Any]], key: str, unit: float
) -> list[tuple[list[tuple[int, float]], str, str]]:
    """Draw what is known of each family; returns points, colour and title of each line."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    lines = []
    for result in results:
        points = [(row["frame"], row[key] / unit) for row in result["rows"] if row[key]]
        if not points:  # the system does not tell
            continue
        colour, dashes = STYLES[result["family"]]
        axis.plot(*zip(*points, strict=True), color=colour, linestyle=dashes, linewidth=1.8)
        stopped = result["ended"].startswith("stopped")
        axis.plot(*points[-1], color=colour, marker="X" if stopped else ".", markersize=8)
        lines.append((points, colour, result["title"]))
    return lines


def _set_axes(axis: Any, lines: list[tuple[list[tuple[int, float]], str, str]]) -> None:
    """Fit the axes to the lines, with round numbers written out."""
    values = [math.log10(y) for points, _, _ in lines for _, y in points]
    room = ROOM * (max(values) - min(values)) + 0.02
    low, high = 10.0 ** (min(values) - room), 10.0 ** (max(values) + room)
    last = max(points[-1][0] for points, _, _ in lines)
    axis.set_xlim(0.9, max(last, 2) * 1.1)
    axis.set_ylim(low, high)
    across, up = round_ticks(1.0, max(last, 2)), round_ticks(low, high)
    axis.set_xticks(across, list(map(_written, across)))
    axis.set_yticks(up, list(map(_written, up)))
    axis.minorticks_off()
    axis.grid()


def _written(tick: float) -> str:
    return f"{tick:.3g}" if tick < 1000.0 else f"{tick:,.0f}"


def _label(axis: Any, lines: list[tuple[list[tuple[int, float]], str, str]]) -> None:
    """Write each line's title beside the panel, joined to where the line ends."""
    low, high = map(math.log10, axis.get_ylim())
    lines = sorted(lines, key=lambda line: line[0][-1][1])
    ends = [(math.log10(points[-1][1]) - low) / (high - low) for points, _, _ in lines]
    for place, (points, colour, title) in zip(spread_apart(ends, LEAST_GAP), lines, strict=True):
        axis.annotate(
            title, points[-1], xytext=(LABEL_AT, place), textcoords="axes fraction",
            color=colour, fontsize=9.0, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.5},
        )  # fmt: skip
