"""What README and docs tell the reader to type works."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.sources.clips import write_clip
from ttt3r import Run
from ttt3r.cli import main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/getting-started.md", "docs/evaluation.md", "docs/families.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with the clip that the pages talk of."""
    from ttt3r.scenes import make_clip

    write_clip(tmp_path / "walk.mp4", list(make_clip(1, 6, (120, 160)).image.numpy()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page, workplace):
    found = blocks(page, "python")
    assert found
    for block in found:
        exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_shell_lines_run(page, workplace):
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.strip()]
    assert any(command[0] == "ttt3r" for command in commands)
    for command in commands:
        if command[0] == "make":
            subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        elif command[0] == "ttt3r" and "cut3r_512" not in " ".join(command):
            assert main(command[1:]) == 0, command
        else:
            assert command[:2] in (["pip", "install"], ["ttt3r", "convert"], ["ttt3r", "run"])


def test_the_example_rule_is_a_rule(monkeypatch):
    """The rule of docs/adding-a-rule.md obeys the interface and runs in a session."""
    from dataclasses import dataclass
    from typing import ClassVar

    import torch

    from tests.networks import random_tiny
    from tests.stream.test_session import images
    from ttt3r import rules
    from ttt3r.stream.session import Session

    names = {"dataclass": dataclass, "ClassVar": ClassVar, "torch": torch, **vars(rules)}
    (block,) = blocks("docs/adding-a-rule.md", "python")
    exec(compile(block, "adding-a-rule", "exec"), names)
    monkeypatch.setitem(rules.REGISTRY, "momentum", names["Momentum"])
    session = Session(random_tiny(), rule="momentum(keep=0.5)", reset=3)
    predictions = [session.push(image) for image in images(5)]
    assert predictions[-1].points.isfinite().all()
    assert set(session.state.rule_memory) == {"direction"}


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
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
