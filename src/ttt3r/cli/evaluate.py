"""``ttt3r eval``: measure weights and rules under the protocols of the field."""

import contextlib
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ttt3r.cli.command import Command, Debug, Flag, duration_text, option, print_table
from ttt3r.cli.progress import memory_text, progress
from ttt3r.cli.stopping import StopRequest
from ttt3r.errors import SettingError

if TYPE_CHECKING:
    from ttt3r.evaluation.results import Evaluation, Length, Settings
    from ttt3r.evaluation.runner import Plan
    from ttt3r.models.base import SetModel, StreamModel

LARGEST_SIZE = 4096  # pixels; no network was trained near it, and memory ends before it

TaskName = Literal["pose", "depth", "recon"]


@dataclass(frozen=True)
class EvalCommand(Command):
    """Measure weights and rules on a dataset, or compare two measurements.

    Writes numbers, tables and figures to a folder. Ctrl-C stops; --resume goes on.
    """

    task: Annotated[TaskName | None, option("TASK", "needed")] = None
    """What to measure: pose, depth or recon."""

    protocol: Annotated[str | None, option("PROTOCOL", "needed")] = None
    """Which frames, and how to score: DATASET/strideK/N, or /all, perhaps with /corrected."""

    data: Annotated[Path | None, option("ROOT", "none; synthetic data need none")] = None
    """Folder of the dataset, as its owners distribute it."""

    model: Annotated[str, option("MODEL")] = "builtin"
    """Name of weights (see ttt3r models), a folder that ttt3r convert made, or a weight file."""

    rule: Annotated[tuple[str, ...], option("RULE ...", "the family's own; ttt3r for CUT3R")] = ()
    """How the state is updated; several are measured one after the other and reported together."""

    pose_memory: Annotated[str | None, option("RULE", "written whole, as published")] = None
    """How CUT3R's pose memory is updated, under every rule; see ttt3r run --help."""

    pose_from: Annotated[str | None, option("SOURCE", "as the weights say, else head")] = None
    """Where poses come from: head, points or auto, under every rule; see ttt3r run --help."""

    reset: Annotated[str | None, option("FRAMES", "never")] = None
    """Start afresh after this many frames; the published protocols never do."""

    frames: Annotated[str | None, option("N,N,...", "the protocol's own number")] = None
    """Lengths to score at, such as 50,100,200; all stands for the whole sequence."""

    sequences: Annotated[tuple[str, ...], option("NAME ...", "all")] = ()
    """Take these sequences only; the report then says that it is a part."""

    size: Annotated[int | None, option("PIXELS", "as the weights were trained")] = None
    """Longer side of the images that the network sees."""

    device: Annotated[str, option("DEVICE")] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, …"""

    precision: Annotated[str, option("TYPE")] = "float32"
    """float32 (as in published results), bfloat16, float16, or auto: bfloat16 on a GPU."""

    out: Annotated[Path | None, option("DIR", "evaluations/TASK-PROTOCOL")] = None
    """Folder to write to."""

    resume: Flag = False
    """Continue the evaluation in the output folder; rules and sequences may be added."""

    overwrite: Flag = False
    """Replace the evaluation in the output folder."""

    compare: Annotated[tuple[Path, Path] | None, option("A.json B.json", "none")] = None
    """Compare two summary.json files, sequence by sequence, and do nothing else."""

    quiet: Flag = False
    """Show warnings and errors only."""

    debug: Debug = False

    def main(self) -> int:
        """Measure, or compare."""
        if self.compare is not None:
            return self.print_comparison(*self.compare)
        began = time.monotonic()
        folder = self.folder()
        finished = False
        evaluations = []
        with StopRequest() as stop, contextlib.suppress(KeyboardInterrupt):
            evaluations = self.measure(folder, stop)
            finished = True
            if not self.quiet:
                self.summarise(evaluations, folder, time.monotonic() - began)
        if not finished:
            print(f"stopped. To continue, repeat the command with --resume --out {quoted(folder)}")
            return stop.status
        unread = {s.sequence for e in evaluations for s in e.sequences if not s.readable}
        if unread:
            again = f"--resume --out {quoted(folder)}"
            print(
                f"These sequences cannot be read: {', '.join(sorted(unread))}. Replace their "
                f"damaged files, then repeat the command with {again}",
                file=sys.stderr,
            )
        return 1 if unread else 0

    def folder(self) -> Path:
        """Where to write to.

        Raises:
            SettingError: if the task or the protocol is not given.
        """
        from ttt3r.evaluation import protocols

        if self.task is None or self.protocol is None:
            raise SettingError(
                "give --task and --protocol (or --compare). Published protocols:\n"
                + protocols.listing()
            )
        protocol = protocols.parse(self.task, self.protocol)
        name = f"{self.task}/{protocol.full_name}".replace("/", "-")
        return self.out or Path("evaluations") / name

    def measure(self, folder: Path, stop: StopRequest) -> "list[Evaluation]":
        """Run every rule over every sequence, and write the report.

        Raises:
            KeyboardInterrupt: if a signal asked to stop.
            Ttt3rError: if something cannot work.
        """
        import ttt3r
        from ttt3r import rules
        from ttt3r.evaluation.reports.publish import publish
        from ttt3r.evaluation.runner import evaluate
        from ttt3r.evaluation.store import Store, check_folder
        from ttt3r.evaluation.tasks import RECORDERS

        check_folder(folder, resume=self.resume, overwrite=self.overwrite)
        plan = self.plan()
        model = ttt3r.load(self.model, self.device, self.precision)
        named = [rules.import_rules(rule) for rule in self.rule] or [None]
        everything = [self.settings(plan, model, rule) for rule in dict.fromkeys(named)]
        RECORDERS[plan.protocol.task].check()
        shown = progress(plan.frames * len(everything), 0, memory_text, quiet=self.quiet)
        with (
            Store(
                folder,
                everything[0],
                plan.content,
                resume=self.resume,
                overwrite=self.overwrite,
            ) as store,
            shown as update,
        ):

            def done(frames: int, before: int) -> None:
                update(before + frames)
                if stop.signal:
                    raise KeyboardInterrupt

            for number, settings in enumerate(everything):
                before = number * plan.frames
                evaluate(plan, model, store, settings, lambda n, start=before: done(n, start))
            return publish(folder)

    def plan(self) -> "Plan":
        """Open the dataset.

        Raises:
            SettingError: if an option makes no sense.
            InputError: if data are missing.
        """
        from ttt3r.evaluation import protocols
        from ttt3r.evaluation.runner import make_plan

        assert self.task is not None and self.protocol is not None
        protocol = protocols.parse(self.task, self.protocol)
        if self.data is None and protocol.data.needs_root:
            raise SettingError(f"give --data, the folder of {protocol.data.title}")
        root = self.data or Path()
        return make_plan(protocol, root, parse_lengths(self.frames), self.sequences)

    def settings(
        self, plan: "Plan", model: "StreamModel | SetModel", rule: str | None
    ) -> "Settings":
        """What the evaluation of one rule depends on.

        Raises:
            SettingError: if the rule or the reset is unknown.
        """
        from ttt3r import rules
        from ttt3r.evaluation.runner import settings_of
        from ttt3r.stream.clips import open_session
        from ttt3r.weights import choose_precision

        pose_memory = self.pose_memory and rules.import_rules(self.pose_memory)
        session = open_session(
            model, rule, self.reset, pose_memory=pose_memory, pose_from=self.pose_from
        )
        dtype = choose_precision(self.precision, session.device)
        size = model.preparation.size if self.size is None else self.size
        if size > LARGEST_SIZE:
            raise SettingError(f"images of {size} pixels are too large; at most {LARGEST_SIZE}")
        return settings_of(plan, session, size, str(dtype).removeprefix("torch."))

    def summarise(self, evaluations: "list[Evaluation]", folder: Path, seconds: float) -> None:
        """Print the means at the longest length, and where the rest is."""
        print_table(rows(evaluations))
        print(f"{duration_text(seconds)}; report: {folder / 'summary.md'}")
        if len(evaluations) > 1:
            from ttt3r.evaluation.store import SUMMARY, slug

            first, second = (folder / slug(e.label) / SUMMARY for e in evaluations[:2])
            print(f"next: ttt3r eval --compare {quoted(first)} {quoted(second)}")

    def print_comparison(self, first: Path, second: Path) -> int:
        """Print how two measurements differ.

        Raises:
            RunError: if one cannot be read.
            SettingError: if they measure different things.
        """
        from ttt3r.evaluation.reports.compare import compare, comparison_text
        from ttt3r.evaluation.results import read_evaluation

        print(comparison_text(compare(read_evaluation(first), read_evaluation(second))))
        return 0


def parse_lengths(text: str | None) -> "tuple[Length, ...]":
    """Return the lengths of "50,100,all"; none if there is no text.

    Raises:
        SettingError: if it is something else.
    """
    if text is None:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(word == "all" or word.isdecimal() for word in words):
        raise SettingError(f"--frames takes numbers such as 50,100,200 or all, not {text!r}")
    return tuple(None if word == "all" else int(word) for word in words)


def rows(evaluations: "list[Evaluation]") -> list[tuple[str, ...]]:
    """The headline means at the longest length, one row per rule, and a head."""
    from ttt3r.evaluation.results import METRICS

    metrics = [m for m in METRICS[evaluations[0].settings.task] if m.headline]
    table = [("rule", "frames", "n", "dropped", "failed", *(m.title for m in metrics), "fps")]
    for evaluation in evaluations:
        mean = evaluation.means[-1]
        values = (mean.metrics.get(m.key) for m in metrics)
        cells = (m.text(v) for m, v in zip(metrics, values, strict=True))
        rate = mean.frames_per_second
        counts = (str(mean.count), str(mean.dropped), str(mean.failed))
        length = "all" if mean.length is None else str(mean.length)
        row = (evaluation.label, length, *counts, *cells, "-" if rate is None else f"{rate:.1f}")
        table.append(row)
    return table


def quoted(path: Path) -> str:
    """A path for a shell."""
    return shlex.quote(str(path))
