"""Tables of numbers, written as Markdown that lines up in a terminal, or as LaTeX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ttt3r.evaluation.results import Length, Metric

NOTHING = "-"
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


class Best(str):
    """The text of a cell that is the best of its kind, and is printed bold."""

    __slots__ = ()


Row = Sequence[str]
"""Texts of cells, without any markup."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: titles of the columns.
        groups: rows; LaTeX draws a line between groups.
        left: columns of text, which begin at the left; the others are numbers.
    """

    header: Row
    groups: Sequence[Sequence[Row]]
    left: Sequence[int] = (0,)


def frames_text(length: Length) -> str:
    """Return a number of frames as text."""
    return "all" if length is None else str(length)


def heading(metric: Metric) -> str:
    """Return the title of a metric's column: its unit, and which values are better."""
    title = metric.title
    if metric.unit and title.endswith(")"):
        title = f"{title[:-1]}, {metric.unit})"
    elif metric.unit:
        title = f"{title} ({metric.unit})"
    return title + ARROWS[metric.better]


def percent(value: float, reference: float) -> str:
    """Return how far a value is from a reference, with its sign, in percent of the latter."""
    return f"{100.0 * (value / reference - 1.0):+.1f} %" if reference else NOTHING


def ranked(values: Sequence[float | None], metric: Metric) -> list[str]:
    """Return values as cells; bold where no other is better, as far as the digits tell.

    Nothing is bold if there is only one value, or the metric is mere information.
    """
    texts = [metric.text(value) for value in values]
    known = [value for value in values if value is not None]
    if metric.better == "none" or len(known) < 2:
        return texts
    best = metric.text(min(known) if metric.better == "lower" else max(known))
    return [Best(text) if text == best else text for text in texts]


def markdown_table(table: Table) -> str:
    """Return a Markdown table whose columns line up."""
    rows = [table.header, *(row for group in table.groups for row in group)]
    texts = [[_bold(cell, markdown_text(cell), "**{}**") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in texts)) for i in range(len(table.header))]
    left = [i in table.left for i in range(len(table.header))]
    rule = [
        "-" * w if at_left else "-" * (w - 1) + ":" for w, at_left in zip(widths, left, strict=True)
    ]
    texts.insert(1, rule)
    return "\n".join(
        "| "
        + " | ".join(
            text.ljust(width) if at_left else text.rjust(width)
            for text, width, at_left in zip(row, widths, left, strict=True)
        )
        + " |"
        for row in texts
    )


def latex_table(table: Table) -> str:
    """Return a `tabular`; it needs the package booktabs."""
    groups = [
        "\n".join(
            " & ".join(_bold(cell, latex_text(cell), r"\textbf{{{}}}") for cell in row) + r" \\"
            for row in group
        )
        for group in table.groups
        if group
    ]
    alignment = "".join("l" if i in table.left else "r" for i in range(len(table.header)))
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(map(_latex_title, table.header)) + r" \\",
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


def _bold(cell: str, text: str, form: str) -> str:
    return form.format(text) if isinstance(cell, Best) else text


def _latex_title(title: str) -> str:
    """Break a long title before its bracket, which keeps columns narrow."""
    first, bracket, rest = title.partition(" (")
    if not bracket:
        return latex_text(title)
    return rf"\shortstack{{{latex_text(first)}\\{latex_text('(' + rest)}}}"
