"""What `benchmarks.growth` prints and keeps of its measurements."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

MIB = 2.0**20
COLUMNS = ("family", "frame", "seconds", "state_bytes", "peak_bytes", "pointers", "ended")


def growth_per_frame(rows: list[dict[str, Any]]) -> float | None:
    """Bytes that a frame adds to the state, on average from the first to the last measured frame.

    None of fewer than two frames, or where nothing is carried from frame to frame.
    """
    if len(rows) < 2 or rows[0]["state_bytes"] is None:
        return None
    first, last = rows[0], rows[-1]
    return (last["state_bytes"] - first["state_bytes"]) / (last["frame"] - first["frame"])


def on_gpu(results: list[dict[str, Any]]) -> bool:
    """Whether a GPU was measured, and memory is therefore the GPU's."""
    return results[0]["machine"]["gpu"] is not None


def number(value: float | None) -> str:
    """A number with about three digits; empty if there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def in_mib(value: float | None) -> str:
    """A number of bytes in MiB; empty if there is none."""
    return number(None if value is None else value / MIB)


def report(results: list[dict[str, Any]], settings: dict[str, Any], marks: Sequence[int]) -> str:
    """The measurements as Markdown.

    Args:
        results: as of `growth.measure`.
        settings: "width", "precision" and "command".
        marks: the frames that get a column.
    """
    sizes = " or ".join(
        dict.fromkeys(f"{result['size'][1]}x{result['size'][0]}" for result in results)
    )
    networks = f"{settings['width']} networks"
    networks += "" if settings["precision"] == "float32" else f" in {settings['precision']}"
    lines = [
        f"## Growth with the length of the stream, {networks}, {sizes} pixels",
        "",
        machine.sentence(results[0]["machine"]),
        f"Command: `{settings['command']}`.",
        "",
        "Weights are random, so all points and poses are meaningless. Point3R's memory grows with "
        "the space that its points explore: its pointers count here what random points do, not "
        "what a trained network would keep.",
        "",
        overview(results),
    ]
    memory = "GPU memory" if on_gpu(results) else "memory of the process"
    parts = [
        ("Milliseconds per frame", "seconds", 1e-3),
        ("Size of the state (MiB)", "state_bytes", MIB),
        (f"Peak {memory} so far (MiB)", "peak_bytes", MIB),
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


def overview(results: list[dict[str, Any]]) -> str:
    """One row for each family: how far it got, its memory, and what a frame adds to its state."""
    rows = []
    for result in results:
        peak = result["rows"][-1]["peak_bytes"] if result["rows"] else None
        sizes = [result["weights_bytes"], result["base_bytes"], peak]
        sizes.append(growth_per_frame(result["rows"]))
        rows.append([result["title"], result["ended"], *map(in_mib, sizes)])
    gpu = "GPU " if on_gpu(results) else ""
    header = ["family", "went through", "weights (MiB)", f"{gpu}memory before (MiB)"]
    header += [f"{gpu}peak (MiB)", "state grows by (MiB per frame)"]
    return machine.table(header, rows)


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
