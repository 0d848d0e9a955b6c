"""Seconds and memory per frame at the released sizes: `python -m benchmarks.step`.

Three programs compute the same network on random weights, each in a process of its own:
(a) the dense twin of `tests.dense`, float32; (b) the package, float32; (c) the package,
bfloat16. See the README beside this file.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import machine
from ttt3r.evaluation.machine import peak_memory

VARIANTS = {
    "a": "(a) dense twin, float32",
    "b": "(b) ttt3r, float32",
    "c": "(c) ttt3r, bfloat16",
}
WARM_UP = 2
# Of the reference implementation on another machine with two CPU cores: seconds, GiB.
REFERENCE = {512: (10.1, 7.35), 224: (3.1, 4.8)}
# The ceiling that each part is held against.
CEILING = {"heads": "float32 convolution"}


def make_runner(variant: str, model: Any) -> tuple[Callable[[Any, Any], Any], Any, list[tuple]]:
    """Return a function (state, image) -> state, the first state, and what a meter watches."""
    from tests.dense import DenseCut3r
    from ttt3r import rules
    from ttt3r.models.base import Views

    if variant == "a":
        twin = DenseCut3r(model)
        watched = [
            (twin, "encode", "encoder"),
            (twin, "decode", "decoders"),
            (twin, "read_heads", "heads"),
            (twin, "read_memory", "memory"),
            (twin, "write_memory", "memory"),
        ]

        def dense(state: Any, image: Any) -> Any:
            grid = tuple(side // model.config.patch_size for side in image.shape[2:])
            return twin.step(state, twin.encode(image), grid)[0]

        return dense, twin.initial_state(), watched

    rule = rules.parse("ttt3r")
    watched = [
        (model, "encode", "encoder"),
        (model, "_decode", "decoders"),
        (model, "_read", "heads"),
        (model.pose_retriever, "read", "memory"),
        (model.pose_retriever, "write", "memory"),
    ]

    def ours(state: Any, image: Any) -> Any:
        return model.step(state, model.encode(Views(image)), rule)[0]

    return ours, model.initial_state(rule), watched


def images(size: tuple[int, int], device: str) -> Iterator[Any]:
    """Endless network inputs."""
    import torch

    from benchmarks.networks import frames

    for frame in frames(*size):
        image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
        yield image.to(device)


def measure(variant: str, size: int, count: int, device: str) -> dict[str, Any]:
    """Run one variant in this process."""
    import torch

    from benchmarks.networks import RELEASED, random_network
    from benchmarks.parts import Meter, clock

    config, shape = RELEASED[size]
    dtype = torch.bfloat16 if variant == "c" else torch.float32
    with torch.no_grad():
        model = random_network(config, dtype, device)
        run, state, watched = make_runner(variant, model)
        read, seconds, feed = clock(device), [], images(shape, device)
        for index in range(WARM_UP + count):
            image = next(feed)
            start = read()
            state = run(state, image)
            seconds.append(read() - start)
            print(f"{VARIANTS[variant]}: frame {index}: {seconds[-1]:.2f} s", file=sys.stderr)
        assert all(bool(value.isfinite().all()) for value in state.to_tensors().values())
        gpu = torch.cuda.max_memory_allocated() if device == "cuda" else None
        peak = peak_memory()
        meter = Meter(read)
        for owner, method, part in watched:
            meter.watch(owner, method, part)
        for _ in range(count):
            state = run(state, next(feed))
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "all_seconds": seconds,
        "peak_bytes": peak,
        "gpu_bytes": gpu,
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "parts": {part: value / count for part, value in meter.finish().items()},
        "flops": count_flops(variant, size),
    }


def count_flops(variant: str, size: int) -> dict[str, float]:
    """Operations per frame (a multiply-add counts two), counted on shapes alone."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.networks import RELEASED, empty_network
    from benchmarks.parts import Meter

    config, shape = RELEASED[size]
    run, state, watched = make_runner(variant, empty_network(config))
    counter = FlopCounterMode(display=False)
    meter = Meter(counter.get_total_flops)
    for owner, method, part in watched:
        meter.watch(owner, method, part)
    with counter, sdpa_kernel(SDPBackend.MATH):  # which is made of products that are counted
        run(state, torch.empty(1, 3, *shape, device="meta"))
    return meter.finish()


def report(size: int, device: str, results: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    variants, rates = results["variants"], results["ceilings"]
    config = "512x384, DPT heads" if size == 512 else "224x224, linear heads"
    lines = [
        f"## One frame at {config}",
        "",
        machine.sentence(results["machine"]),
        "Ceilings: " + "; ".join(f"{key} {rate / 1e9:.0f} GFLOP/s" for key, rate in rates.items()),
        "",
    ]
    memory = "peak GPU memory (GiB)" if device == "cuda" else "peak memory (GiB)"
    rows = []
    for key, result in variants.items():
        peak = result["gpu_bytes"] or result["peak_bytes"]
        dense = variants.get("a")
        ratio = f"{dense['seconds'] / result['seconds']:.2f}x" if dense else ""
        numbers = [result["seconds"], peak / machine.GIB, result["weights_bytes"] / machine.GIB]
        rows.append([VARIANTS[key], *(f"{number:.2f}" for number in numbers), ratio])
    header = ["variant", "seconds", memory, "of that weights", "faster than (a)"]
    lines += [machine.table(header, rows), ""]
    seconds, gib = REFERENCE[size]
    lines += [
        "For context, as published and not measured here: the reference takes "
        f"{seconds} s and {gib} GiB on a machine with two CPU cores.",
        "",
    ]
    rows = []
    for key, result in variants.items():
        dtype = "bfloat16" if key == "c" else "float32"
        for part, spent in result["parts"].items():
            flops = result["flops"][part]
            ceiling = rates[CEILING.get(part, f"{dtype} product")]
            share = f"{flops / spent / ceiling:.0%}" if flops > 1e9 else ""
            row = [key, part, f"{spent:.3f}", f"{spent / sum(result['parts'].values()):.0%}"]
            rows.append([*row, f"{flops / 1e9:.0f}", f"{flops / spent / 1e9:.0f}", share])
    header = ["variant", "part", "seconds", "of frame", "GFLOP", "GFLOP/s", "of ceiling"]
    lines += [machine.table(header, rows)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--size", type=int, choices=(512, 224), default=512)
    parser.add_argument("--frames", type=int, default=5, help="measured frames, after warm-up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="a,b,c", help="variants")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "machine":
        from benchmarks.parts import ceilings

        print(json.dumps([machine.describe(options.device), ceilings(options.device)]))
        return
    if options.worker:
        result = measure(options.worker, options.size, options.frames, options.device)
        print(json.dumps(result))
        return
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(VARIANTS)):
        parser.error(f"unknown variant {', '.join(unknown)}; choose from {', '.join(VARIANTS)}")
    arguments = ["--size", str(options.size), "--frames", str(options.frames)]
    arguments += ["--device", options.device, "--worker"]
    facts, rates = machine.in_subprocess("step", [*arguments, "machine"])
    results: dict[str, Any] = {"machine": facts, "ceilings": rates, "size": options.size}
    results["variants"] = {
        key: machine.in_subprocess("step", [*arguments, key]) for key in VARIANTS if key in chosen
    }
    print(report(options.size, options.device, results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
