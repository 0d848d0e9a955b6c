"""Memory against the length of the stream: `python -m benchmarks.memory`.

A small network with random weights reconstructs an endless synthetic stream through the public
`ttt3r.reconstruct`, which writes the run to a temporary folder. Every length runs in a process of
its own, so that its peak is its own.
"""

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import machine
from ttt3r.evaluation.machine import peak_memory

SIZE = (48, 64)
MIB = 2.0**20


def measure(count: int, device: str) -> dict[str, Any]:
    """Reconstruct `count` frames in this process."""
    import torch

    import ttt3r
    from benchmarks.networks import SMALL, frames, random_network

    torch.set_num_threads(1)  # such small products gain nothing from more
    model = random_network(SMALL, device=device)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        kept = 0
        with ttt3r.reconstruct(frames(*SIZE), model=model, out=run) as predictions:
            for prediction in islice(predictions, count):
                tensors = (value for value in vars(prediction).values() if torch.is_tensor(value))
                kept += sum(value.numel() * value.element_size() for value in tensors)
        on_disk = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    return {
        "frames": count,
        "peak_bytes": peak_memory(),
        "gpu_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "run_bytes": on_disk,
        "predictions_bytes": kept,
        "seconds": time.perf_counter() - start,
        "machine": machine.describe(device),
    }


def spread(values: list[float]) -> float:
    """By how much the largest exceeds the smallest, relative to the smallest."""
    return max(values) / min(values) - 1


def report(results: list[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    kinds = {"peak_bytes": "peak memory (MiB)", "gpu_bytes": "peak GPU memory (MiB)"}
    kinds = {key: title for key, title in kinds.items() if results[0][key] is not None}
    rows = [
        [
            str(result["frames"]),
            *(f"{result[kind] / MIB:.1f}" for kind in kinds),
            f"{result['predictions_bytes'] / MIB:.1f}",
            f"{result['run_bytes'] / MIB:.1f}",
            f"{1e3 * result['seconds'] / result['frames']:.1f}",
        ]
        for result in results
    ]
    rest = ["predictions made (MiB)", "run on disk (MiB)", "ms per frame"]
    verdicts = [
        f"{title.removesuffix(' (MiB)').capitalize()} is flat within "
        f"{spread([result[kind] for result in results]):.1%} "
        f"from {results[0]['frames']} to {results[-1]['frames']} frames."
        for kind, title in kinds.items()
    ]
    return "\n".join(
        [
            f"## Memory against stream length, small network, {SIZE[1]}x{SIZE[0]} frames",
            "",
            machine.sentence(results[0]["machine"]),
            "",
            machine.table(["frames", *kinds.values(), *rest], rows),
            "",
            *verdicts,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--frames", default="100,200,500,1000,2000", help="stream lengths")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    lengths = sorted(int(length) for length in options.frames.split(","))
    if options.worker:
        print(json.dumps(measure(lengths[0], options.device)))
        return
    results = [
        machine.in_subprocess(
            "memory", ["--worker", "--frames", str(length), "--device", options.device]
        )
        for length in lengths
    ]
    print(report(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
