"""What update rules cost at the released size: `python -m benchmarks.evidence`.

CUT3R's decoders, pose memory and pose head at 512x384 under each rule, on random weights and
random tokens. Encoder and dense heads are the same under every rule and are left out. Every rule
runs in a process of its own, so its peak memory is its own. On a CPU time is that of the processor,
so that other work on the machine counts less; `damped(overwrite, 1)` does what `overwrite` does,
so that its difference from it is what the measurement is uncertain by.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from ttt3r.evaluation.machine import peak_memory

RULES = ("overwrite", "ttt3r", "filt3r", "brake", "ortho", "ttsa3r", "memix(ttt3r)", "recal3r")
RULES += ("paced(ttt3r)", "damped(overwrite, 1)")
WARM_UP = 1
MIB = 2.0**20


def measure(text: str, count: int, device: str) -> dict[str, Any]:
    """Step through random tokens under one rule in this process."""
    import torch

    from benchmarks.networks import RELEASED, random_network
    from benchmarks.parts import clock
    from ttt3r import rules
    from ttt3r.models.base import Tokens

    config, size = RELEASED[512]
    rule = rules.parse(text)
    model = random_network(replace(config, encoder_depth=1, head="linear"), device=device)
    patches = (size[0] // config.patch_size) * (size[1] // config.patch_size)
    generator = torch.Generator().manual_seed(0)
    here = torch.ones(1, dtype=torch.bool, device=device)
    read, seconds = time.process_time if device == "cpu" else clock(device), []
    with torch.no_grad():
        state = model.initial_state(rule)
        for _ in range(WARM_UP + count):
            shape = (1, patches, config.encoder_dim)
            features = torch.randn(shape, generator=generator).to(device)
            start = read()
            state, _ = model.step(state, Tokens(features, size, here), rule, ("pose",))
            seconds.append(read() - start)
    assert all(bool(item.isfinite().all()) for item in state.to_tensors().values())
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "all_seconds": seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory(),
        "state_bytes": state.nbytes,
        "machine": machine.describe(device),
    }


def report(results: dict[str, dict[str, Any]]) -> str:
    """The measurements as Markdown; the first rule is what the others are compared with."""
    first = next(iter(results.values()))
    rows = [
        [
            f"`{rule}`",
            f"{found['seconds']:.3f}",
            f"{found['seconds'] / first['seconds'] - 1:+.1%}",
            f"{found['peak_bytes'] / MIB:.0f}",
            f"{(found['peak_bytes'] - first['peak_bytes']) / MIB:+.0f}",
            f"{found['state_bytes'] / MIB:.1f}",
        ]
        for rule, found in results.items()
    ]
    clocked = "seconds" if first["machine"]["gpu"] else "processor seconds"
    header = ["rule", clocked, "more", "peak memory (MiB)", "more (MiB)", "state (MiB)"]
    return "\n".join(
        [
            "## Decoders and update rule, 512x384, float32",
            "",
            machine.sentence(first["machine"]),
            "",
            machine.table(header, rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--rules", nargs="+", default=RULES, help="the first is the baseline")
    parser.add_argument("--frames", type=int, default=3, help="measured frames, after warm-up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.rules[0], options.frames, options.device)))
        return
    rest = ["--frames", str(options.frames), "--device", options.device]
    results = {
        rule: machine.in_subprocess("evidence", ["--worker", *rest, "--rules", rule])
        for rule in options.rules
    }
    print(report(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
