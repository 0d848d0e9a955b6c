"""Comparing two commits: the arithmetic, the checkouts, and the command on a tiny case."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import guard, guard_cases

CLOCKS = {"processor": 1.0, "clock": 1.0}


def cost(processor: float, clock: float = 1.0) -> dict[str, float]:
    return {"processor": processor, "clock": clock}


def test_ratios_are_taken_within_rounds():
    """A machine that is twice as slow in one round changes no ratio."""
    rounds = [
        ({"step": cost(1.0)}, {"step": cost(1.1)}),
        ({"step": cost(2.0)}, {"step": cost(2.2)}),
        ({"step": cost(1.0)}, {"step": cost(1.3)}),
    ]
    found = guard.ratios(rounds)["step"]
    assert found["processor"].all == pytest.approx([1.1, 1.1, 1.3])
    assert found["processor"].text == "1.100 (1.100 to 1.300)"
    assert found["clock"].median == 1.0


def test_a_case_is_slower_if_its_median_is():
    rounds = [({"a": cost(1.0), "b": cost(1.0)}, {"a": cost(1.2), "b": cost(b)}) for b in (1, 9, 1)]
    found = guard.ratios(rounds)
    assert guard.slower_than(1.1, found, "processor") == ["a"]
    assert guard.slower_than(1.25, found, "processor") == []
    assert guard.slower_than(0.9, found, "clock") == ["a", "b"]


def test_who_goes_first_alternates():
    assert [guard.order(number)[0] for number in range(4)] == [0, 1, 0, 1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of something that is no package at all."""
    folder = tmp_path / "repository"
    folder.mkdir()
    who = {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    for words in (["init", "--quiet"], ["commit"], ["commit"]):
        more = ["--quiet", "--allow-empty", "--message", "one"] if words == ["commit"] else []
        subprocess.run(["git", *words, *more], cwd=folder, check=True, env={**os.environ, **who})
    return folder


def run_here(monkeypatch: pytest.MonkeyPatch, slowdown: float) -> list[str]:
    """Measure in this process, the second commit so many times slower; notes who was measured."""
    measured: list[str] = []

    def here(module: str, words: list[str], environment: dict[str, str]):
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert module == "guard_cases" and environment["PYTHONPATH"] == options["--source"]
        source, video = Path(options["--source"]), Path(options["--video"])
        assert source.parent.is_dir() and video.stat().st_size
        cases, frames = options["--cases"].split(","), int(options["--frames"])
        if not measured:  # really, but once: the numbers are made up anyway
            found = guard_cases.measure(cases, frames, video)
            assert all(seconds > 0 for one in found.values() for seconds in one.values())
        measured.append(source.parent.name)
        factor = slowdown if source.parent.name == "1" else 1.0
        return {case: {clock: factor for clock in CLOCKS} for case in cases}

    monkeypatch.setattr("benchmarks.machine.in_subprocess", here)
    return measured


def test_the_command_compares_and_removes_its_checkouts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    repository: Path,
    tmp_path: Path,
):
    measured = run_here(monkeypatch, 1.5)
    words = ["HEAD~1", "--cases", "tiny", "--rounds", "2", "--frames", "2"]
    kept = tmp_path / "kept.json"
    assert guard.main([*words, "--json", str(kept)], repository) == 0
    assert "| tiny | 1000.0 | 1500.0 | 1.500 (1.500 to 1.500)" in capsys.readouterr().out
    assert measured == ["0", "1", "1", "0"]
    assert len(json.loads(kept.read_text())["rounds"]) == 2
    assert len(guard.git(repository, "worktree", "list").splitlines()) == 1
    assert guard.main([*words, "--fail-above", "1.6"], repository) == 0
    assert guard.main([*words, "--fail-above", "1.1"], repository) == guard.SLOWER
    assert capsys.readouterr().err.splitlines()[-1] == "slower than 1.1 times: tiny"


def test_a_whole_run_is_a_case(tmp_path: Path):
    video = tmp_path / "pattern.mp4"
    guard_cases.write_video(video, 3, guard_cases.BUILTIN)
    assert guard_cases.pipeline(2, video)["processor"] > 0


def test_the_package_must_come_from_the_checkout(tmp_path: Path):
    with pytest.raises(RuntimeError, match="imported from"):
        guard_cases.check_source(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["HEAD", "--cases", "step,stride"], "unknown case stride"),
        (["HEAD", "--rounds", "0"], "at least one round"),
        ([], "required: base"),
    ],
)
def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str], words: list[str], said: str):
    with pytest.raises(SystemExit) as caught:
        guard.main(words)
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_an_unknown_commit_is_named(repository: Path):
    with pytest.raises(SystemExit, match="no such commit"):
        guard.main(["nowhere"], repository)
