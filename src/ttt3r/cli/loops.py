"""``ttt3r loops``: move the segments of a run so that places seen twice meet."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ttt3r.cli.command import Command, Debug, option
from ttt3r.cli.stopping import StopRequest

if TYPE_CHECKING:
    from ttt3r.stream.loops.closing import Closing


@dataclass(frozen=True)
class LoopsCommand(Command):
    """Move the segments of a run so that places seen in two of them meet.

    The run must have been made with --reset; what it lacks is made again from its frames.

    Frames stay; placement.json says where they belong. Delete it to undo what was done.
    """

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    model: Annotated[str | None, option("MODEL", "by the name in the run")] = None
    """The weights that the run was made with; see ttt3r models."""

    rule: Annotated[str | None, option("RULE", "by the name in the run")] = None
    """The rule of your own that the run was made with, as package.module:Class with its settings;
    the module is imported."""

    device: Annotated[str, option("DEVICE")] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, …"""

    precision: Annotated[str, option("TYPE")] = "auto"
    """float32, bfloat16, float16, or auto: bfloat16 where a GPU supports it."""

    debug: Debug = False

    def main(self) -> int:
        """Close loops, and say what came of it."""
        from ttt3r import rules, weights
        from ttt3r.errors import SettingError
        from ttt3r.runs.reader import Run
        from ttt3r.stream.loops.closing import close_loops

        run = Run.open(self.run)
        if self.rule and (asked := rules.import_rules(self.rule)) != run.manifest["rule"]:
            raise SettingError(
                f"the run was made with the rule {run.manifest['rule']}, not with {asked}"
            )
        model = weights.load(
            self.model or run.manifest["model"]["name"], self.device, self.precision
        )
        with StopRequest() as stop, contextlib.suppress(KeyboardInterrupt):

            def heard(what: str, done: int, total: int) -> None:
                if stop.signal:
                    raise KeyboardInterrupt

            closing = close_loops(run, model, heard)
            print("\n".join(closing_lines(closing)))
            if run.manifest["reset"] == "never":
                print("the run has one segment: make it with a reset, such as --reset 50")
            return 0
        print("stopped; the run is as it was")
        return stop.status


def closing_lines(closing: "Closing") -> list[str]:
    """What came of closing loops, for people."""
    used = len(closing.used)
    lines = [
        f"loops: {closing.tried} pairs of frames looked alike, {len(closing.loops)} of them show "
        f"one place, {used} {'was' if used == 1 else 'were'} closed"
    ]
    for loop in closing.loops:
        where = f"  frames {loop.old} and {loop.new}: {loop.before}"
        then = f"; now {loop.after}" if loop.used else "; left open, it contradicts the others"
        lines.append(where + then)
    return lines
