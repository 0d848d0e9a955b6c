"""The help texts, as users see them.

After a wanted change, write the new ones with:
TTT3R_UPDATE_SNAPSHOTS=1 pytest tests/cli/test_help.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import tyro

from tests.cli.conftest import Ttt3r
from ttt3r import rules
from ttt3r.cli import COMMANDS
from ttt3r.cli.convert import Dtype
from ttt3r.exporters import EXPORTERS
from ttt3r.stream import stitching
from ttt3r.types import OUTPUTS
from ttt3r.weights.network import PRECISIONS

SNAPSHOTS = Path(__file__).with_name("snapshots")
TYRO = "1.0.17"  # draws the boxes; other versions draw others


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = ttt3r(*command.split(), "--help")
    assert (result.status, result.err) == (0, "")
    text = "".join(f"{line.rstrip()}\n" for line in result.out.rstrip().splitlines())
    file = SNAPSHOTS / f"{command or 'ttt3r'}.txt"
    if os.environ.get("TTT3R_UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    if tyro.__version__ != TYRO:
        pytest.skip(f"the snapshots were made with tyro {TYRO}, not {tyro.__version__}")
    lines = [line for line in text.splitlines() if not line.startswith("usage: ")]
    assert "\x1b" not in text and max(map(len, lines)) <= 100  # a list of commands is not broken
    assert text == file.read_text("utf-8")


def test_the_snapshots_are_those_of_the_commands():
    assert {file.stem for file in SNAPSHOTS.iterdir()} == {"ttt3r", *COMMANDS}


def test_choices_are_those_of_the_registries():
    """They are written out in the commands, because the registries are slow to import."""
    assert set(get_args(Dtype)) == set(PRECISIONS)


def test_the_help_names_every_output_rule_and_stitching():
    text = (SNAPSHOTS / "run.txt").read_text("utf-8")
    for name in [*OUTPUTS, *rules.REGISTRY.names, *stitching.REGISTRY.names]:
        assert re.search(rf"\b{name}\b", text), name


def test_the_help_names_every_exporter():
    text = (SNAPSHOTS / "export.txt").read_text("utf-8")
    for name in EXPORTERS:
        assert re.search(rf"\b{name}\b", text), name


def test_help_imports_nothing_heavy():
    """This is what makes it answer at once."""
    code = (
        "import sys; from ttt3r.cli import main; status = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'av', 'PIL', 'rich', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'{heavy=}' if heavy else status)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_version(ttt3r: Ttt3r):
    assert ttt3r("--version") == (0, "ttt3r 0.1.0\n", "")


def test_no_command_shows_the_help(ttt3r: Ttt3r):
    result = ttt3r()
    assert result.status == 2 and "subcommands" in result.out


@pytest.mark.parametrize(
    "words",
    [["walk"], ["run"], ["run", "a", "b"], ["run", "a", "--nonsense"], ["run", "a", "--size", "x"]],
    ids=" ".join,
)
def test_wrong_usage(words: list[str], ttt3r: Ttt3r):
    result = ttt3r(*words)
    assert result.status == 2 and result.out == "" and result.err
    assert "Traceback" not in result.err
