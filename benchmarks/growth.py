"""What a stream costs as it gets longer: `python -m benchmarks.growth`.

Every family of networks takes in the same synthetic stream, a walk through furnished rooms, one
frame at a time through `ttt3r.Session`. Each runs in a process of its own, with random weights,
until the stream ends or a budget is spent. See the README beside this file.
"""

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine
from ttt3r.evaluation.machine import clock, peak_memory

MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MIB = 2.0**20
RECENT = 5  # frames up to a mark whose median time is reported
SEED = 7  # of the scene
PART = 8  # frames rendered at a time
COLUMNS = ("family", "frame", "seconds", "state_bytes", "peak_bytes", "pointers", "ended")


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


def state_bytes(state: Any) -> int:
    """Return the size of a state: what a saved session holds."""
    return sum(value.numel() * value.element_size() for value in state.to_tensors().values())


def ended(frame: int, frames: int, reason: str | None) -> str:
    """Say how far a stream got, and why no further."""
    return f"all {frames} frames" if reason is None else f"stopped at frame {frame}: {reason}"


def follow(
    push: Callable[[Any], Any],
    images: Iterator[Any],
    frames: int,
    budgets: tuple[float, float],
    read: Callable[[], dict[str, Any]],
) -> tuple[list[dict[str, Any]], str]:
    """Push frames until they end or a budget is spent.

    Args:
        push: takes in an image.
        images: the stream.
        frames: its length.
        budgets: seconds spent in `push`, bytes of peak memory; the frame that goes beyond one is
            the last, and is measured.
        read: returns what is to be known after a frame, with "peak_bytes".

    Returns:
        One row for each frame of `marks_to` and for the last one, and how the stream ended.
    """
    from torch import device

    cpu, marks = device("cpu"), set(marks_to(frames))
    seconds: list[float] = []
    rows: list[dict[str, Any]] = []
    for frame, image in enumerate(images, start=1):
        start = clock(cpu)
        push(image)
        seconds.append(clock(cpu) - start)
        reason = None
        if frame < frames:
            if sum(seconds) >= budgets[0]:
                reason = "time budget"
            elif (peak_memory() or 0) >= budgets[1]:
                reason = "memory budget"
        if frame in marks or reason:
            since = rows[-1]["frame"] if rows else 0
            recent = seconds[max(since, frame - RECENT) :]
            rows.append({"frame": frame, "seconds": statistics.median(recent), **read()})
        if reason or frame == frames:
            return rows, ended(frame, frames, reason)
    raise ValueError(f"the stream has {len(seconds)} frames, not {frames}")


def measure(
    key: str, width: str, stream: Path, frames: int, budgets: tuple[float, float]
) -> dict[str, Any]:
    """Run one family in this process."""
    import ttt3r
    from benchmarks.growth_networks import FAMILIES, WIDTHS, build, resized

    family, widths = FAMILIES[key], WIDTHS[width]
    size = widths.size(family.network)
    model = build(family, widths)
    source = widths.sizes[16]
    if width != "full":  # where a frame takes seconds, the first one is not special
        ttt3r.Session(model, family.rule).push(resized(next(read_stream(stream, source)), size))
    base = peak_memory()
    session = ttt3r.Session(model, family.rule)

    def read() -> dict[str, Any]:
        pointers = getattr(session.state, "positions", None)
        return {
            "state_bytes": state_bytes(session.state),
            "peak_bytes": peak_memory(),
            "pointers": None if pointers is None else pointers.shape[1],
        }

    images = (resized(image, size) for image in read_stream(stream, source))
    rows, end = follow(session.push, images, frames, budgets, read)
    return {
        "family": key,
        "title": family.title,
        "rows": rows,
        "ended": end,
        "base_bytes": base,
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "size": size,
        "machine": machine.describe("cpu"),
    }


def number(value: float | None) -> str:
    """A number with about three digits; empty if there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def report(results: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    marks = marks_to(settings["frames"])
    sizes = " or ".join(
        dict.fromkeys(f"{result['size'][1]}x{result['size'][0]}" for result in results)
    )
    lines = [
        f"## Growth with the length of the stream, {settings['width']} networks, {sizes} pixels",
        "",
        machine.sentence(results[0]["machine"]),
        f"Command: `{settings['command']}`.",
        "",
        "Weights are random, so all points and poses are meaningless. Point3R's memory grows with "
        "the space that its points explore: its pointers count here what random points do, not "
        "what a trained network would keep.",
        "",
    ]
    rows = []
    for result in results:
        last = result["rows"][-1]
        peaks = [result["weights_bytes"], result["base_bytes"], last["peak_bytes"]]
        peaks = [None if peak is None else peak / MIB for peak in peaks]
        rows.append([result["title"], result["ended"], *map(number, peaks)])
    header = ["family", "went through", "weights (MiB)", "memory before (MiB)", "peak (MiB)"]
    lines += [machine.table(header, rows)]
    parts = [
        ("Milliseconds per frame", "seconds", 1e-3),
        ("Size of the state (MiB)", "state_bytes", MIB),
        ("Peak memory of the process so far (MiB)", "peak_bytes", MIB),
        ("Pointers", "pointers", 1.0),
    ]
    for title, key, unit in parts:
        rows = []
        for result in results:
            found = {row["frame"]: row[key] for row in result["rows"] if row[key] is not None}
            if found:
                values = [found[mark] / unit if mark in found else None for mark in marks]
                rows.append([result["title"], *map(number, values)])
        if rows:
            lines += ["", machine.table([f"{title} at frame", *map(str, marks)], rows)]
    return "\n".join(lines)


def write_csv(results: list[dict[str, Any]], path: Path) -> None:
    """Write one row for each family and measured frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for result in results:
            for row in result["rows"]:
                rounded = {**row, "seconds": f"{row['seconds']:.6f}"}
                writer.writerow({"family": result["title"], **rounded, "ended": result["ended"]})


def run_families(options: argparse.Namespace, chosen: list[str]) -> list[dict[str, Any]]:
    """Render the stream, then run each family in a process of its own."""
    from benchmarks.growth_networks import WIDTHS

    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "stream.rgb"
        render_stream(stream, options.frames, WIDTHS[options.width].sizes[16])
        arguments = ["--width", options.width, "--frames", str(options.frames)]
        arguments += ["--seconds", str(options.seconds), "--memory", str(options.memory)]
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--width", choices=("small", "full", "tiny"), default="small")
    parser.add_argument("--frames", type=int, default=MARKS[-1], help="length of the stream")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of each family")
    parser.add_argument("--memory", type=float, default=16.0, help="budget of each family in GiB")
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
        result = measure(options.worker, options.width, options.stream, options.frames, budgets)
        print(json.dumps(result))
        return
    from benchmarks.growth_networks import FAMILIES

    chosen = options.only.split(",") if options.only else list(FAMILIES)
    if unknown := sorted(set(chosen) - set(FAMILIES)):
        parser.error(f"unknown family {', '.join(unknown)}; choose from {', '.join(FAMILIES)}")
    if options.plot:
        from benchmarks.card_figure import require_matplotlib

        require_matplotlib()
    results = run_families(options, chosen)
    settings = {"width": options.width, "frames": options.frames, "command": command_line()}
    print(report(results, settings))
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
