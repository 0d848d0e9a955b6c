"""Frames per second of `ttt3r run`, from decoding to writing: `python -m benchmarks.pipeline`.

A video goes through the command itself, in a process of its own with `--profile`. The profile then
says what the network's thread did with its time: how much of it the network worked, and how much it
waited for the next frame or for the writer.
"""

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.guard_cases import BUILTIN, write_video

# In the order of the table. "rest" is what has no span: bookkeeping and the command's own output.
WORK = ("encode", "step", "hand over")
WAITS = ("wait for input", "wait for writer")
OTHERS = ("decode", "prepare", "write", "checkpoint", "keep")
NETWORK = "MainThread"


def threads_of(trace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The spans of a profile, by the name of their thread."""
    events = trace["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[names[event["tid"]]].append(event)
    return found


def seconds_by_name(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Seconds of all spans of a name."""
    total: dict[str, float] = defaultdict(float)
    for event in events:
        total[event["name"]] += event["dur"] / 1e6
    return total


def digest(trace: dict[str, Any]) -> dict[str, Any]:
    """Frames, and what the threads did from the end of the first frame to that of the last.

    The first frame is left out: it makes tables and starts threads.
    """
    threads = threads_of(trace)
    network = sorted(threads[NETWORK], key=lambda event: event["ts"])
    ends = [event["ts"] + event["dur"] for event in network if event["name"] == "hand over"]
    start, end = ends[0], max(event["ts"] + event["dur"] for event in network)
    late = [event for event in network if event["ts"] >= start]
    spent = seconds_by_name(late)
    total = (end - start) / 1e6
    beside = seconds_by_name(
        event for name, spans in threads.items() if name != NETWORK for event in spans
    )
    return {
        "frames": len(ends) - 1,
        "seconds": total,
        "network": {name: spent[name] for name in (*WORK, *WAITS)}
        | {"rest": total - sum(spent[name] for name in (*WORK, *WAITS))},
        "heads": spent["heads"],
        "beside": {name: beside[name] for name in OTHERS},
        "waiting": sum(spent[name] for name in WAITS) / total,
    }


def run_command(words: Sequence[str], profile: Path) -> dict[str, Any]:
    """Run `ttt3r run` with these words, and digest its profile.

    Raises:
        RuntimeError: if the command fails.
    """
    command = [sys.executable, "-m", "ttt3r", "run", *words, "--profile", str(profile), "--quiet"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    status = subprocess.run(command, cwd=machine.ROOT).returncode
    if status:
        raise RuntimeError(f"{shlex.join(command)} failed with status {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = digest(json.loads(profile.read_text("utf-8")))
    return found | {"command_seconds": time.perf_counter() - began, "processor_seconds": processor}


def full_weights(folder: Path) -> Path:
    """Write random weights of the released size, 3 GB."""
    from safetensors.torch import save_file

    from benchmarks.networks import RELEASED, random_network
    from ttt3r.weights.network import canonical_key

    tensors = random_network(RELEASED[512][0]).state_dict()
    path = folder / "random.safetensors"
    save_file({key: tensor for key, tensor in tensors.items() if key == canonical_key(key)}, path)
    return path


def report(found: dict[str, Any], title: str, facts: dict[str, Any]) -> str:
    """The measurement as Markdown."""
    frames, total = found["frames"], found["seconds"]
    rows = [
        [name, f"{1e3 * seconds / frames:.2f}", f"{seconds / total:.1%}"]
        for name, seconds in found["network"].items()
    ]
    beside = [[name, f"{1e3 * spent / frames:.2f}", ""] for name, spent in found["beside"].items()]
    return "\n".join(
        [
            f"## `ttt3r run`, {title}",
            "",
            machine.sentence(facts),
            f"{frames / total:.3g} frames per second after the first of {frames + 1}; the network "
            f"waits {found['waiting']:.1%} of the time. The whole command took "
            f"{found['command_seconds']:.1f} s, of the processor "
            f"{found['processor_seconds']:.1f} s.",
            "",
            machine.table(["network's thread", "ms per frame", "of the time"], rows),
            "",
            machine.table(["beside it", "ms per frame", ""], beside),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--full", action="store_true", help="the released size, random weights")
    parser.add_argument("--video", type=Path, help="instead of a moving pattern")
    parser.add_argument("--device", default="cpu", help="as ttt3r run takes it")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("words", nargs="*", help="more for ttt3r run, after --")
    options = parser.parse_args(arguments)
    if options.frames < 2:
        parser.error("at least two frames are needed: the first does not count")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = options.video or folder / "pattern.mp4"
        if options.video is None:
            height, width = (384, 512) if options.full else BUILTIN
            write_video(video, options.frames, (2 * height, 2 * width))  # so that it is resized
        words = [str(video), "--out", str(folder / "run"), "--device", options.device]
        if options.full:
            words += ["--model", str(full_weights(folder))]
        found = run_command([*words, *options.words], folder / "trace.json")
    facts = machine.describe("cpu")
    title = "released size, 512x384, random weights" if options.full else "built-in size, 128x96"
    print(report(found, title, facts))
    if options.json:
        kept = json.dumps({"machine": facts, **found}, indent=2)
        options.json.write_text(kept + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
