"""Tables of numbers, written as Markdown that lines up in a terminal, or as LaTeX."""

import re
from dataclasses import dataclass

from ttt3r.evaluation.results import Metric

NOTHING = "-"
LEFT, RIGHT = "l", "r"
ARROWS = {"lower": " ↓", "higher": " ↑", "none": ""}
LATEX_TEXT = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    "δ": r"\ensuremath{\delta}",
    "²": r"\ensuremath{^2}",
    "³": r"\ensuremath{^3}",
    "°": r"\ensuremath{^\circ}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\le}",
    "↓": r"\ensuremath{\downarrow}",
    "↑": r"\ensuremath{\uparrow}",
    "…": r"\dots{}",
}


@dataclass(frozen=True)
class Cell:
    """Text in a table.

    Attributes:
        text: as it is, without any markup.
        bold: whether it is the best of its kind.
    """

    text: str
    bold: bool = False


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: titles of the columns.
        groups: rows; printed tables draw a line between groups.
        left: columns of text, which begin at the left; the others are numbers.
    """

    header: tuple[str, ...]
    groups: tuple[tuple[Row, ...], ...]
    left: frozenset[int] = frozenset({0})

    @property
    def alignment(self) -> str:
        """ "l" or "r" for each column."""
        return "".join(LEFT if i in self.left else RIGHT for i in range(len(self.header)))


def heading(metric: Metric) -> str:
    """Return the title of a metric's column: its unit, and which values are better."""
    title = metric.title
    if metric.unit and title.endswith(")"):
        title = f"{title[:-1]}, {metric.unit})"
    elif metric.unit:
        title = f"{title} ({metric.unit})"
    return title + ARROWS[metric.better]


def number(value: float | None, digits: int) -> str:
    """Return a number, or a dash if there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def percent(value: float, reference: float) -> str:
    """Return how far a value is from a reference, with its sign, in percent of the latter."""
    return f"{100.0 * (value / reference - 1.0):+.1f} %" if reference else NOTHING


def mark_best(values: list[float | None], metric: Metric) -> list[Cell]:
    """Return values as cells; bold where no other is better, as far as the digits tell.

    Nothing is bold if there is nothing to beat.
    """
    texts = [number(value, metric.digits) for value in values]
    known = [value for value in values if value is not None]
    if metric.better == "none" or len(known) < 2:
        return [Cell(text) for text in texts]
    best = number(min(known) if metric.better == "lower" else max(known), metric.digits)
    return [Cell(text, text == best) for text in texts]


def markdown_table(table: Table) -> str:
    """Return a Markdown table whose columns line up."""
    rows = [[_markdown_cell(cell) for cell in row] for group in table.groups for row in group]
    header = [_markdown_cell(Cell(title)) for title in table.header]
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            text.ljust(width) if side == LEFT else text.rjust(width)
            for text, width, side in zip(cells, widths, table.alignment, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rules = [
        "-" * width if side == LEFT else "-" * (width - 1) + ":"
        for width, side in zip(widths, table.alignment, strict=True)
    ]
    return "\n".join([line(header), line(rules), *map(line, rows)])


def latex_table(table: Table) -> str:
    """Return a `tabular`; it needs the package booktabs."""
    titles = [_latex_title(title) for title in table.header]
    groups = [
        "\n".join(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in group)
        for group in table.groups
        if group
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{table.alignment}}}",
            r"\toprule",
            " & ".join(titles) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(groups),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def markdown_text(text: str) -> str:
    """Return any text as one line of Markdown that shows it as it is."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*|\[]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w))", r"\\\1", line)


def latex_text(text: str) -> str:
    """Return any text as one line of LaTeX that shows it as it is."""
    return "".join(LATEX_TEXT.get(character, character) for character in " ".join(text.split()))


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text)
    return f"**{text}**" if cell.bold else text


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


def _latex_title(title: str) -> str:
    """Break a long title before its bracket, which keeps columns narrow."""
    first, bracket, rest = title.partition(" (")
    if not bracket:
        return latex_text(title)
    return rf"\shortstack{{{latex_text(first)}\\{latex_text('(' + rest)}}}"
