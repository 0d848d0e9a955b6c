"""Is a commit slower than another? `python -m benchmarks.guard BASE [HEAD]`.

Both are checked out beside each other and measured in turns on the same machine, each time in a
process of its own: built-in network, a network of the released width, and a whole run. What counts
is the ratio of neighbouring measurements, of which the median and the spread are printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine
from benchmarks.guard_cases import BUILTIN, CASES, Cost, write_video

USUAL = ("step", "wide", "pipeline")
CLOCKS = ("processor", "clock")
SLOWER = 1  # exit status; argparse takes 2


class Ratios(NamedTuple):
    """Seconds of one commit over those of the other, of each round; above 1 is slower."""

    all: list[float]

    @property
    def median(self) -> float:
        """What counts."""
        return statistics.median(self.all)

    @property
    def text(self) -> str:
        """Median, and the least and the greatest."""
        return f"{self.median:.3f} ({min(self.all):.3f} to {max(self.all):.3f})"


def order(round: int) -> tuple[int, int]:
    """Which commit goes first: it changes, so that a machine that slows down favours neither."""
    return (0, 1) if round % 2 == 0 else (1, 0)


def ratios(
    rounds: Sequence[tuple[dict[str, Cost], dict[str, Cost]]],
) -> dict[str, dict[str, Ratios]]:
    """Compare the measurements of base and head in each round; by case and clock."""
    return {
        case: {
            clock: Ratios([head[case][clock] / base[case][clock] for base, head in rounds])
            for clock in CLOCKS
        }
        for case in rounds[0][0]
    }


def slower_than(limit: float, found: dict[str, dict[str, Ratios]], clock: str) -> list[str]:
    """The cases whose median ratio is above a limit."""
    return [case for case, by_clock in found.items() if by_clock[clock].median > limit]


def git(repository: Path, *words: str) -> str:
    """Run git in a repository.

    Raises:
        ValueError: with what git says, if it fails.
    """
    done = subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr.strip() or f"git {' '.join(words)} failed")
    return done.stdout.strip()


@contextmanager
def checked_out(commits: Sequence[str], repository: Path) -> Iterator[list[Path]]:
    """Check commits out into temporary folders, which are removed at the end.

    Raises:
        ValueError: if there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="ttt3r-guard-") as folder:
        paths: list[Path] = []
        try:
            for number, commit in enumerate(commits):
                path = Path(folder) / str(number)
                git(repository, "worktree", "add", "--quiet", "--detach", str(path), commit)
                paths.append(path)
            yield paths
        finally:
            for path in paths:
                git(repository, "worktree", "remove", "--force", str(path))


def run_rounds(
    options: argparse.Namespace, sources: Sequence[Path], video: Path
) -> list[tuple[dict[str, Cost], dict[str, Cost]]]:
    """Measure both commits in turns."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    rounds = []
    for number in range(options.rounds):
        found: dict[int, dict[str, Cost]] = {}
        for which in order(number):
            source = sources[which] / "src"
            arguments = ["--cases", options.cases, "--frames", str(options.frames)]
            arguments += ["--video", str(video), "--source", str(source)]
            environment = {**os.environ, **threads, "PYTHONPATH": str(source)}
            found[which] = machine.in_subprocess("guard_cases", arguments, environment)
        rounds.append((found[0], found[1]))
        said = ratios(rounds[-1:])
        line = ", ".join(f"{case} {by[options.clock].median:.3f}" for case, by in said.items())
        print(f"round {number + 1} of {options.rounds}: {line}", file=sys.stderr)
    return rounds


def report(
    rounds: Sequence[tuple[dict[str, Cost], dict[str, Cost]]],
    commits: Sequence[str],
    facts: dict[str, Any],
) -> str:
    """The comparison as Markdown."""
    rows = []
    for case, by_clock in ratios(rounds).items():
        medians = (
            statistics.median(found[case]["processor"] for found in side)
            for side in zip(*rounds, strict=True)
        )
        numbers = [f"{1e3 * seconds:.1f}" for seconds in medians]
        rows.append([case, *numbers, *(by_clock[clock].text for clock in CLOCKS)])
    header = ["case", f"{commits[0]}, ms of processor", f"{commits[1]}, ms of processor"]
    header += ["ratio of processor time", "ratio by the clock"]
    return "\n".join(
        [
            f"## {commits[1]} against {commits[0]}",
            "",
            machine.sentence(facts),
            f"Median of {len(rounds)} rounds, and the least and the greatest; above 1 is slower.",
            "",
            machine.table(header, rows),
        ]
    )


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("base", help="commit to compare with, such as main or HEAD~1")
    parser.add_argument("head", nargs="?", default="HEAD", help="commit that may be slower")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each commit")
    parser.add_argument("--frames", type=int, default=24, help="frames of a case; fewer if slow")
    parser.add_argument("--cases", default=",".join(USUAL), help=f"of {', '.join(CASES)}")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="processor", help="what --fail-above looks at"
    )
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="RATIO",
        help=f"exit with status {SLOWER} if the median ratio of a case is above, such as 1.1",
    )
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    options = parser.parse_args(words)
    if options.rounds < 1 or options.frames < 2:
        parser.error("at least one round and two frames are needed")
    if unknown := sorted(set(options.cases.split(",")) - set(CASES)):
        parser.error(f"unknown case {', '.join(unknown)}; choose from {', '.join(CASES)}")
    return options


def main(words: Sequence[str] | None = None, repository: Path = machine.ROOT) -> int:
    """Compare; return the exit status."""
    options = parse(words)
    try:
        named = [
            git(repository, "rev-parse", "--short", "--verify", f"{name}^{{commit}}")
            for name in (options.base, options.head)
        ]
    except ValueError as error:
        sys.exit(f"no such commit: {error}")
    with checked_out(named, repository) as sources, tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "pattern.mp4"
        write_video(video, options.frames, BUILTIN)
        rounds = run_rounds(options, sources, video)
    facts = machine.describe("cpu")
    print(report(rounds, named, facts))
    if options.json:
        kept = {"machine": facts, "commits": named, "rounds": rounds}
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    if options.fail_above is None:
        return 0
    slow = slower_than(options.fail_above, ratios(rounds), options.clock)
    if slow:
        print(f"slower than {options.fail_above:g} times: {', '.join(slow)}", file=sys.stderr)
    return SLOWER if slow else 0


if __name__ == "__main__":
    sys.exit(main())
