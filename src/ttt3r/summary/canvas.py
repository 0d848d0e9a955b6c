"""What all parts of the picture draw with: colours, fonts, scale bars, round steps."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ttt3r.drawing.colours import Range, palette

WIDTH = 1600
MARGIN = 32
INNER = WIDTH - 2 * MARGIN
GAP = 8
PAPER = (255, 255, 255)
INK = (28, 30, 34)
QUIET = (104, 110, 120)
LINE = (222, 226, 231)
EMPTY = (240, 242, 245)
WARNING = (176, 32, 32)
BAR = (320, 14)  # pixels of a scale bar
TITLE, LABEL, SMALL = 30, 20, 16  # sizes of text in pixels

Colour = tuple[int, int, int]
Number = int | float
Point = tuple[Number, Number]


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Panel:
    """A part of the picture, as wide as its content, drawn by its own module."""

    image: Image.Image

    @staticmethod
    def empty(height: int, text: str, width: int = INNER) -> "Panel":
        """A panel that only says why there is nothing to see."""
        panel = Panel(Image.new("RGB", (width, height), EMPTY))
        write(panel.draw(), (width / 2, height / 2), text, SMALL, QUIET, "mm")
        return panel

    def draw(self) -> ImageDraw.ImageDraw:
        """Something to draw on it with."""
        return ImageDraw.Draw(self.image)


def write(
    draw: ImageDraw.ImageDraw,
    at: Point,
    text: str,
    size: int = SMALL,
    colour: Colour = INK,
    anchor: str = "la",
) -> None:
    """Write a line of text; `anchor` is Pillow's: l, m, r and a, m, s, d."""
    draw.text(at, text, colour, font(size), anchor)


def width_of(text: str, size: int) -> float:
    """Pixels that a line of text takes."""
    return font(size).getlength(text)


def shortened(text: str, size: int, most: int | float) -> str:
    """The text, with an ellipsis in its middle if it would take more than `most` pixels."""
    if width_of(text, size) <= most:
        return text
    keep = len(text)
    while keep > 2 and width_of(_cut(text, keep), size) > most:
        keep -= 1
    return _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    return text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]


def scale_bar(panel: Panel, name: str, shown: Range, unit: str = "", *, flip: bool = False) -> None:
    """Draw a palette in a panel's upper right corner, with values at its ends and its middle."""
    width, height = BAR
    right, top, draw = panel.image.width, 2, panel.draw()
    colours = palette(name)[:: -1 if flip else 1]
    bar = np.repeat(colours[None, np.linspace(0, 255, width).astype(int)], height, axis=0)
    left = right - width - (width_of(unit, SMALL) + 2 * GAP if unit else 0)
    panel.image.paste(Image.fromarray(bar), (round(left), top))
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        text = number_text(shown.value(share))
        write(draw, (left + share * width, top + height + 3), text, SMALL, QUIET, anchor)
    write(draw, (right, top + height + 3), unit, SMALL, QUIET, "ra")


def number_text(value: Number) -> str:
    """A number with three digits that count."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def moment_text(index: int, seconds: float) -> str:
    """Which frame, and when."""
    return f"frame {index:,}, {seconds:.{2 if abs(seconds) < 10 else 1}f} s"


def round_step(length: float, parts: int) -> float:
    """The largest of 1, 2, 5 × 10ⁿ that divides a length into at least `parts` parts."""
    wanted = length / parts
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= wanted * 1.0000001)
