"""What a stream costs as it gets longer: `python -m benchmarks.growth`.

Every family of networks takes in the same synthetic stream, a walk through furnished rooms, one
frame at a time through `ttt3r.Session`; those that look at all views at once also look once at its
first N frames, for ever larger N. Each runs in a process of its own, with random weights, until the
stream ends, a budget is spent or memory runs out. See the README beside this file.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.growth_report import report, write_csv
from ttt3r.evaluation.machine import clock, peak_memory, reset_peak_memory
from ttt3r.stream.base import SessionBase
from ttt3r.stream.shortage import MEMORY_ERRORS, shortage
from ttt3r.weights.network import PRECISIONS

CPU = torch.device("cpu")
MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
RECENT = 5  # frames up to a mark whose median time is reported
SEED = 7  # of the scene
PART = 8  # frames rendered at a time
OUT_OF_MEMORY = "out of memory"


def marks_to(frames: int) -> list[int]:
    """Return the frames after which is measured, the last one included."""
    return sorted({mark for mark in MARKS if mark < frames} | {frames})


def render_stream(path: Path, frames: int, size: tuple[int, int]) -> None:
    """Write a walk through furnished rooms as raw RGB, uint8 [frames, height, width, 3]."""
    from ttt3r.scenes.clip import Scene, SceneOptions

    options = SceneOptions(world="interior", style="walk", moving=0.0)
    scene = Scene(SEED, frames, size, options)
    with path.open("wb") as file:
        for part in scene.chunks(PART):
            file.write(part.image.numpy().tobytes())


def read_stream(path: Path, size: tuple[int, int]) -> Iterator[Any]:
    """Read the frames back one by one, so that the stream itself takes no memory."""
    import numpy as np

    shape = (*size, 3)
    with path.open("rb") as file:
        while len(data := file.read(int(np.prod(shape)))):
            yield np.frombuffer(data, np.uint8).reshape(shape)


def ended(frame: int, frames: int, reason: str | None) -> str:
    """Say how far a stream got, and why no further."""
    return f"all {frames} frames" if reason is None else f"stopped at frame {frame}: {reason}"


def follow(
    push: Callable[[Any], Any],
    images: Iterator[Any],
    frames: int,
    budgets: tuple[float, float],
    read: Callable[[], dict[str, Any]],
    device: torch.device = CPU,
) -> tuple[list[dict[str, Any]], str]:
    """Push frames until they end, a budget is spent or memory runs out.

    Args:
        push: takes in an image.
        images: the stream.
        frames: its length.
        budgets: seconds spent in `push`, bytes of peak memory; the frame that goes beyond one is
            the last, and is measured.
        read: returns what is to be known after a frame, with "peak_bytes".
        device: does the work.

    Returns:
        One row for each frame of `marks_to` and for the last one taken in, and how the stream
        ended. A frame that memory did not suffice for was not taken in.
    """
    marks = set(marks_to(frames))
    seconds: list[float] = []
    rows: list[dict[str, Any]] = []
    known: dict[str, Any] = {}
    for frame, image in enumerate(images, start=1):
        reason = None
        start = clock(device)
        try:
            push(image)
            seconds.append(clock(device) - start)
        except MEMORY_ERRORS as error:
            if shortage(error) is None:
                raise
            reason = OUT_OF_MEMORY
        else:
            known = read()  # now, because the peak would count what a failing frame tried
            if frame < frames:
                reason = overspent(sum(seconds), known["peak_bytes"], budgets)
        taken, since = len(seconds), rows[-1]["frame"] if rows else 0
        if taken > since and (taken in marks or reason):
            recent = seconds[max(since, taken - RECENT) :]
            rows.append({"frame": taken, "seconds": statistics.median(recent), **known})
        if reason or frame == frames:
            return rows, ended(frame, frames, reason)
    raise ValueError(f"the stream has {len(seconds)} frames, not {frames}")


def look_at(
    look: Callable[[list[Any]], Any],
    images: Callable[[], Iterator[Any]],
    frames: int,
    budgets: tuple[float, float],
    read: Callable[[], dict[str, Any]],
    device: torch.device = CPU,
) -> tuple[list[dict[str, Any]], str]:
    """Look once at ever more frames until they end, a budget is spent or memory runs out.

    Args:
        look: answers for images.
        images: begins the stream.
        frames: its length.
        budgets: seconds spent in all looks together, bytes of peak memory; the look that goes
            beyond one is the last, and is measured.
        read: see `follow`.
        device: does the work.

    Returns:
        One row for each look, with the seconds per frame, and how it ended.
    """
    spent = 0.0
    rows: list[dict[str, Any]] = []
    for count in marks_to(frames):
        clip = list(islice(images(), count))
        start = clock(device)
        try:
            look(clip)
        except MEMORY_ERRORS as error:
            if shortage(error) is None:
                raise
            return rows, ended(count, frames, OUT_OF_MEMORY)
        seconds = clock(device) - start
        spent += seconds
        rows.append({"frame": count, "seconds": seconds / count, **read()})
        reason = overspent(spent, rows[-1]["peak_bytes"], budgets)
        if reason and count < frames:
            return rows, ended(count, frames, reason)
    return rows, ended(frames, frames, None)


def overspent(seconds: float, peak: int | None, budgets: tuple[float, float]) -> str | None:
    """Name the budget that is spent, if one is."""
    if seconds >= budgets[0]:
        return "time budget"
    return "memory budget" if (peak or 0) >= budgets[1] else None


def describe(device: torch.device) -> dict[str, Any]:
    """Facts about the machine and the device."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return machine.describe("cpu") | {"gpu": gpu}


def measure(
    key: str,
    width: str,
    stream: Path,
    frames: int,
    budgets: tuple[float, float],
    device: torch.device = CPU,
    precision: str = "float32",
) -> dict[str, Any]:
    """Run one family in this process."""
    from benchmarks.growth_networks import FAMILIES, WIDTHS, build, resized
    from ttt3r.stream.clips import open_session
    from ttt3r.stream.session import Session

    family, widths = FAMILIES[key], WIDTHS[width]
    size, source = widths.size(family.network), widths.sizes[16]
    result: dict[str, Any] = {
        "family": key,
        "title": family.title,
        "rows": [],
        "ended": ended(1, frames, OUT_OF_MEMORY),
        "base_bytes": None,
        "weights_bytes": None,
        "size": size,
        "machine": describe(device),
    }

    def images() -> Iterator[Any]:
        return (resized(image, size) for image in read_stream(stream, source))

    def show(session: SessionBase, clip: Iterable[Any]) -> None:
        deque(session.stream(clip), maxlen=0)

    try:
        model = build(family, widths, PRECISIONS[precision], device)
        result["weights_bytes"] = sum(p.numel() * p.element_size() for p in model.parameters())
        # Where a frame takes seconds, the first one is not special; on a GPU it always is.
        if width != "full" or device.type == "cuda":
            show(open_session(model, family.rule), [next(images())])
        reset_peak_memory(device)
        result["base_bytes"] = peak_memory(device)
        session = open_session(model, family.rule)
    except MEMORY_ERRORS as error:
        if shortage(error) is None:
            raise
        return result

    def read() -> dict[str, Any]:
        pointers = getattr(session.state, "positions", None)
        streams = isinstance(session, Session)
        return {
            "state_bytes": session.state.nbytes if streams else None,
            "peak_bytes": peak_memory(device),
            "pointers": None if pointers is None else pointers.shape[1],
        }

    if isinstance(session, Session):
        rows, end = follow(session.push, images(), frames, budgets, read, device)
    else:
        rows, end = look_at(partial(show, session), images, frames, budgets, read, device)
    return result | {"rows": rows, "ended": end}


def run_families(options: argparse.Namespace, chosen: list[str]) -> list[dict[str, Any]]:
    """Render the stream, then run each family in a process of its own."""
    from benchmarks.growth_networks import WIDTHS

    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "stream.rgb"
        render_stream(stream, options.frames, WIDTHS[options.width].sizes[16])
        arguments = ["--width", options.width, "--frames", str(options.frames)]
        arguments += ["--seconds", str(options.seconds), "--memory", str(options.memory)]
        arguments += ["--device", str(options.device), "--precision", options.precision]
        arguments += ["--stream", str(stream), "--worker"]
        results = []
        for key in chosen:
            results.append(machine.in_subprocess("growth", [*arguments, key]))
            print(f"{results[-1]['title']}: {results[-1]['ended']}", file=sys.stderr)
    return results


def command_line() -> str:
    """The command as a reader would repeat it."""
    threads = os.environ.get("OMP_NUM_THREADS")
    words = [f"OMP_NUM_THREADS={threads}"] if threads else []
    return " ".join([*words, "python -m benchmarks.growth", *sys.argv[1:]])


def find_device(name: str) -> torch.device:
    """Return `cpu`, `cuda` or a numbered one such as `cuda:1`.

    Raises:
        argparse.ArgumentTypeError: if it is none of these, or this machine does not have it.
    """
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if found is None:
        raise argparse.ArgumentTypeError(f"choose cpu, cuda or a GPU such as cuda:1, not {name!r}")
    count = 1 if name == "cpu" else torch.cuda.device_count()
    if int(found[1] or 0) >= count:
        last = f"the last GPU here is cuda:{count - 1}" if count else "PyTorch finds no CUDA GPU"
        raise argparse.ArgumentTypeError(f"{name} is not available: {last}")
    return torch.device(name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--width", choices=("small", "full", "tiny"), default="small")
    parser.add_argument("--frames", type=int, default=MARKS[-1], help="length of the stream")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of each family")
    parser.add_argument("--memory", type=float, default=16.0, help="budget of each family in GiB")
    parser.add_argument("--device", type=find_device, default=CPU, help="cpu, cuda, cuda:1, …")
    parser.add_argument(
        "--precision", choices=tuple(PRECISIONS), default="float32", help="of encoder and decoders"
    )
    parser.add_argument("--only", help="families, separated by commas")
    parser.add_argument("--csv", type=Path, help="also write a table to this file")
    parser.add_argument("--plot", type=Path, help="also draw a figure (PNG)")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.frames < 1:
        parser.error(f"a stream has at least one frame, not {options.frames}")
    if options.worker:
        budgets = (options.seconds, options.memory * machine.GIB)
        run = (options.width, options.stream, options.frames, budgets)
        print(json.dumps(measure(options.worker, *run, options.device, options.precision)))
        return
    from benchmarks.growth_networks import FAMILIES

    chosen = options.only.split(",") if options.only else list(FAMILIES)
    if unknown := sorted(set(chosen) - set(FAMILIES)):
        parser.error(f"unknown family {', '.join(unknown)}; choose from {', '.join(FAMILIES)}")
    if options.plot:
        machine.require_matplotlib()
    results = run_families(options, chosen)
    settings = {
        "width": options.width,
        "frames": options.frames,
        "device": str(options.device),
        "precision": options.precision,
        "command": command_line(),
    }
    print(report(results, settings, marks_to(options.frames)))
    if options.csv:
        write_csv(results, options.csv)
    if options.json:
        kept = {"settings": settings, "results": results}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    if options.plot:
        from benchmarks.growth_figure import draw

        draw(results, options.plot)


if __name__ == "__main__":
    main()
