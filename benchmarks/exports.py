"""Time and memory of exports against those of reading a run: `python -m benchmarks.exports`.

A run of 512x384 frames of a wavy wall, with a folder of photographs of 1920x1440 behind it, is
written to a temporary folder, which takes 2.2 MB per frame. Reading it, and each export, runs in a
process of its own, so that its peak memory is its own, and the files are in the system's cache.
"read" is going through `Run`, as users do; "read with safetensors" is what the public library
takes for the same tensors in the same types: `safetensors.torch.load_file` of each frame, float16
made float32. Shares are given of the seconds by the clock and of processor time, which other
programs on the machine change less.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks import machine
from ttt3r.evaluation.machine import peak_memory
from ttt3r.exporters import export
from ttt3r.runs.frame_file import write_prediction
from ttt3r.runs.manifest import FORMAT, MANIFEST
from ttt3r.runs.reader import INPUTS, Run, frame_path
from ttt3r.sources import open_source
from ttt3r.types import ImageTransform, Prediction

WIDTH, HEIGHT, SCALE, FOCAL = 512, 384, 3.75, 400.0
MIB = 2.0**20
READ, PUBLIC = "read", "read with safetensors"


def wall(index: int) -> Prediction:
    """A frame of a camera that moves sideways in front of a wavy wall; 30 steps to a metre."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    right = (x - WIDTH / 2) / FOCAL
    depth = 3 + 0.2 * np.sin(3 * right + index / 10)
    points = np.stack([right, (y - HEIGHT / 2) / FOCAL, np.ones_like(right)], axis=-1)
    pose = torch.eye(4)
    pose[0, 3] = index / 30
    matrix = [[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]]
    size = round(WIDTH * SCALE), round(HEIGHT * SCALE)
    return Prediction(
        index=index,
        timestamp=index / 30,
        image=torch.full((HEIGHT, WIDTH, 3), index % 256, dtype=torch.uint8),
        points=torch.from_numpy(points * depth[..., None]).float(),
        confidence=torch.full((HEIGHT, WIDTH), 3.0),
        world_from_camera=pose,
        intrinsics=torch.tensor(matrix),
        transform=ImageTransform(size, (WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT)),
    )


def make_run(folder: Path, count: int) -> Path:
    """Write a run of that many frames, and the photographs it is said to be made from."""
    photographs, run = folder / "photographs", folder / "run"
    photographs.mkdir(parents=True)
    (run / "frames").mkdir(parents=True)
    size = round(HEIGHT * SCALE), round(WIDTH * SCALE), 3
    noise = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    Image.fromarray(noise).save(photographs / "000000.jpg", quality=50)
    for index in range(count):
        if index:
            (photographs / f"{index:06d}.jpg").hardlink_to(photographs / "000000.jpg")
        write_prediction(frame_path(run, index), wall(index))
    description = open_source(photographs).describe()
    (run / INPUTS).write_text("".join(f"{line}\n" for line in description.pop("inputs")))
    manifest = {"format": FORMAT, "status": "complete", "source": description}
    (run / MANIFEST).write_text(json.dumps(manifest))
    return run


def measure(run: str, what: str, place: str) -> dict[str, Any]:
    """Read a run in one of two ways, or export it, in this process."""
    opened = Run.open(run)
    paths = [frame_path(opened.folder, index) for index in range(len(opened))]
    for _, path in zip(opened, paths[:3], strict=False):  # whatever is done once
        load_file(path)
    start, before = time.perf_counter(), time.process_time()
    if what == READ:
        for _ in opened:
            pass
    elif what == PUBLIC:
        for path in paths:
            _as_users_get_them(load_file(path))
    else:
        export(opened, what, Path(place) / what)
    return {
        "what": what,
        "frames": len(opened),
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - before,
        "peak_bytes": peak_memory(),
        "machine": machine.describe("cpu"),
    }


def _as_users_get_them(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def report(results: list[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    readers = {
        what: {result["frames"]: result for result in results if result["what"] == what}
        for what in (READ, PUBLIC)
    }
    rows = [
        [
            result["what"],
            f"{result['frames']:,}",
            *(
                text
                for clock in ("seconds", "processor_seconds")
                for text in (
                    f"{result[clock]:.2f}",
                    *(
                        f"{result[clock] / reader[result['frames']][clock]:.2f}"
                        for reader in readers.values()
                    ),
                )
            ),
            f"{result['peak_bytes'] / MIB:.0f}",
        ]
        for result in results
    ]
    shares = ["of read", "of safetensors"]
    head = ["", "frames", "seconds", *shares, "processor seconds", *shares, "peak MiB"]
    return "\n".join(
        [
            f"## Exports of a run, {WIDTH}x{HEIGHT} frames",
            "",
            machine.sentence(results[0]["machine"]),
            "",
            machine.table(head, rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__)
    parser.add_argument("--frames", default="100,1000", help="lengths of the run")
    parser.add_argument("--formats", default="colmap", help="what to export")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(*options.worker)))
        return
    results = []
    for count in sorted(int(text) for text in options.frames.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(Path(folder), count)
            results += [
                machine.in_subprocess("exports", ["--worker", str(run), what, folder])
                for what in (READ, PUBLIC, *options.formats.split(","))
            ]
    print(report(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
