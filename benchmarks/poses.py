"""Poses from the head, from points, and refined: `python -m benchmarks.poses`.

A network looks once at each sequence; every way to get poses then reads the same answers. Clips
and streams are synthetic and were not trained on: seeds of the validation choose, those of the test
report. `--data` adds a folder of sequences of one's own. Errors are those of `ttt3r eval`; the
ratio is the geometric mean over sequences of a way's error over that of the head, with a bootstrap
interval.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import ttt3r
from benchmarks import machine
from benchmarks.intervals import geometric
from benchmarks.replayed import Replayed
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.folders import Folders
from ttt3r.evaluation.datasets.synthetic import PATH_FRAMES, STYLES, WORLDS
from ttt3r.evaluation.metrics import trajectory
from ttt3r.scenes import Scene, SceneOptions, make_clip
from ttt3r.sources import prepare_frame
from ttt3r.stream.session import Session
from ttt3r.training.seeds import TEST_SEEDS, VALIDATION_SEEDS
from ttt3r.types import Frame

WAYS: dict[str, dict[str, Any]] = {
    "head": {"pose_from": "head"},
    "points": {"pose_from": "points"},
    "auto": {"pose_from": "auto"},
    "refined": {"pose_from": "head", "refine": True},
    "refined points": {"pose_from": "points", "refine": True},
}
SIZE, CLIP_FRAMES, STREAM_SEEDS = (96, 128), 16, 1000
TITLES = ("ATE (% of path)", "RPE trans (% of path)", "RPE rot (°)", "rotation (°)")


class Sequence(NamedTuple):
    """Images and their true poses."""

    group: str
    name: str
    images: list[np.ndarray]
    truth: np.ndarray


def sequences(options: argparse.Namespace) -> Iterator[Sequence]:
    """All that is measured, one after the other."""
    seeds = TEST_SEEDS if options.seeds == "test" else VALIDATION_SEEDS
    for number in range(options.clips):
        clip = make_clip(seeds + number, CLIP_FRAMES, SIZE, renderer="fast")
        yield Sequence("clips", str(number), list(clip.image.numpy()), _poses(clip))
    for number in range(options.streams):
        world, style = WORLDS[number % len(WORLDS)], STYLES[number % len(STYLES)]
        scene_options = SceneOptions(world=world, style=style, moving=0.0)
        seed = seeds + STREAM_SEEDS + number
        scene = Scene(seed, PATH_FRAMES, SIZE, scene_options, "fast")
        clip = scene.frames(0, options.frames)
        yield Sequence("streams", str(number), list(clip.image.numpy()), _poses(clip))
    for name in Folders().sequences(options.data, "pose") if options.data else ():
        frames = list(Folders().open(options.data, name, Selection("pose", frames=options.frames)))
        truth = np.stack([np.asarray(frame.world_from_camera) for frame in frames])
        yield Sequence("real", name, [frame.image for frame in frames], truth)


def _poses(clip: Any) -> np.ndarray:
    return clip.world_from_camera.double().numpy()


def measure(model: Any, sequence: Sequence, ways: list[str]) -> dict[str, list[float]]:
    """Errors of each way in the order of `TITLES`, and its seconds per frame beside the network."""
    frames = [
        prepare_frame(Frame(image, index, float(index)), model.preparation)
        for index, image in enumerate(sequence.images)
    ]
    replayed, known = Replayed(model, frames), trajectory.finite_poses(sequence.truth)
    path, found = trajectory.path_length(sequence.truth, known) / 100, {}
    for way in ways:
        session, began = Session(replayed, **WAYS[way]), time.perf_counter()
        said = [session.push(frame).world_from_camera for frame in frames]
        seconds = (time.perf_counter() - began) / len(frames)
        estimate = torch.stack([pose for pose in said if pose is not None]).double().numpy()
        errors = trajectory.trajectory_errors(estimate, sequence.truth, "sim3", known)
        turn = trajectory.rotation_error_deg(estimate, sequence.truth, known)
        lengths = errors.ate / path, errors.rpe_translation / path
        found[way] = [*lengths, errors.rpe_rotation_deg, turn, seconds]
    return found


def report(group: str, found: list[dict[str, list[float]]]) -> str:
    """A table of one group of sequences."""
    rows = []
    for way in found[0]:
        errors = np.array([each[way] for each in found])
        heads = np.array([each["head"] for each in found])
        row = [way]
        for column in range(len(TITLES)):
            ratio = geometric(np.stack([errors[:, column], heads[:, column]], axis=1))
            row.append(f"{errors[:, column].mean():.2f}; {ratio.text(2)}")
        rows.append([*row, f"{1000 * np.median(errors[:, -1]):.0f}"])
    head = [f"{group}, {len(found)}", *TITLES, "ms per frame"]
    return machine.table(head, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poses", description=__doc__)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", choices=("validation", "test"), default="validation")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--frames", type=int, default=200, help="of a stream, at most")
    parser.add_argument("--data", type=Path, help="folder of real sequences")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model: Any = ttt3r.load(options.model, "cpu", "float32")
    found: dict[str, list[dict[str, list[float]]]] = {}
    for sequence in sequences(options):
        errors = measure(model, sequence, ["head", *(w for w in options.ways if w != "head")])
        found.setdefault(sequence.group, []).append(errors)
        if sequence.group == "real":
            print(sequence.name, {way: f"{each[0]:.2f}" for way, each in errors.items()})
    print(machine.sentence(machine.describe("cpu")))
    for group, each in found.items():
        print(f"\n{report(group, each)}", flush=True)


if __name__ == "__main__":
    main()
