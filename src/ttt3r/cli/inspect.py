"""``ttt3r inspect``: what the state of a run did over time, and how far it can be trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option, print_table

if TYPE_CHECKING:
    from ttt3r.runs.reader import Run
    from ttt3r.trace.trace import Trace
    from ttt3r.types import Prediction

READ = ("points", "confidence", "world_from_camera", "intrinsics", "gate")


@dataclass(frozen=True)
class InspectCommand(Command):
    """Show what gate, state and camera of a run did over time, and whether it drifts.

    Of a run without --trace, it shows what the frames tell: all but the state.
    """

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    png: Annotated[Path | None, option("FILE", "none")] = None
    """Also draw it."""

    json: Flag = False
    """Print JSON, for programs."""

    debug: Debug = False

    def main(self) -> int:
        """Print the trace."""
        from ttt3r.errors import RunError
        from ttt3r.files import to_json, write_atomically
        from ttt3r.runs.facts import is_metric
        from ttt3r.runs.placement import Placement
        from ttt3r.runs.reader import Run
        from ttt3r.summary.diagnosis import draw_trace
        from ttt3r.trace import report

        run = Run.open(self.run)
        trace, traced = read_trace(run)
        if trace.frames == 0:
            raise RunError("the run holds no frames yet, so there is nothing to inspect")
        line = report.verdict(trace)[1]
        # A trace was written before the run was moved, if it was.
        unit = "m" if is_metric(run.manifest, Placement() if traced else run.placement) else "units"
        if self.json:
            print(to_json({"traced": traced, **report.to_dict(trace)}, indent=2))
        else:
            print(f"{trace.frames:,} frames; {line}")
            if not traced:
                print("made without --trace: this is what the frames tell, without the state")
            print_table(report.rows(trace, unit))
            print_horizon(trace)
        if self.png is not None:
            picture = draw_trace(trace, run.folder.resolve().name, line, unit)
            try:
                write_atomically(self.png, lambda file: picture.save(file, "PNG"))
            except OSError as error:
                raise RunError(f"cannot write {self.png}: {error}; choose another file") from error
        return 0


def read_trace(run: "Run") -> "tuple[Trace, bool]":
    """The trace that a run holds, or what its frames tell; and whether it was the former.

    Raises:
        RunError: if the trace or a frame is damaged.
    """
    from ttt3r.runs.reader import TRACE
    from ttt3r.trace.trace import Trace, trace_of

    path = run.folder / TRACE
    if path.exists():
        return Trace.read(path), True

    def frames() -> "Iterator[Prediction]":
        for index in range(len(run)):
            yield run.read(index, READ)

    return trace_of(frames()), False


def print_horizon(trace: "Trace") -> None:
    """Say how long the tokens keep what they hold, at the end of the run."""
    import numpy as np

    frames = trace.horizon.frames
    if not len(frames):
        return
    low, middle, high = np.percentile(frames, (0, 50, 100))
    bound = trace.horizon.bounded_below
    more = f"; of {bound} tokens this is a lower bound" if bound else ""
    print(
        f"effective horizon at the end: median {middle:.0f} frames, {low:.0f} to {high:.0f} over "
        f"{len(frames)} tokens{more}"
    )
