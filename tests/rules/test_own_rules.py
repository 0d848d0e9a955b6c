"""Rules from outside the package: registered, named on the command line, or installed."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tests.networks import random_tiny
from tests.rules.toy import LastLook
from tests.stream.test_session import assert_same, images
from ttt3r import Run, rules
from ttt3r.cli import main
from ttt3r.errors import SettingError
from ttt3r.rules import Damped, Overwrite, Rule
from ttt3r.stream.session import Session

BEFORE = dict(rules.REGISTRY.classes)
EXAMPLE = Path(__file__).parents[2] / "examples" / "own_update_rule.py"


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(rules.REGISTRY, "classes", dict(rules.REGISTRY.classes))


def test_the_example_is_short_and_works(tmp_path):
    from examples.own_update_rule import Warm

    assert len(EXAMPLE.read_text().splitlines()) <= 30
    assert rules.register(Warm) is Warm
    session = Session(random_tiny(), "damped(warm(2), 0.5)")
    gates = [session.push(image).gate for image in images(4)]
    assert (gates[1] == 0.5).all() and (gates[2] < 0.5).all()
    session.save(tmp_path / "session")
    resumed = Session.load(tmp_path / "session", session.model)
    assert_same(resumed.push(images(1)[0]), session.push(images(1)[0]))


def test_named_on_the_command_line(tmp_path, monkeypatch):
    from tests.sources.clips import write_clip

    write_clip(tmp_path / "walk.mp4", [image for image in images(3)])
    text = "damped(tests.rules.toy:LastLook(weight=0.5), 0.5)"
    line = ["run", str(tmp_path / "walk.mp4"), "--model", "tiny-dpt", "--size", "64", "--quiet"]
    assert main([*line, "--out", str(tmp_path / "run"), "--rule", text]) == 0
    found = Run.open(tmp_path / "run").manifest["rule"]
    assert found == "damped(lastlook(weight=0.5), 0.5)"
    assert rules.parse(found) == Damped(LastLook(0.5), 0.5)
    for wrong in ("no.such.module:Rule", "tests.rules.toy:Missing", "tests.rules.toy:torch"):
        assert main([*line, "--out", str(tmp_path / "other"), "--rule", wrong]) != 0
        assert not (tmp_path / "other").exists()


def test_loops_of_a_run_made_with_it(tmp_path, monkeypatch, capsys):
    """The name in the run is no reason to import something; the rule must be told again."""
    from tests.sources.clips import write_clip

    write_clip(tmp_path / "walk.mp4", [image for image in images(4)])
    text = "damped(tests.rules.toy:LastLook(weight=0.5), 0.5)"
    line = ["run", str(tmp_path / "walk.mp4"), "--model", "tiny-dpt", "--size", "64", "--quiet"]
    line += ["--no-summary", "--reset", "2"]
    assert main([*line, "--out", str(tmp_path / "run"), "--rule", text]) == 0
    monkeypatch.setattr(rules.REGISTRY, "classes", dict(BEFORE))
    loops = ["loops", str(tmp_path / "run")]
    assert main(loops) == 2
    assert "unknown rule 'lastlook'" in capsys.readouterr().err
    assert main([*loops, "--rule", "damped(tests.rules.toy:LastLook(weight=0.4), 0.5)"]) == 2
    assert "made with the rule damped(lastlook(weight=0.5), 0.5)" in capsys.readouterr().err
    assert main([*loops, "--rule", text]) == 0
    assert capsys.readouterr().out.startswith("loops: ")


def test_texts_of_files_import_nothing():
    with pytest.raises(SettingError, match="cannot read"):
        rules.parse("tests.rules.toy:LastLook")
    assert rules.import_rules("x('a:b')") == "x('a:b')"


def installed(monkeypatch, name: str, value: str) -> None:
    """Pretend that a package offers a rule."""
    point = importlib.metadata.EntryPoint(name, value, "ttt3r.rules")

    def entry_points(group: str, name: str):
        return [point] if (group, name) == (point.group, point.name) else []

    monkeypatch.setattr("ttt3r.values.entry_points", entry_points)


def test_entry_points(monkeypatch):
    installed(monkeypatch, "lastlook", "tests.rules.toy:LastLook")
    assert rules.parse("damped(lastlook(0.5), 0.5)") == Damped(LastLook(0.5), 0.5)
    with pytest.raises(SettingError, match="unknown rule"):
        rules.parse("another")


@pytest.mark.parametrize("value", ["tests.rules.toy:Missing", "tests.rules.toy:LastLook"])
def test_broken_entry_points(monkeypatch, value):
    installed(monkeypatch, "another", value)
    with pytest.raises(SettingError, match=value):
        rules.parse("another")


def test_what_is_no_rule_is_refused():
    @dataclass
    class Thawed(Rule):
        name: ClassVar[str] = "thawed"

        def apply(self, previous, candidate, evidence, memory):
            raise NotImplementedError

    class Nameless(Overwrite):
        name: ClassVar[str] = "not a name"

    class Taken(Overwrite):
        name: ClassVar[str] = "ttt3r"

    for wrong in (Thawed, Nameless, Taken, int, 3):
        with pytest.raises(SettingError):
            rules.register(wrong)
    assert rules.register(Overwrite) is Overwrite
