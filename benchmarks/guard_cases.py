"""The few cases of `benchmarks.guard`, each a short stream of frames: seconds per frame.

They use no more of the package than what every commit has: `ttt3r.load`, `Session.push` and
`reconstruct`. Older commits must be able to run them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ttt3r
from benchmarks.networks import SMALL, frames

WARM_UP = 2
BUILTIN = (96, 128)  # height, width
Cost = dict[str, float]  # "processor" and "clock", in seconds per frame


def write_video(path: Path, count: int, size: tuple[int, int], rate: int = 30) -> None:
    """Write the moving pattern of `benchmarks.networks.frames` as a video."""
    from ttt3r.drawing.videos import video_writer

    with video_writer(path, "mp4", size, rate) as write:
        for number, frame in zip(range(count), frames(*size), strict=False):
            write(frame, number)


@contextmanager
def timed(cost: Cost, count: int = 1) -> Iterator[None]:
    """Write down the seconds per item of a block: of the processor, and by the clock."""
    before = time.process_time(), time.perf_counter()
    yield
    after = time.process_time(), time.perf_counter()
    for name, start, end in zip(("processor", "clock"), before, after, strict=True):
        cost[name] = (end - start) / count


def pushed(model: Any, size: tuple[int, int], count: int) -> Cost:
    """The least of the frames that a session takes in, after those that warm up.

    What else a machine does only adds to the time of a frame.
    """
    session, feed = ttt3r.Session(model), frames(*size)
    costs: list[Cost] = []
    for _ in range(WARM_UP + count):
        image, cost = next(feed), Cost()
        with timed(cost):
            session.push(image)
        costs.append(cost)
    measured = costs[WARM_UP:]
    return {name: min(cost[name] for cost in measured) for name in measured[0]}


def step(count: int, video: Path) -> Cost:
    """Frames pushed into the built-in network."""
    return pushed(ttt3r.load("builtin", "cpu"), BUILTIN, count)


def wide(count: int, video: Path) -> Cost:
    """Small frames pushed into a network as wide as the released one, of few layers and tokens."""
    from benchmarks.networks import RELEASED, random_network

    less = {"encoder_depth": 4, "decoder_depth": 2, "state_size": 192, "memory_size": 64}
    config = replace(RELEASED[224][0], ray_encoder_depth=1, **less)
    return pushed(random_network(config), BUILTIN, max(1, count // 2))


def tiny(count: int, video: Path) -> Cost:
    """Frames pushed into a network for tests, which says whether the guard works at all."""
    from benchmarks.networks import random_network

    return pushed(random_network(SMALL), (32, 32), count)


def pipeline(count: int, video: Path) -> Cost:
    """A video reconstructed into a run on disk by the built-in network."""
    model = ttt3r.load("builtin", "cpu")
    pushed(model, BUILTIN, 1)
    cost: Cost = {}
    with tempfile.TemporaryDirectory() as folder:
        reconstruction = ttt3r.reconstruct(video, model=model, out=Path(folder) / "run")
        first = next(reconstruction)
        assert first.world_from_camera is not None
        with timed(cost):
            rest = sum(1 for _ in reconstruction)
    return {name: seconds / rest for name, seconds in cost.items()}


CASES: dict[str, Callable[[int, Path], Cost]] = {
    "step": step,
    "wide": wide,
    "pipeline": pipeline,
    "tiny": tiny,
}


def measure(names: list[str], count: int, video: Path) -> dict[str, Cost]:
    """Measure cases in this process."""
    return {name: CASES[name](count, video) for name in names}


def check_source(expected: Path) -> None:
    """Make sure that the package comes from a folder.

    Raises:
        RuntimeError: if it comes from another one.
    """
    found = Path(ttt3r.__file__).resolve()
    if not found.is_relative_to(expected.resolve()):
        raise RuntimeError(f"ttt3r was imported from {found}, not from {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    options = parser.parse_args()
    check_source(options.source)
    print(json.dumps(measure(options.cases.split(","), options.frames, options.video)))


if __name__ == "__main__":
    main()
