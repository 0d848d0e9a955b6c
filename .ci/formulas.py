"""Formulas of the site as MathML, which browsers draw by themselves: no script, no network.

A Markdown extension for `$inline$` and `$$display$$`, named in mkdocs.yml.
"""

from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

DISPLAY = '<span style="display: block; overflow-x: auto">{}</span>'
AFTER_CODE = 185  # `code` has 190; backslashes have 180


class Formula(InlineProcessor):
    """Takes the text between dollar signs for LaTeX."""

    def handleMatch(self, m: Any, data: str) -> tuple[str, int, int]:
        """Put MathML in the place of a formula."""
        kind = "block" if m[1] == "$$" else "inline"
        text = convert(m[2], display=kind)
        text = DISPLAY.format(text) if kind == "block" else text
        return self.md.htmlStash.store(text), m.start(0), m.end(0)


class Formulas(Extension):
    """The extension."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register it."""
        pattern = r"(?<![\\$])(\$\$?)(?![\s$])(.+?)(?<![\s\\])\1(?!\$)"
        md.inlinePatterns.register(Formula(pattern, md), "formula", AFTER_CODE)
