"""What comparing rules costs: `python -m benchmarks.compare`.

Eight rules by `ttt3r.compare` against single runs by `ttt3r.reconstruct` without an output folder,
in one process, on the same images of a synthetic scene. The two are measured in turns.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import machine


def measure(frames: int, rounds: int, model_name: str) -> dict[str, Any]:
    """Seconds of eight rules at once, and of three of them one after the other."""
    from ttt3r import weights
    from ttt3r.comparison.compare import RULES, compare
    from ttt3r.scenes import make_clip
    from ttt3r.stream.reconstruct import reconstruct

    model = weights.load(model_name, "cpu")
    images = list(make_clip(3, frames, (96, 128)).image.numpy())
    single = RULES[:3]

    def alone() -> None:
        for rule in single:
            for _ in reconstruct(images, model=model, rule=rule):
                pass

    def together() -> None:
        compare(images, RULES, model=model)

    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for round in range(rounds + 1):
        for name, run in (("alone", alone), ("together", together)):
            began = time.perf_counter()
            run()
            if round:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(seconds["alone"], seconds["together"], strict=True)]
    return {
        "rules": len(RULES),
        "single": len(single),
        "frames": frames,
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def report(result: dict[str, Any], facts: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    frames, medians = (
        result["frames"],
        {k: statistics.median(v) for k, v in result["seconds"].items()},
    )
    rows = [
        [f"{result['single']} single runs", f"{medians['alone'] / frames:.3f}"],
        [f"{result['rules']} rules at once", f"{medians['together'] / frames:.3f}"],
    ]
    spread = f"{min(result['ratios']):.2f} to {max(result['ratios']):.2f}"
    return "\n".join(
        [
            machine.sentence(facts),
            "",
            machine.table(["", "seconds per frame"], rows),
            "",
            f"Ratio: {result['ratio']:.2f} (median of {len(result['ratios'])}; {spread}).",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    options = parser.parse_args()
    result = measure(options.frames, options.rounds, options.model)
    print(report(result, machine.describe("cpu")))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
