"""Where the thresholds of health come from: `python -m benchmarks.health`.

The built-in weights look at synthetic streams that no network was trained on, in three ways: short
stretches, the same frames in random order from all streams, and long stretches. Of each frame, the
running mean of the agreement is taken that `ttt3r.trace.health` judges by, and what is true of it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine

SHORT, RUN_IN = 32, 8  # frames of a short stretch; of its beginning, which is not judged
STRIDE = 3
PERCENT = (1, 5, 25, 50, 75, 95, 99)


def look(model: Any, images: list[np.ndarray], truth: list[Any]) -> list[dict[str, Any]]:
    """Say of each frame what the judge saw, and how far it is from the truth, where there is one.

    The error of the depth is the median of |log(predicted / true)| after one scale for the frame.
    """
    from ttt3r.stream.session import Session

    session, found = Session(model, trace=True), []
    for index, image in enumerate(images):
        said = session.push(image)
        trace = session.trace
        assert trace is not None and said.quality is not None
        row = {
            "agreement": trace.judge.agreement,
            "confidence": said.quality.confidence or float("nan"),
            "health": said.quality.health or "",
        }
        if truth:
            assert said.depth is not None
            known = (truth[index] > 0) & (said.depth > 0)
            logs = (said.depth / truth[index])[known].log()
            row["depth"] = float((logs - logs.median()).abs().median())
        found.append(row)
    return found


def measure(streams: int, frames: int) -> dict[str, list[dict[str, Any]]]:
    """Look at streams in all three ways."""
    import torch

    from ttt3r import weights
    from ttt3r.evaluation.datasets.synthetic import SEEDS, STYLES, WORLDS
    from ttt3r.scenes import Scene, SceneOptions

    model = weights.load("builtin", "cpu")
    found: dict[str, list[dict[str, Any]]] = {"short": [], "unrelated": [], "long": []}
    pool = []
    for number in range(streams):
        world, style = WORLDS[number % len(WORLDS)], STYLES[number % len(STYLES)]
        options = SceneOptions(world=world, style=style, moving=0.0)
        scene = Scene(SEEDS + number, 100_000, (96, 128), options, "fast")
        clips = [scene.frames(i, i + 1) for i in range(0, frames * STRIDE, STRIDE)]
        images = [clip.image[0].numpy() for clip in clips]
        truth = [clip.depth[0] for clip in clips]
        pool += images[:SHORT]
        found["short"] += look(model, images[:SHORT], truth[:SHORT])[RUN_IN:]
        found["long"] += look(model, images, truth)[RUN_IN:]
        print(f"stream {number + 1} of {streams}", flush=True)
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0)).tolist()
    found["unrelated"] = look(model, [pool[index] for index in order], [])[RUN_IN:]
    return found


def report(found: dict[str, list[dict[str, Any]]], facts: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    rows = []
    for kind, frames in found.items():
        for key in ("agreement", "confidence"):
            values = np.array([frame[key] for frame in frames])
            values = values[np.isfinite(values)]
            numbers = [f"{value:.3f}" for value in np.percentile(values, PERCENT)]
            rows.append([kind, key, str(len(values)), *numbers])
    head = ["frames", "signal", "count", *(f"{percent} %" for percent in PERCENT)]
    lines = [machine.sentence(facts), "", machine.table(head, rows), ""]
    rows = []
    for kind in found:
        for health in ("in-domain", "drifting", "lost"):
            frames = [frame for frame in found[kind] if frame["health"] == health]
            share = len(frames) / max(len(found[kind]), 1)
            errors = [frame["depth"] for frame in frames if "depth" in frame]
            error = f"{np.median(errors):.3f}" if errors else ""
            rows.append([kind, health, f"{share:.1%}", error])
    head = ["frames", "judged", "share", "error of depth"]
    return "\n".join([*lines, machine.table(head, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.health", description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--frames", type=int, default=120, help="of a long stretch")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    options = parser.parse_args()
    found = measure(options.streams, options.frames)
    print(report(found, machine.describe("cpu")))
    if options.json:
        options.json.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
