"""The model card as Markdown, made from numbers alone."""

from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from benchmarks.card_rows import BASELINES, Row
from benchmarks.card_verdicts import (
    UNDEFINED,
    Verdict,
    all_verdicts,
    mean,
    median,
    number,
    stream_rows,
    values,
)

FIGURE = "images/forgetting.png"
MIB = 2.0**20
# (key of a row, title of the column, digits)
DEPTH = (
    ("abs_rel_metric", "AbsRel metric", 3),
    ("delta_metric", "δ<1.25 metric", 3),
    ("abs_rel", "AbsRel scaled", 3),
    ("delta", "δ<1.25 scaled", 3),
)
POSES = (
    ("ate", "ATE (m)", 3),
    ("ate_percent", "ATE (% of path)", 1),
    ("rotation", "rotation (°)", 2),
    ("rpe_translation", "RPE-t (m)", 4),
    ("rpe_rotation", "RPE-r (°)", 2),
)
PLACED = (
    ("placed", "predicted poses"),
    ("placed_static", "no motion"),
    ("placed_true", "true poses (bound)"),
)
UNITLESS = ("fox",)  # poses up to an unknown scale: lengths are in the poses' own unit

INTRODUCTION = """\
# Model card

<!-- Written by `python -m benchmarks.model_card`; changes made by hand are lost. -->

A recurrent pointmap network of the CUT3R family (arXiv 2501.12387). It takes one image at a time
and says where the camera is and how far every pixel lies, from a state of constant size. Its state
may be updated under any rule of `ttt3r.rules`; below, `overwrite` is CUT3R's own and `ttt3r` the
gated rule of TTT3R (arXiv 2509.26645). No pretrained network went into it: it starts from random
numbers and is trained on synthetic scenes only, which the package renders itself."""

RANDOM = """\
> **These weights are random.** They show that the measurement runs; no number below says anything
> about a trained network."""

PROTOCOL = """\
* Depth is z in the camera's frame, scored at the network's own pixels against the nearest true one.
  *Metric* takes it as predicted; *scaled* multiplies a whole sequence by the one scale with the
  least Σ |s p - g|. AbsRel is mean |p - g| / g.
* *ATE* is the RMS distance of camera centres after the best similarity transform, *rotation* the
  mean angle between predicted and true rotation since the first frame, *RPE* the RMS error of the
  motion between neighbouring frames.
* *best constant depth*: metric, the constant that fits the training clips best; scaled, the one
  that fits the very sequence best, which no constant can beat. *mean depth image*: the mean depth
  map of the training clips. *static camera*: stands still, at the best place. *constant velocity*:
  is told the true first step and repeats it. *random walk*: takes random steps, mean of eight.
* The fit of a similarity forgives much: **every** path that can be fitted has a smaller ATE than
  the static camera, a random one too. Only an ATE well below the random walk's says anything.
* Means are plain means over sequences. A prediction that is not finite is a failure and is listed;
  n/a is not defined or not measured (no true depth, or a path that lies on a line)."""

LIMITS = """\
* It has seen synthetic scenes only. Photographs differ from them in everything that a renderer
  leaves out: lens faults, rolling shutter, motion blur, glass, hair, leaves, faces.
* Outdoors: one training scene in seven is, and nothing beyond 60 m was ever learned from.
* Fast and wide motion: see the real sequences that turn by tens of degrees.
* It is small and sees small images. Thin things, far things and fine texture are lost.
* Metric scale is a guess from the kinds of places in the training set.
* It was trained on clips of a few frames. Long streams lie outside of what it has learned; the
  tables by length above say what becomes of them.
* Where things move, they are taken for part of the static world."""


def render_card(results: dict[str, Any], provenance: dict[str, Any]) -> str:
    """Return the model card.

    Args:
        results: "settings", "training" and the three parts "clips", "streams" and "real", as
            `benchmarks.model_card` collects them.
        provenance: `card_data.weights_facts`, and "machine", "command" and "seconds".
    """
    verdicts = all_verdicts(results)
    sections = [
        INTRODUCTION,
        "" if provenance["trained"] else RANDOM,
        _weights(provenance),
        "## What the numbers mean\n\n" + PROTOCOL,
        _clips(results, verdicts["clips"]),
        _streams(results, verdicts["streams"]),
        _real(results, verdicts["real"]),
        _failures(results),
        _reproduce(results, provenance),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _weights(facts: dict[str, Any]) -> str:
    hours = facts["seconds_trained"]
    frames = facts["frames_trained"]
    rows = [
        ["weights", f"{facts['name']}, SHA-256 `{facts['sha256']}`"],
        ["licence", f"{facts['licence']}, by {facts['origin']}"],
        [
            "parameters",
            f"{facts['parameters'] / 1e6:.2f} million, {facts['bytes'] / MIB:.1f} MiB in memory",
        ],
        ["encoder", str(facts["encoder"])],
        ["decoders", f"{facts['decoders']}, {facts['head']} head"],
        ["state", f"{facts['state_tokens']} tokens, {facts['state_bytes'] / 1024:.0f} KiB in all"],
        ["images", f"longer side {facts['image_size']}, patches of {facts['patch_size']} pixels"],
        ["training data", "synthetic scenes of `ttt3r.scenes`, seeds from 1000000 on"],
        ["recipe", str(facts["recipe"])],
        ["frames seen", "unknown" if frames is None else f"{frames:,.0f}"],
        ["training time", "unknown" if hours is None else f"{hours / 3600:.1f} hours"],
        ["training machine", str(facts["machine_trained"])],
        ["training commit", str(facts["commit"])],
    ]
    lines = ["| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]
    return "## The weights\n\n" + "\n".join(lines)


def _table(header: list[str], rows: list[list[str]]) -> str:
    return machine.table(header, rows)


def _both(rows: Sequence[Row], key: str, digits: int) -> str:
    """Mean / median."""
    if not values(rows, key):
        return UNDEFINED
    return f"{number(mean(rows, key), digits)} / {number(median(rows, key), digits)}"


def _list(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(verdict.line() for verdict in verdicts)


def _clips(results: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    methods, settings = results["clips"], results["settings"]
    count = len(next(iter(methods.values())))
    height, width = settings["size"]
    depth, poses = (
        _table(
            ["mean / median", *(title for _, title, _ in columns)],
            [
                [name, *(_both(rows, key, digits) for key, _, digits in columns)]
                for name, rows in methods.items()
                if any(values(rows, key) for key, _, _ in columns)
            ],
        )
        for columns in (DEPTH, POSES)
    )
    placed = _table(
        ["mean / median", *(title for _, title in PLACED)],
        [
            [name, *(_both(methods[name], key, 3) for key, _ in PLACED)]
            for name in methods
            if name not in BASELINES
        ],
    )
    speed = mean(methods["ttt3r"], "fps")
    return "\n\n".join(
        [
            "## Held-out clips",
            f"{count} synthetic clips that were never trained on, {settings['clip_frames']} frames "
            f"of {width}x{height}, every kind of world, some with moving things; true depths below "
            f"60 m count. The session takes {number(speed, 1)} frames per second.",
            depth,
            poses,
            "Error of points in the world over their distance from the camera, after one scale per "
            "clip, when they are placed by the predicted poses, by a camera that never moves, and "
            "by the true poses, which no poses can be expected to beat:",
            placed,
            _list(verdicts),
            _notes({name: rows for name, rows in methods.items() if name not in BASELINES}),
        ]
    ).rstrip()


def _notes(methods: dict[str, list[Row]]) -> str:
    lines = []
    for name, rows in methods.items():
        failed = sum(bool(row.get("failed")) for row in rows)
        partly = sum(bool(row.get("notes")) and not row.get("failed") for row in rows)
        if failed:
            lines.append(f"* {name}: **{failed} of {len(rows)} sequences failed**.")
        if partly:
            lines.append(f"* {name}: {partly} of {len(rows)} sequences lack a number.")
    return "\n".join(lines)


def _streams(results: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    streams, settings = results["streams"], results["settings"]
    prefixes = settings["prefixes"]
    methods = list(streams[0]["prefixes"][str(prefixes[0])])
    height, width = settings["size"]
    parts = [
        "## Long streams",
        f"{len(streams)} held-out synthetic streams of {prefixes[-1]} frames of {width}x{height}, "
        "indoors, nothing moves, on periodic paths that come back to earlier places. All methods "
        "see the same frames; every error is that of the stream's first frames up to the length, "
        "with the similarity and the scale fitted to these. Means over streams.",
        f"![ATE and AbsRel against the length of the stream]({FIGURE})",
    ]
    for key, title, digits in (
        ("ate", "ATE (m)", 3),
        ("ate_percent", "ATE (% of the path so far)", 2),
        ("abs_rel", "AbsRel, scaled", 3),
        ("rotation", "Rotation (°)", 2),
    ):
        rows = []
        for name in methods:
            by_length = [stream_rows(streams, frames, name) for frames in prefixes]
            if any(values(found, key) for found in by_length):
                rows.append([name, *(_counted(found, key, digits) for found in by_length)])
        parts.append(_table([title, *map(str, prefixes)], rows))
    parts.append(_list(verdicts))
    parts.append("A rule beats another where its mean is lower, and it is lower on most streams.")
    parts.append(_gates([stream["gate"] for stream in streams]))
    last = {
        name: stream_rows(streams, prefixes[-1], name) for name in methods if name not in BASELINES
    }
    parts.append(_notes(last))
    return "\n\n".join(filter(None, parts))


def _counted(rows: Sequence[Row], key: str, digits: int) -> str:
    """Mean, and over how many where some are undefined."""
    defined = len(values(rows, key))
    count = f" (of {defined})" if 0 < defined < len(rows) else ""
    return number(mean(rows, key), digits) + count


def _gates(gates: Sequence[Row]) -> str:
    def say(key: str) -> str:
        return number(mean(gates, key))

    return (
        f"The gate β of `ttt3r` has the median {say('median')} (5 % below {say('percentile_5')}, "
        f"5 % above {say('percentile_95')}; means over streams). Its standard deviation over the "
        f"tokens at a frame is {say('spread_over_tokens')}, over the frames at a token "
        f"{say('spread_over_frames')}."
    )


def _real(results: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    real = results["real"]
    if not real:
        return (
            "## Real sequences\n\nNot measured: the folder of real sequences was not there. "
            "Name it with `--data` or `TTT3R_DATA`."
        )
    columns = (DEPTH[0], DEPTH[2], DEPTH[3], *POSES)
    rows = []
    for sequence in real:
        for name, row in sequence["rows"].items():
            cells = [number(row.get(key), digits) for key, _, digits in columns]
            if set(cells) != {UNDEFINED}:
                rows.append([sequence["name"], name, *cells])
    sizes = ", ".join(
        f"{s['name']} ({s['frames']} frames, seen at {s['size'][1]}x{s['size'][0]})" for s in real
    )
    parts = [
        "## Real sequences",
        f"{sizes}. Lengths of {', '.join(UNITLESS)} are in the unit of its poses, which is "
        "arbitrary; means over sequences therefore compare the ATE in percent of the path.",
        _table(["sequence", "method", *(title for _, title, _ in columns)], rows),
        _list(verdicts),
    ]
    said: dict[tuple[str, str], list[str]] = {}
    for sequence in real:
        for name, row in sequence["rows"].items():
            for note in row.get("notes", []) if name not in BASELINES else []:
                said.setdefault((sequence["name"], note), []).append(name)
    notes = [f"* {name}: {note} ({'; '.join(by)})." for (name, note), by in said.items()]
    return "\n\n".join([*parts, "\n".join(notes)]).rstrip()


def _failures(results: dict[str, Any]) -> str:
    clips, streams, real = results["clips"]["ttt3r"], results["streams"], results["real"]
    prefixes = results["settings"]["prefixes"]
    lines = [LIMITS]

    def worst(rows: Sequence[Row], key: str) -> str:
        return number(max(values(rows, key), default=None))

    lines.append(
        f"* The worst clip has an AbsRel (scaled) of {worst(clips, 'abs_rel')} and a rotation "
        f"error of {worst(clips, 'rotation')}° under `ttt3r`."
    )
    first, last = (stream_rows(streams, n, "ttt3r") for n in (prefixes[0], prefixes[-1]))
    lines.append(
        f"* From {prefixes[0]} to {prefixes[-1]} frames the ATE grows from "
        f"{number(mean(first, 'ate'))} m to {number(mean(last, 'ate'))} m and AbsRel from "
        f"{number(mean(first, 'abs_rel'))} to {number(mean(last, 'abs_rel'))} under `ttt3r`."
    )
    scored = [s for s in real if s["rows"]["ttt3r"].get("abs_rel") is not None]
    if scored:
        bad = max(scored, key=lambda s: s["rows"]["ttt3r"]["abs_rel"])
        lines.append(
            f"* Of the real sequences its depth is worst on {bad['name']}: AbsRel (scaled) "
            f"{number(bad['rows']['ttt3r']['abs_rel'])}."
        )
    return "## Where it fails\n\n" + "\n".join(lines)


def _reproduce(results: dict[str, Any], provenance: dict[str, Any]) -> str:
    settings, training = results["settings"], results["training"]
    return "\n\n".join(
        [
            "## How to reproduce",
            f"```sh\n{provenance['command']}\n```",
            f"Clips have the seeds {settings['clip_seed']} and following, streams "
            f"{settings['stream_seed']} and following. The baselines know {training['clips']} "
            f"training clips, whose best constant is {training['constant']:.2f} m.",
            f"{machine.sentence(provenance['machine'])} "
            f"This run took {provenance['seconds'] / 60:.0f} minutes; what an earlier run had "
            "measured was not measured again.",
        ]
    )
