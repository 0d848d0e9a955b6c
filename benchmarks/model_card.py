"""Measure a set of weights and write its model card: `python -m benchmarks.model_card`.

Every number comes from the runner of `ttt3r eval`. The evaluations stay in the work folder, so an
interrupted measurement goes on where it stopped. `--quick` measures next to nothing, to see that
everything runs, and writes into the work folder unless told otherwise.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.card_data import CLIP_FRAMES, HeldOut, Streams, gates_text, weights_rows
from benchmarks.card_goals import Measured, goals_text
from ttt3r.errors import InputError, Ttt3rError
from ttt3r.evaluation import protocols
from ttt3r.evaluation.datasets import DATASETS
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.reports import report
from ttt3r.evaluation.reports.compare import compare, comparison_text
from ttt3r.evaluation.reports.figures import plot_lengths
from ttt3r.evaluation.reports.tables import Table, markdown_table
from ttt3r.evaluation.results import METRICS, Evaluation, Length
from ttt3r.evaluation.runner import evaluate, make_plan, settings_of
from ttt3r.evaluation.store import Store
from ttt3r.stream.clips import open_session

DOCS = machine.ROOT / "docs"
WORK = machine.ROOT / "training-runs" / "model-card"
FIGURES: dict[Task, str] = {"pose": "images/forgetting.png", "depth": "images/forgetting-depth.png"}
TASKS: tuple[Task, ...] = ("pose", "depth")
DATASETS |= {HeldOut.name: HeldOut, Streams.name: Streams}


@dataclass(frozen=True)
class Part:
    """A part of the card, and the evaluations behind it.

    Attributes:
        title: heading of the section.
        about: what is shown to the network.
        protocol: name of the protocol, for poses and for depth.
        variants: rules and reset policies.
        lengths: numbers of frames to score at; all if empty.
        names: sequences to take; all if empty.
    """

    title: str
    about: str
    protocol: str
    variants: tuple[tuple[str, str], ...] = (("overwrite", "never"), ("ttt3r", "never"))
    lengths: tuple[Length, ...] = ()
    names: tuple[str, ...] = ()


PARTS = {
    "clips": Part(
        "Held-out clips",
        "Synthetic clips that were never trained on: every kind of world, some with moving things. "
        "True depths below 60 m count.",
        f"{HeldOut.name}/stride1/{CLIP_FRAMES}",
    ),
    "streams": Part(
        "Long streams",
        "Held-out synthetic streams: indoors, nothing moves, on periodic paths that come back to "
        "earlier places. Every error is that of the first frames up to the length.",
        f"{Streams.name}/stride1/256",
        (
            *((rule, "never") for rule in ("overwrite", "ttt3r")),
            *((rule, "never") for rule in ("damped(overwrite, 0.4)", "damped(ttt3r, 0.3333)")),
        ),
        (16, 32, 64, 128, 256),
        Streams.names[:4],
    ),
    "real": Part(
        "Real sequences",
        "Recordings whose truth is known. Where their poses have an arbitrary unit, only the ATE "
        "in percent of the path can be compared.",
        "folder/stride1/all",
    ),
}
QUICK = {
    "clips": replace(PARTS["clips"], lengths=(4,), names=HeldOut.names[:2]),
    "streams": replace(PARTS["streams"], lengths=(4, 8), names=("stream-0", "stream-1")),
    "real": replace(PARTS["real"], lengths=(4,)),
}


@dataclass(frozen=True)
class Verdict:
    """A question about the weights that a measurement answers.

    Attributes:
        part: key of the part.
        task: which of its evaluations.
        question: in words.
        metric: key of an error.
        against: key of the score of an answer that uses no image.
    """

    part: str
    task: Task
    question: str
    metric: str
    against: str


BETTER: tuple[tuple[Task, str, str, str], ...] = (
    ("depth", "scaled depth is better than the best constant", "scale/abs_rel", "constant/abs_rel"),
    ("pose", "rotation is better than that of a still camera", "rotation", "rotation_static"),
    ("pose", "ATE is better than that of a still camera", "ate", "ate_static"),
    ("pose", "ATE is better than that of random walks", "ate", "ate_walk"),
)
VERDICTS = tuple(Verdict(part, *question) for part in ("clips", "real") for question in BETTER)

CARD = """\
# Model card

<!-- Written by `python -m benchmarks.model_card`; changes made by hand are lost. -->

A recurrent pointmap network of the CUT3R family (arXiv 2501.12387). It takes one image at a time
and predicts the camera pose and the depth of every pixel, with a state of constant size. The state
can be updated with any rule of `ttt3r.rules`; below, `overwrite` is CUT3R's own rule and `ttt3r`
the gated rule of TTT3R (arXiv 2509.26645). No pretrained network was used: training starts from
random numbers and uses only synthetic scenes, which the package renders itself.
{warning}
## In six lines

{goals}

## The weights

{weights}

The metrics are those of [Evaluation](evaluation.md), which also says how they mislead.

{parts}

## Where it fails

* It was trained on synthetic scenes only. Photographs have much that a renderer leaves out: lens
  errors, rolling shutter, motion blur, glass, hair, leaves, faces.
* Outdoors: only one training scene in seven is outdoors, and depths beyond 60 m were not used.
* Fast and wide motion: see the real sequences that turn by tens of degrees.
* It is small and takes small images. Thin or far objects and fine texture are lost.
* It was not trained with ray maps: what it says of a camera without an image means nothing.
* Metric scale is estimated from the kinds of places in the training set.
* It was trained on clips of at most ten frames. Long streams are outside its training.
* Moving objects are treated as part of the static world.

## How to reproduce

```sh
{command}
```

{facts}
"""
RANDOM = """
> **These weights are random.** They show that the measurement runs; no number below says anything
> about a trained network.
"""


def measure(part: Part, task: Task, model: Any, root: Path, folder: Path) -> list[Evaluation]:
    """Return the evaluations of one part, one per rule and reset; go on with what is there.

    Raises:
        InputError: if no sequence can be opened.
    """
    plan = make_plan(protocols.parse(task, part.protocol), root, part.lengths, part.names)
    sessions = [open_session(model, rule, reset) for rule, reset in part.variants]
    dtype = str(next(model.parameters()).dtype)
    settings = [
        settings_of(plan, session, model.preparation.size, dtype.removeprefix("torch."))
        for session in sessions
    ]
    with Store(folder, settings[0], plan.content, resume=True) as store:
        found = []
        for each in settings:
            print(f"{part.title}, {task}: {each.label}", file=sys.stderr, flush=True)
            found.append(evaluate(plan, model, store, each))
    return found


def measure_all(model: Any, parts: Mapping[str, Part], data: Path, work: Path) -> Measured:
    """Return the evaluations of all parts; a part whose data are missing has none."""
    found: dict[tuple[str, Task], Sequence[Evaluation]] = {}
    for key, part in parts.items():
        for task in TASKS:
            try:
                root = data if key == "real" else work.parent / "frames"
                found[key, task] = measure(part, task, model, root, work / f"{key}-{task}")
            except InputError as error:
                print(f"{part.title}, {task}: {error}", file=sys.stderr)
    return found


def answer(verdict: Verdict, evaluation: Evaluation) -> str:
    """Return the answer for one rule at the longest length, as an item of a list.

    An error is better than another if it is lower on most sequences: this needs no unit.
    """
    mean = evaluation.means[-1]
    scores = [score.metrics for score in evaluation.scores(mean.length).values()]
    title = f"* {evaluation.label}: {verdict.question}"
    if mean.failed or not scores:
        return f"{title}: **no**. {mean.failed} sequences failed, {len(scores)} have a score"
    own = [metrics[verdict.metric] for metrics in scores]
    metric = next(m for m in METRICS[verdict.task] if m.key == verdict.metric)
    others = [metrics[verdict.against] for metrics in scores]
    wins = sum(a < b for a, b in zip(own, others, strict=True))
    yes = 2 * wins > len(own)
    medians = [metric.text(statistics.median(values)) for values in (own, others)]
    why = f"lower on {wins} of {len(own)}; medians {medians[0]} and {medians[1]}"
    return f"{title}: {'yes' if yes else '**no**'}. {why}"


def section(key: str, part: Part, measured: Measured, gates: str) -> str:
    """Return the section of one part."""
    texts = [f"## {part.title}", part.about]
    for task in TASKS:
        evaluations = measured.get((key, task))
        if not evaluations:
            texts.append(f"No sequence for {report.TITLES[task].lower()} was there.")
            continue
        texts += [f"### {report.TITLES[task]}", report.results(evaluations)]
        if key == "streams":
            texts.append(f"![Errors against the number of frames]({FIGURES[task]})")
            texts.append(comparison_text(compare(*evaluations[:2])).strip())
        else:
            texts.append(report.baselines(evaluations))
        if key == "real":
            texts.append(report.sequences(evaluations).replace("### ", "#### "))
        asked = [v for v in VERDICTS if (v.part, v.task) == (key, task)]
        texts.append("\n".join(answer(v, e) for e in evaluations for v in asked))
        texts.append("" if (notes := report.notes(evaluations)) == "None." else notes)
    texts.append(gates if key == "streams" else "")
    return "\n\n".join(filter(None, texts))


def card(
    rows: Sequence[tuple[str, str]],
    parts: Mapping[str, Part],
    measured: Measured,
    gates: str,
    command: str,
    *,
    trained: bool,
) -> str:
    """Return the model card.

    Args:
        rows: what to say of the weights; see `card_data.weights_rows`.
        parts: what was to be measured.
        measured: by key of the part and task; see `measure_all`.
        gates: about the gate of the rule ttt3r.
        command: how to measure again.
        trained: whether the weights are.
    """
    facts: dict[str, dict[str, None]] = {}
    for evaluation in (e for evaluations in measured.values() for e in evaluations):
        for name, value in evaluation.facts.items():
            facts.setdefault(name, {})[value] = None
    return CARD.format(
        warning="" if trained else RANDOM,
        goals=goals_text(measured),
        weights=markdown_table(Table(("", ""), (rows,), (0, 1))),
        parts="\n\n".join(section(key, part, measured, gates) for key, part in parts.items()),
        command=command,
        facts="\n".join(f"* {name}: {'; '.join(values)}" for name, values in facts.items()),
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    data = os.environ.get("TTT3R_DATA") or machine.ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--weights", default="builtin", help="a name or path, as ttt3r.load takes it")
    add("--work", type=Path, default=WORK, help="where evaluations are kept")
    add("--out", type=Path, help="folder of the card [docs; with --quick the work folder]")
    add("--data", type=Path, default=Path(data), help="folder of real sequences [$TTT3R_DATA]")
    add("--device", default="auto")
    add("--precision", default="float32")
    add("--quick", action="store_true", help="measure next to nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the card and its figures."""
    import ttt3r

    options = _options(argv)
    out = options.out or (options.work if options.quick else DOCS)
    parts = QUICK if options.quick else PARTS
    name = options.weights if "/" not in options.weights else Path(options.weights).name
    words = ["python -m benchmarks.model_card --weights", name, f"--precision {options.precision}"]
    try:
        machine.require_matplotlib()
        model = ttt3r.load(options.weights, options.device, options.precision)
        key = f"{model.weights.sha256[:12]}-{options.precision}{'-quick' if options.quick else ''}"
        measured = measure_all(model, parts, options.data, options.work / key)
        for task, figure in FIGURES.items():
            plot_lengths(measured["streams", task], out / figure)
        gates = gates_text(model, max(n or 2 for n in parts["streams"].lengths))
    except Ttt3rError as error:
        raise SystemExit(str(error)) from error
    rows = weights_rows(model, options.weights)
    command = " ".join([*words, *(["--quick"] if options.quick else [])])
    text = card(rows, parts, measured, gates, command, trained=model.weights.trained)
    (out / "model-card.md").write_text(text, encoding="utf-8")
    print(f"wrote {out / 'model-card.md'} and {', '.join(FIGURES.values())}", file=sys.stderr)


if __name__ == "__main__":
    main()
