"""What all figures have in common: fonts, colours, and how they are written."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ttt3r.errors import MissingExtraError
from ttt3r.files import write_atomically

# Distinct also to most colour-blind eyes (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BLACK, GREY, UNKNOWN = "#222222", "#888888", "#bdbdbd"
DOTS_PER_INCH = 160
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "normal",
    "figure.titlesize": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.usetex": False,
    "text.parse_math": False,  # names of sequences may contain dollar signs
}


@contextmanager
def new_figure(path: Path, title: str, width: float, height: float) -> Iterator[Any]:
    """Give an empty matplotlib figure, and write it once it is drawn.

    Args:
        path: PNG file to create or replace; folders are made.
        title: above everything.
        width: inches.
        height: inches.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "eval", "drawing figures") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # names in scripts that the font lacks become boxes
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            write_atomically(
                path,
                lambda temporary: figure.savefig(
                    temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None}
                ),
            )


def colour(index: int) -> str:
    """Return the colour of the index-th line."""
    return COLOURS[index % len(COLOURS)]


def round_up(value: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below a value > 0."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value))


def spread_labels(positions: Float[np.ndarray, " n"], least: float) -> list[int]:
    """Return which of ascending positions can be labelled without overlap, the last in any case.

    Args:
        positions: along an axis.
        least: smallest distance between labels, as a part of the whole range.
    """
    gap = least * float(positions[-1] - positions[0])
    kept = [len(positions) - 1]
    for i in range(len(positions) - 2, -1, -1):
        if positions[kept[-1]] - positions[i] >= gap:
            kept.append(i)
    return kept[::-1]
