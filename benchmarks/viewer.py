"""What a live viewer costs: `python -m benchmarks.viewer`.

Two measurements, each with a client in a process of its own that asks as the page does:

* frames per second, and seconds of the processor per frame, of a session with the built-in weights,
  with the viewer and without, in turn; on a busy machine only the latter mean something;
* memory of a viewer over a long stream of frames, in a process of its own.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import machine


def client(url: str) -> None:
    """Ask for changes and details, again and again, as the page does."""
    version = 0
    with contextlib.suppress(OSError):
        while True:
            with urllib.request.urlopen(f"{url}changes?after={version}", timeout=30) as answer:
                content = answer.read()
            head = int.from_bytes(content[:4], "little")
            said = json.loads(content[8 : 8 + head])
            version = said["version"]
            with contextlib.suppress(urllib.error.HTTPError):
                frame = said["facts"]["frames"] - 1
                urllib.request.urlopen(f"{url}frame?index={frame}", timeout=30).read()
            time.sleep(1.0)


@contextlib.contextmanager
def watched() -> Iterator[Any]:
    """A viewer that somebody looks at."""
    from ttt3r.runs.facts import Facts
    from ttt3r.viewer.live import LiveViewer
    from ttt3r.viewer.server import Address

    with LiveViewer(Facts("benchmark"), Address(port=0)) as viewer:
        process = multiprocessing.get_context("spawn").Process(target=client, args=(viewer.url,))
        process.start()
        time.sleep(2.0)
        try:
            yield viewer
        finally:
            process.kill()
            process.join()


def rates(frames: int, rounds: int) -> dict[str, Any]:
    """Frames per second without and with the viewer, in turn."""
    import ttt3r

    model = ttt3r.load("builtin", device="cpu")
    side = model.preparation.size
    generator = np.random.default_rng(0)
    base = generator.integers(0, 256, (side * 3 // 4 // 16 * 16, side, 3), np.uint8)
    images = [np.roll(base, 4 * number, axis=1) for number in range(frames)]

    def measure(viewer: Any) -> dict[str, float]:
        session = ttt3r.Session(model)
        for image in images[:3]:
            session.push(image)
        began, worked = time.perf_counter(), time.process_time()
        for image in images:
            prediction = session.push(image)
            if viewer is not None:
                viewer.show(prediction)
        return {
            "fps": frames / (time.perf_counter() - began),
            "cpu_seconds": (time.process_time() - worked) / frames,
        }

    pairs = []
    measure(None)
    with watched() as viewer:
        for _ in range(rounds):
            pairs.append((measure(None), measure(viewer)))
            print(*pairs[-1], file=sys.stderr, flush=True)
    ratios = {
        name: [seen[name] / without[name] for without, seen in pairs]
        for name in ("fps", "cpu_seconds")
    }
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return {"frames": frames, "rounds": rounds, "ratio_medians": medians, "pairs": pairs}


def memory(frames: int, queue: Any) -> None:
    """Resident memory after every tenth of a long stream, in bytes."""
    import torch

    from ttt3r.cli.progress import resident_bytes
    from ttt3r.types import Prediction

    height, width = 384, 512
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rays = torch.stack([(columns - 256) / 400, (rows - 192) / 400, torch.ones(rows.shape)], dim=-1)
    sizes = []
    with watched() as viewer:
        for index in range(frames):
            # A new place every frame: nothing that was seen before, the worst there is.
            pose = torch.eye(4)
            pose[0, 3] = 0.5 * index
            depth = 3 + torch.rand((height, width), generator=generator)
            viewer.show_now(
                Prediction(
                    index=index,
                    timestamp=index / 30,
                    points=rays * depth[..., None],
                    confidence=1 + 4 * torch.rand((height, width), generator=generator),
                    world_from_camera=pose,
                    image=(255 * torch.rand((height, width, 3), generator=generator)).byte(),
                )
            )
            if (index + 1) % (frames // 10) == 0:
                sizes.append(resident_bytes())
    queue.put(sizes)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40, help="per round of the first measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream", type=int, default=2000, help="frames of the second one")
    words = parser.parse_args()
    result: dict[str, Any] = {"machine": machine.describe("cpu")}
    if words.rounds:
        result["rate"] = rates(words.frames, words.rounds)
    if words.stream:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=memory, args=(words.stream, queue))
        process.start()
        result["memory_bytes"] = queue.get()
        process.join()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
