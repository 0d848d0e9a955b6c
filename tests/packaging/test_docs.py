"""The site of the documentation has all pages, all commands and all public names."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ttt3r

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def pages(node: Any) -> Iterator[str]:
    """The files that a navigation names."""
    if isinstance(node, str):
        yield node
    else:
        for child in node.values() if isinstance(node, dict) else node:
            yield from pages(child)


def test_the_navigation_has_every_page_once() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    found = sorted(pages(settings["nav"]))
    assert found == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_reference_has_every_public_name() -> None:
    text = (DOCS / "reference/api.md").read_text("utf-8")
    names = set(re.findall(r"^::: ttt3r\.(\w+)$", text, re.MULTILINE))
    assert names == set(ttt3r.__all__) - {"__version__"}


def test_the_reference_has_the_help_of_every_command() -> None:
    text = (DOCS / "reference/commands.md").read_text("utf-8")
    found = re.findall(r'^--8<-- "(.*)"$', text, re.MULTILINE)
    snapshots = (ROOT / "tests/cli/snapshots").glob("*.txt")
    assert sorted(found) == sorted(path.relative_to(ROOT).as_posix() for path in snapshots)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 150
    first_screen = text.splitlines()[:45]
    for mark in ("![", "pip install", "ttt3r run", "```python"):
        assert any(mark in line for line in first_screen), mark


def test_words_of_the_glossary_are_in_order() -> None:
    words = re.findall(r"^\| \*([^*]+)\*", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE)
    assert words == sorted(words) and len(words) > 20


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        (r"a $\hat S_t$ and $q$", 2),
        ("$$a\nb$$", 1),
        ("`$HOME` and `$x$`", 0),
        ("5 $ and 6 $ each", 0),
        ("$TTT3R_DATA", 0),
    ],
)
def test_formulas_become_mathml(text: str, formulas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("latex2mathml")
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    html = markdown.markdown(text, extensions=["formulas:Formulas"])
    assert html.count("<math") == formulas
    assert ("$" in html) is (formulas == 0)


def test_the_site_fetches_nothing_from_others() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert settings["theme"]["font"] is False
    assert "extra_javascript" not in settings and "extra_css" not in settings
