"""Measure a set of weights and write its model card: `python -m benchmarks.model_card`.

Writes `model-card.md` and `images/forgetting.png`. Measurements are stored in the work folder as
they come, so an interrupted run goes on where it stopped. `--quick` measures next to nothing, to
see that everything runs, and writes into the work folder unless told otherwise.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine

DOCS = machine.ROOT / "docs"
WORK = machine.ROOT / "training-runs" / "model-card"
TRAINING_CLIPS = machine.ROOT / "training-runs" / "cache"


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and their provenance, both as `card_text.render_card` takes them."""
    import ttt3r
    from benchmarks import card_data, card_parts
    from ttt3r.training.cache import TEST_SEEDS

    start = time.perf_counter()
    settings = card_parts.QUICK if options.quick else card_parts.Settings()
    model = ttt3r.load(options.weights, device=options.device, precision=options.precision)
    store = card_parts.Store(options.work, _key(model, options))
    options.work.mkdir(parents=True, exist_ok=True)
    training = card_data.training_depth(
        options.work, options.training_clips, settings.training_clips, settings.size
    )
    results = {
        "settings": asdict(settings)
        | {"clip_seed": TEST_SEEDS, "stream_seed": card_data.STREAM_SEEDS},
        "training": {"clips": training.clips, "constant": training.constant},
        "clips": card_parts.measure_clips(model, settings, store, training),
        "streams": card_parts.measure_streams(
            model, settings, store, training, options.work, options.workers
        ),
        "real": card_parts.measure_real(model, settings, store, training, options.data),
    }
    facts = card_data.weights_facts(model, options.weights)
    provenance = facts | {
        "machine": machine.describe(model.device.type),
        "machine_trained": facts["machine"],
        "command": _command(options),
        "seconds": time.perf_counter() - start,
    }
    return results, provenance


def _key(model: Any, options: argparse.Namespace) -> str:
    """What results are stored under: the weights, and the precision if it was chosen."""
    precision = "" if options.precision == "auto" else f"{options.precision}-"
    return f"{precision}{model.device.type}-{model.weights.sha256}"


def _command(options: argparse.Namespace) -> str:
    more = "" if options.precision == "auto" else f" --precision {options.precision}"
    more += " --quick" if options.quick else ""
    name = options.weights
    name = name if "/" not in name else Path(name).name  # a path says nothing to others
    return f"python -m benchmarks.model_card --weights {name}{more}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    data = os.environ.get("TTT3R_DATA") or machine.ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--weights", default="builtin", help="a name or path, as ttt3r.load takes it")
    add("--work", type=Path, default=WORK, help="where measurements and streams are kept")
    add("--out", type=Path, help="folder of the card [docs; with --quick the work folder]")
    add("--data", type=Path, default=Path(data), help="folder of real sequences [$TTT3R_DATA]")
    add("--training-clips", type=Path, default=TRAINING_CLIPS, help="cache left by the training")
    add("--workers", type=int, default=1, help="processes that render")
    add("--device", default="auto")
    add("--precision", default="auto")
    add("--quick", action="store_true", help="measure next to nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the card and its figure."""
    from benchmarks.card_figure import draw, require_matplotlib
    from benchmarks.card_text import FIGURE, render_card
    from ttt3r.errors import Ttt3rError

    options = _options(argv)
    out = options.out or (options.work if options.quick else DOCS)
    try:
        require_matplotlib()
        results, provenance = measure(options)
    except Ttt3rError as error:
        raise SystemExit(str(error)) from error
    draw(results, out / FIGURE)
    card = out / "model-card.md"
    card.write_text(render_card(results, provenance), encoding="utf-8")
    print(f"wrote {card} and {out / FIGURE}", file=sys.stderr)


if __name__ == "__main__":
    main()
