"""The picture of several rules on one input: their paths, and their errors over time."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from PIL import Image

from ttt3r.summary.canvas import INNER, MARGIN, PAPER, WIDTH, Panel
from ttt3r.summary.charts import Line, chart, legend, paths

SPACE = 18
PATHS, ERRORS = 720, 320  # pixels of the panels' heights


def draw_comparison(
    positions: Mapping[str, Float[np.ndarray, "frames 3"]],
    stamps: Float[np.ndarray, " frames"],
    errors: Mapping[str, Float[np.ndarray, " frames"]],
    unit: str,
) -> Image.Image:
    """Draw rules on one input.

    Args:
        positions: of the camera under each rule, and "truth" if it is known.
        stamps: times of the frames, seconds.
        errors: distance from the truth for each frame; empty without a truth.
        unit: of lengths; "" if unknown.
    """
    title = f"Paths from above ({unit or 'unknown unit'})"
    panels = [
        legend(list(positions), INNER),
        paths(title, positions, INNER, PATHS),
    ]
    if errors:
        ends = f"{stamps[0]:.1f} s", f"{stamps[-1]:.1f} s"
        lines = {name: Line(values) for name, values in errors.items()}
        text = f"Distance from the true position after a similarity ({unit})"
        panels.append(chart(text, stamps, lines, INNER, ERRORS, ends))
    return stacked(panels)


def stacked(panels: list[Panel]) -> Image.Image:
    """Panels below each other on one sheet."""
    height = sum(panel.image.height + SPACE for panel in panels) + 2 * MARGIN - SPACE
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    top = MARGIN
    for panel in panels:
        picture.paste(panel.image, (MARGIN, top))
        top += panel.image.height + SPACE
    return picture
