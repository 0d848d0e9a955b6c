"""The files around the code name what exists."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import ttt3r

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_hooks_fetch_nothing() -> None:
    hooks = []
    for repository in read(".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local"
        hooks += repository["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        assert hook["entry"].startswith(".venv/bin/")
        for word in hook["entry"].split():
            assert not word.startswith("tests") or (ROOT / word).exists()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_templates(path: Path) -> None:
    form = read(str(path.relative_to(ROOT)))
    if path.name == "config.yml":
        assert set(form) == {"blank_issues_enabled"}
        return
    assert {"name", "description", "body"} <= set(form)
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names)
    for field in form["body"]:
        assert field["type"] == "textarea" and field["attributes"]["label"]
        assert set(field) <= {"type", "id", "attributes", "validations"}


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert citation["version"] == ttt3r.__version__
    assert {"message", "title", "authors"} <= set(citation)


def test_the_development_container_installs_by_make() -> None:
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))
    program, target = settings["postCreateCommand"].split()
    assert program == "make" and target in TARGETS
    assert ":latest" not in settings["image"] and ":" in settings["image"]


def test_the_container_copies_what_exists_and_is_not_root() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", "").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    copied = [name for first, *rest in words if first == "COPY" for name in rest[:-1]]
    copied = [name for name in copied if not name.startswith(("--", "/"))]
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert copied == ["pyproject.toml", "README.md", "LICENSE", "src"]
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in allowed
    assert [rest for first, *rest in words if first == "USER"] == [["1000"]]
    pinned = re.search(r"torch==([\d.]+)", (ROOT / "Makefile").read_text("utf-8"))
    assert pinned and ["ARG", f"TORCH_VERSION={pinned[1]}"] in words


def test_scripts_of_the_build_are_targets() -> None:
    for script in ("wheel", "lowest"):
        assert script in TARGETS
        assert (ROOT / ".ci" / script).stat().st_mode & 0o111
    run = (ROOT / ".ci/run").read_text("utf-8")
    assert set(re.findall(r"^make (\S+)", run, re.MULTILINE)) <= TARGETS
