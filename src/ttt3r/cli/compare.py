"""``ttt3r compare``: which update rule suits an input."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option, print_table
from ttt3r.cli.progress import memory_text, progress
from ttt3r.cli.stopping import StopRequest

if TYPE_CHECKING:
    from ttt3r.comparison.compare import Comparison, Score

RULES = "overwrite,ttt3r,ttsa3r,filt3r,recal3r,brake,ortho,memix"


@dataclass(frozen=True)
class CompareCommand(Command):
    """Run a video or a folder of images under several update rules at once, and compare them.

    Without a truth, rules are judged by whether neighbouring frames agree in depth.
    """

    input: Annotated[tyro.conf.Positional[str], option("INPUT")]
    """A video, a folder of images, or a quoted pattern such as 'shots/*.jpg'."""

    rules: Annotated[str, option("RULE,RULE,...")] = RULES
    """Update rules, as ttt3r run --rule takes them."""

    truth: Annotated[Path | None, option("PATH", "none")] = None
    """True poses: lines of "stamp tx ty tz qx qy qz qw", or a folder of ttt3r scene --truth."""

    loop: Flag = False
    """Show the frames once more from the last to the first, and measure whether paths close."""

    png: Annotated[Path | None, option("FILE", "none")] = None
    """Also draw the paths, and the errors against time if there is a truth."""

    json: Flag = False
    """Print JSON, for programs."""

    model: Annotated[str, option("MODEL")] = "builtin"
    """Name of weights (see ttt3r models), a folder that ttt3r convert made, or a weight file."""

    size: Annotated[int | None, option("PIXELS", "as the weights were trained")] = None
    """Longer side of the images that the network sees."""

    stride: Annotated[int, option("N")] = 1
    """Take every n-th frame."""

    start: Annotated[float | None, option("SECONDS", "the first frame")] = None
    """Skip what comes before, counted from the first frame."""

    end: Annotated[float | None, option("SECONDS", "the last frame")] = None
    """Skip what comes from then on, counted from the first frame."""

    device: Annotated[str, option("DEVICE")] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, …"""

    precision: Annotated[str, option("TYPE")] = "auto"
    """float32, bfloat16, float16, or auto: bfloat16 where a GPU supports it."""

    quiet: Flag = False
    """Show warnings and errors only, besides the table."""

    debug: Debug = False

    def main(self) -> int:
        """Compare until the end or a signal."""
        from ttt3r import rules
        from ttt3r.comparison.compare import compare
        from ttt3r.errors import RunError
        from ttt3r.files import to_json
        from ttt3r.sources import open_source

        source = open_source(self.input, stride=self.stride, start=self.start, end=self.end)
        shown = progress(source.length, 0, memory_text, quiet=self.quiet or self.json)
        found = None
        with StopRequest() as stop, contextlib.suppress(KeyboardInterrupt), shown as update:

            def done(frames: int) -> None:
                update(frames)
                if stop.signal:
                    raise KeyboardInterrupt

            found = compare(
                source,
                [rules.import_rules(rule) for rule in split(self.rules)],
                model=self.model,
                truth=self.truth,
                loop=self.loop,
                size=self.size,
                device=self.device,
                precision=self.precision,
                done=done,
            )
        if found is None:
            print("stopped; nothing was compared")
            return stop.status
        print(to_json(found.to_dict(), indent=2)) if self.json else print_scores(found)
        if self.png is not None:
            try:
                found.write_png(self.png)
            except OSError as error:
                raise RunError(f"cannot write {self.png}: {error}; choose another file") from error
        return 0


def split(text: str) -> list[str]:
    """The rules of a list; commas within brackets or quotation marks belong to a rule."""
    rules, depth, quoted = [""], 0, ""
    for letter in text:
        if quoted or letter in "\"'":
            quoted = "" if letter == quoted else quoted or letter
        depth += 0 if quoted else (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0 and not quoted:
            rules.append("")
        else:
            rules[-1] += letter
    return [rule.strip() for rule in rules if rule.strip()]


def print_scores(found: "Comparison") -> None:
    """Print a table, and what is missing from it."""
    unit = "m" if found.metric else "units"
    with_truth = found.truth is not None
    with_loop = any(math.isfinite(score.loop_rotation) for score in found.scores)
    head = ["rule"]
    if with_truth:
        head += ["ATE (m)", "RPE (m)", "RPE (deg)", "rotation (deg)"]
    head += ["agreement", f"path ({unit})"]
    if with_loop:
        head += ["loop (% of path)", "loop (deg)"]
    rows = [tuple(head)]
    rows += [(score.rule, *_cells(score, with_truth, with_loop)) for score in found.scores]
    print_table(rows)
    for note in dict.fromkeys(score.note for score in found.scores if score.note):
        print(f"no errors: {note}")


def _cells(score: "Score", with_truth: bool, with_loop: bool) -> list[str]:
    errors = score.errors
    cells = []
    if with_truth:
        assert errors is not None
        cells += [f"{errors.ate:.4f}", f"{errors.rpe_translation:.4f}"]
        cells += [f"{errors.rpe_rotation:.3f}", f"{errors.rotation:.2f}"]
    cells += [f"{score.agreement:.3f}", f"{score.path_length:.3f}"]
    if with_loop:
        cells += [f"{100 * score.loop_translation:.1f}", f"{score.loop_rotation:.2f}"]
    return ["" if cell == "nan" else cell for cell in cells]
