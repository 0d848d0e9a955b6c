"""The table of families in docs/families.md: `python -m examples.families`.

What can be read off the networks is read off them; a test fails if the page has another table.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ttt3r.models.base import Capabilities
from ttt3r.weights.catalogue import CATALOGUE
from ttt3r.weights.network import empty_network

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "families.md"
MARKS = re.compile(r"(<!-- families: [^>]*-->\n).*?(<!-- /families -->)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """What no program can read off a network."""

    title: str
    state: str
    update: str
    growth: str


LOOKS, SLOWER = "`once`; `keep_all`, `window`", "linear `once`, else quadratic"
ROWS = {
    "cut3r": Row("CUT3R", "n state tokens", "`overwrite`, `ttt3r`, `damped`", "none"),
    "point3r": Row("Point3R", "pointers in space", "`fuse`, `append`", "with space seen"),
    "streamvggt": Row("StreamVGGT", "keys and values", "`keep_all`, `window`, `diverse`", "linear"),
    "vggt": Row("VGGT", "all images", LOOKS, SLOWER),
    "fast3r": Row("Fast3R", "all images", LOOKS, SLOWER),
}


def abilities(capabilities: Capabilities) -> str:
    """What a family gives, in words."""
    names = {"pose": "pose", "world": "world points", "rgb": "colour"}
    given = [text for name, text in names.items() if name in capabilities.outputs]
    given += ["metric"] if capabilities.metric_scale else []
    return ", ".join(["points", *given])


def licences(family: str) -> str:
    """Licences of the released weights."""
    found = {spec.licence for spec in CATALOGUE.values() if spec.family == family and spec.files}
    return ", ".join(sorted(found))


def table() -> str:
    """The table, as Markdown."""
    lines = [
        "| family | state | update | time per frame grows | gives | released weights |",
        "|---|---|---|---|---|---|",
    ]
    for family, row in ROWS.items():
        tiny = next(
            s.random_config for s in CATALOGUE.values() if s.family == family and s.random_config
        )
        given = abilities(empty_network(tiny).capabilities)
        cells = (row.title, row.state, row.update, row.growth, given, licences(family))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(MARKS.sub(lambda m: f"{m[1]}\n{table()}\n{m[2]}", text), "utf-8")


if __name__ == "__main__":
    main()
