"""The version is the same wherever it is stated, and the metadata promises what is true."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import ttt3r
from ttt3r.cli import main

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# A released version has the date: "## 0.1.0 - 2027-01-31".
HEADING = re.compile(r"^## (\d+\.\d+\.\d+) - (unreleased|\d{4}-\d{2}-\d{2})$", re.MULTILINE)


def test_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = HEADING.findall(text)
    assert len(headings) == len(re.findall(r"^## ", text, re.MULTILINE)), (
        "a heading of another form"
    )
    assert headings[0][0] == ttt3r.__version__
    assert [date for _, date in headings[1:] if date == "unreleased"] == []
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ttt3r {ttt3r.__version__}\n"
    assert importlib.metadata.version("ttt3r") == ttt3r.__version__


def test_a_tag_names_the_version() -> None:
    """A commit that is tagged v1.2.3 is that version, and its changes have a date."""
    command = ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD", "--list", "v[0-9]*"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    heading = HEADING.search((ROOT / "CHANGELOG.md").read_text("utf-8"))
    for tag in found.stdout.split():
        assert heading and heading[0] == f"## {tag[1:]} - {heading[2]}"
        assert heading[2] != "unreleased"


def test_no_system_is_promised_that_was_not_tested() -> None:
    systems = [name for name in PROJECT["classifiers"] if name.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]
    assert (ROOT / "src/ttt3r/py.typed").exists()
    page = (ROOT / "docs/getting-started.md").read_text("utf-8")
    assert re.search(r"Windows and macOS[^.]* untested", page)


def test_each_extra_is_imported_somewhere() -> None:
    """No empty promises: what an extra installs is used by the package."""
    modules = {"pillow-heif": "pillow_heif", "scikit-image": "skimage", "rerun-sdk": "rerun"}
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    for extra, requirements in PROJECT["optional-dependencies"].items():
        for requirement in requirements:
            name = re.split(r"[<>=\[]", requirement)[0]
            module = modules.get(name, name)
            assert re.search(rf"^ +(from|import) {module}\b", source, re.MULTILINE), requirement
        assert f'"{extra}"' in source, "no error names this extra"
