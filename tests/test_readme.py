"""The demo, the example of a rule, and links between pages."""

import re
from pathlib import Path

import pytest

from tests.pages import blocks
from ttt3r import Run

ROOT = Path(__file__).parents[1]


def test_the_example_rule_is_a_rule(monkeypatch):
    """The rule of docs/adding-a-rule.md obeys the interface and runs in a session."""
    from dataclasses import dataclass
    from typing import ClassVar

    import torch

    from tests.networks import random_tiny
    from tests.stream.test_session import images
    from ttt3r import rules
    from ttt3r.stream.session import Session

    names = {"dataclass": dataclass, "ClassVar": ClassVar, "torch": torch}
    names |= vars(rules)
    (block,) = (b for b in blocks(ROOT / "docs/adding-a-rule.md") if b.language == "python")
    exec(compile(block.text, "adding-a-rule", "exec"), names)
    monkeypatch.setitem(rules.REGISTRY.classes, "momentum", names["Momentum"])
    session = Session(random_tiny(), rule="momentum(keep=0.5)", reset=3)
    predictions = [session.push(image) for image in images(5)]
    assert predictions[-1].points.isfinite().all()
    assert set(session.state.rule_memory) == {"direction"}


@pytest.mark.slow
def test_demo(tmp_path, capsys, monkeypatch):
    """The demo writes what it says, and its errors are below those of answers that see nothing."""
    from examples import demo

    made = {"clip.mp4", "truth", "run", "cloud.ply", "overview.png"}
    assert demo.main(tmp_path / "demo") == 0
    assert {path.name for path in (tmp_path / "demo").iterdir()} == made
    assert "baseline" in capsys.readouterr().out
    rows = demo.compare(demo.read_record(Run.open(tmp_path / "demo/run"), tmp_path / "demo/truth"))
    assert len(rows) == 3
    for row in rows:
        assert row.better, row
    monkeypatch.setattr(demo, "FRAMES", 4)
    assert demo.main(tmp_path / "demo") == 0, "a second time"


def test_links_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
