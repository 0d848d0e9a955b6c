"""The table of families in README.md and docs/families.md: `python -m examples.families`.

What can be read off the networks is read off them; a test fails if a page has another table.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ttt3r.models.base import Capabilities
from ttt3r.models.cut3r import Cut3r
from ttt3r.models.fast3r import Fast3r
from ttt3r.models.point3r import Point3r
from ttt3r.models.streamvggt import StreamVggt
from ttt3r.models.vggt import Vggt
from ttt3r.weights.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "families.md")
MARKS = re.compile(r"(<!-- families: [^>]*-->\n).*?(<!-- /families -->)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """What no program can read off a network."""

    title: str
    network: type
    state: str
    update: str
    growth: str


LOOKS, SLOWER = "`once`; `keep_all`, `window`", "linear `once`, else quadratic"
ROWS = {
    "cut3r": Row("CUT3R", Cut3r, "n state tokens", "`overwrite`, `ttt3r`, `damped`", "none"),
    "point3r": Row("Point3R", Point3r, "pointers in space", "`fuse`, `append`", "with space seen"),
    "streamvggt": Row(
        "StreamVGGT", StreamVggt, "keys and values", "`keep_all`, `window`, `diverse`", "linear"
    ),
    "vggt": Row("VGGT", Vggt, "all images", LOOKS, SLOWER),
    "fast3r": Row("Fast3R", Fast3r, "all images", LOOKS, SLOWER),
}


def abilities(capabilities: Capabilities) -> str:
    """What a family gives, in words."""
    names = {
        "pose": "pose",
        "world_points": "world points",
        "rgb": "colour",
        "metric_scale": "metric",
    }
    given = [text for name, text in names.items() if getattr(capabilities, name)]
    return ", ".join(["points", *given])


def licences(family: str) -> str:
    """Licences of the released weights."""
    found = {
        spec.licence
        for spec in CATALOGUE.values()
        if spec.family == family and spec.filename is not None
    }
    return ", ".join(sorted(found))


def table() -> str:
    """The table, as Markdown."""
    lines = [
        "| family | state | update | time per frame grows | gives | released weights |",
        "|---|---|---|---|---|---|",
    ]
    for family, row in ROWS.items():
        given = abilities(row.network.capabilities)
        cells = (row.title, row.state, row.update, row.growth, given, licences(family))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table into the pages."""
    for page in PAGES:
        text = page.read_text("utf-8")
        page.write_text(MARKS.sub(lambda m: f"{m[1]}\n{table()}\n{m[2]}", text), "utf-8")


if __name__ == "__main__":
    main()
