"""The page that shows a scene: one file with everything in it, or the page of the live viewer."""

import base64
import gzip
from functools import cache
from pathlib import Path
from typing import Any

from ttt3r.drawing.colours import palette
from ttt3r.files import to_json
from ttt3r.runs.facts import Facts
from ttt3r.viewer.scene import Scene
from ttt3r.viewer.wire import encoded

FOLDER = Path(__file__).parent / "page"
SCRIPTS = (
    "base.js",
    "camera.js",
    "drawing.js",
    "records.js",
    "measure.js",
    "controls.js",
    "live.js",
)


@cache
def _part(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def facts_of_page(facts: Facts, scene: Scene) -> dict[str, Any]:
    """What the page must know besides the nodes."""
    return {
        "title": facts.title,
        "lines": facts.lines,
        "warning": facts.warning,
        "unit": facts.unit,
        "status": facts.status,
        "cell": scene.cell,
        "frames": scene.frames,
        "unplaced": scene.unplaced,
        "scale": facts.scale,
        "aligned": facts.aligned,
        "started": scene.started,
    }


def packed(scene: Scene) -> bytes:
    """All nodes of a scene, compressed, as they stand in the page."""
    records = b"".join(encoded(name, node) for name, node in scene.nodes().items())
    return base64.b64encode(gzip.compress(records, 6, mtime=0))


def page(
    facts: Facts,
    scene: Scene,
    *,
    live: bool = False,
    content: bytes = b"",
    savable: bool = False,
) -> bytes:
    """Put a page together: HTML that asks for nothing outside of it.

    Args:
        facts: of the run.
        scene: what it shows.
        live: asks the server that sent it for nodes; otherwise it shows `content`.
        content: what `packed` returned.
        savable: whether that server also takes the scale.
    """
    palettes = base64.b64encode(palette("ordered").tobytes() + palette("rainbow").tobytes())
    known = facts_of_page(facts, scene) | {
        "live": live,
        "palettes": palettes.decode("ascii"),
        "savable": savable,
    }
    parts = {
        "$CONNECT": "'self'" if live else "'none'",
        "$TITLE": _escaped(facts.title),
        "$STYLE": _part("page.css"),
        # A text within a script element ends at the first "</script", so no "<" stays in it.
        "$FACTS": to_json(known).replace("<", "\\u003c"),
        "$SCENE": content.decode("ascii"),
        "$SCRIPT": "".join(map(_part, SCRIPTS)),  # one strict script, in this order
    }
    text, filled = _part("page.html"), []
    for mark, part in parts.items():
        before, text = text.split(mark, 1)
        filled += [before, part]
    return "".join([*filled, text]).encode("utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
