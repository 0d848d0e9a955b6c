"""Every update rule on streams that come back to where they were: `python -m benchmarks.rules`.

Measures each rule, with and without resets, at several lengths of stream, as `ttt3r eval` does:
on the synthetic streams of its protocol, whose seeds no training takes, and on folders of
sequences of one's own (`--data`). What is measured lies in `--folder`, and is not measured again;
`--report` only writes the page, the figure and the table of all numbers from there.
"""

import argparse
import dataclasses
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

import ttt3r
from benchmarks import machine
from benchmarks.together import Known, run_together
from ttt3r.errors import SettingError
from ttt3r.evaluation import protocols
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.synthetic import RATE, Synthetic
from ttt3r.evaluation.machine import facts
from ttt3r.evaluation.results import SequenceScores, Settings
from ttt3r.evaluation.runner import Plan, evaluate, make_plan, run_sequence, settings_of
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.evaluation.store import Store
from ttt3r.evaluation.tasks import RECORDERS
from ttt3r.models.base import StreamModel
from ttt3r.stream.clips import open_session

RULES = ("overwrite", "ttt3r", "damped(ttt3r, 0.5)", "ttsa3r", "memix(ttt3r)", "filt3r")
RULES += ("recal3r", "brake", "ortho", "paced(ttt3r)")
RESETS = ("never", "100")
LENGTHS = (50, 100, 200, 400, 1000)
STREAMS = 4
PAGE = machine.ROOT / "docs" / "rules-report.md"
FIGURE = machine.ROOT / "docs" / "images" / "rules.png"
TABLE = machine.ROOT / "docs" / "images" / "rules.csv"


class Streams(Synthetic):
    """The streams of the protocol, drawn by compiled code and kept in a file."""

    renderer = "fast"

    def kept(self, name: str, count: int, folder: Path) -> Sequence:
        """Return the first frames of a stream; they are rendered if they are not there yet."""
        path = folder / "streams" / f"{name}-{count}.npz"
        if not path.exists():
            frames = list(self.open(folder, name, Selection("pose", frames=count)))
            path.parent.mkdir(parents=True, exist_ok=True)
            images = np.stack([frame.image for frame in frames])
            poses = np.stack([np.asarray(frame.world_from_camera) for frame in frames])
            np.savez(path, images=images, poses=poses)

        @cache
        def load() -> dict[str, np.ndarray]:
            return dict(np.load(path))

        def read(index: int) -> TrueFrame:
            pose = load()["poses"][index]
            return TrueFrame(load()["images"][index], index / RATE, world_from_camera=pose)

        return Sequence(name, range(count), read)


def synthetic_plan(options: argparse.Namespace) -> Plan:
    """The streams, at all lengths."""
    lengths = tuple(sorted(options.lengths))
    protocol = protocols.parse("pose", f"synthetic/stride1/{lengths[-1]}")
    dataset = Streams()
    names = dataset.names[: options.streams]
    streams = (dataset.kept(name, lengths[-1], options.folder) for name in names)
    return Plan(protocol, lengths, tuple(streams), dataset.names)


def own_plan(options: argparse.Namespace) -> Plan:
    """Sequences of one's own, up to the longest length."""
    protocol = protocols.parse("pose", "folder/stride1/all")
    return make_plan(protocol, options.data, tuple(sorted(options.own_lengths)))


def measure(
    plan: Plan, model: StreamModel, rule: str, reset: str, folder: Path, known: Known
) -> None:
    """Measure what is not there yet of a rule, its streams in one batch if they have one size."""
    session = open_session(model, rule, None if reset == "never" else reset, ("pose",))
    settings = settings_of(plan, session, model.preparation.size, "float32")
    with Store(folder, settings, plan.content, resume=True) as store:
        left = [s for s in plan.sequences if store.read(settings.label, s.name) is None]
        if left and plan.protocol.dataset == Streams.name:
            jobs = [partial(shown, plan, model, settings, s, store) for s in left]
            for scores in run_together(jobs, model, known):
                store.write(settings.label, scores)
        evaluate(plan, model, store, settings)


def shown(
    plan: Plan, model: StreamModel, settings: Settings, sequence: Sequence, store: Store
) -> SequenceScores:
    """Show a stream to a session, and score it at all lengths."""
    folder = store.sequence(settings.label, sequence.name)
    folder.mkdir(parents=True, exist_ok=True)
    recorder = RECORDERS["pose"](plan.protocol, sequence, model.preparation, folder)
    session = open_session(model, settings.rule, settings.reset, recorder.outputs)
    scores = run_sequence(session, recorder, plan.lengths)
    return dataclasses.replace(scores, facts=facts(session.device), digest=sequence.digest)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    found.add_argument("--folder", type=Path, default=Path("evaluations/rules"))
    found.add_argument("--rules", nargs="+", default=RULES)
    found.add_argument("--resets", nargs="+", default=RESETS)
    found.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    found.add_argument("--streams", type=int, default=STREAMS, help="of the protocol's eight")
    found.add_argument(
        "--data", type=Path, help="measure sequences of one's own, in this folder, instead"
    )
    found.add_argument("--own-lengths", nargs="+", type=int, default=(50,), help="to score them at")
    found.add_argument("--model", default="builtin")
    found.add_argument("--report", action="store_true", help="write the page of what is there")
    return found


def main() -> None:
    """Measure, or write the page."""
    options = parser().parse_args()
    if options.report:
        from benchmarks.rules_report import write

        write(options.folder, PAGE, FIGURE, TABLE)
        return
    torch.set_num_threads(1)
    model = ttt3r.load(options.model, "cpu", "float32")
    if not isinstance(model, StreamModel):
        raise SettingError("these rules are CUT3R's; name its weights")
    name, plan = (
        ("own", own_plan(options)) if options.data else ("synthetic", synthetic_plan(options))
    )
    known = Known(options.folder / f"encoded-{model.weights.sha256[:12]}.pt")
    for rule in options.rules:
        for reset in options.resets:
            measure(plan, model, rule, reset, options.folder / name, known)
            print(f"{name}: {rule}, reset {reset}", flush=True)
    known.save()


if __name__ == "__main__":
    main()
