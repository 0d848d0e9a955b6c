"""What README and docs tell the reader to type works."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from examples.clip import write_clip
from ttt3r.cli import main

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/getting-started.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with the clip that the pages talk of."""
    write_clip(tmp_path / "walk.mp4", frames=6)
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


def test_demo(tmp_path, capsys):
    from examples.demo import main as demo

    assert demo(tmp_path / "demo") == 0
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert made == {"clip.mp4", "run", "cloud.ply", "overview.png"}
    assert "NOT a reconstruction" in capsys.readouterr().out
    assert demo(tmp_path / "demo") == 0, "a second time"


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)
