"""A picture of how a training went."""

import json
from pathlib import Path
from typing import Any

from ttt3r.errors import InputError
from ttt3r.training.loop import LOG

SMOOTHING = 50
VALIDATION = "validation.jsonl"
ABOVE = ("points", "world", "direction", "translation", "rotation", "matching", "descriptor")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a log in the order of their steps; a step that was repeated counts once.

    Raises:
        InputError: if there is no log, or it holds nothing.
    """
    if not path.is_file():
        raise InputError(f"there is no {path}; train first")
    records: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # the last line of a training that was killed
            continue
        records[record["step"]] = record
    if not records:
        raise InputError(f"{path} is empty; train first")
    return [records[step] for step in sorted(records)]


def plot(folder: Path, out: Path) -> Path:
    """Draw the parts of the loss over steps, and validation errors below, into `out`.

    Raises:
        InputError: if there is no log, or matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install matplotlib") from error
    log = read_log(folder / LOG)
    figure = Figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subplots(2, 1)
    for name in ABOVE:
        points = [(record["step"], record[name]) for record in log if name in record]
        values = [value for _, value in points]
        smooth = [
            sum(values[max(0, i - SMOOTHING) : i + 1]) / min(i + 1, SMOOTHING + 1)
            for i in range(len(values))
        ]
        above.plot([step for step, _ in points], smooth, label=name)
    above.set(ylabel="parts of the loss, averaged", yscale="log")
    above.legend()
    if (folder / VALIDATION).is_file():
        records = read_log(folder / VALIDATION)
        names = sorted({key for record in records for key in record if "." in key})
        for name in (name for name in names if not name.startswith("norm.")):
            below.plot([r["step"] for r in records], [r[name] for r in records], ".-", label=name)
        below.axhline(1.0, color="grey", linestyle=":", label="nothing learned")
        below.legend()
    below.set(xlabel="step", ylabel="validation error", ylim=(0, 1.2))
    figure.savefig(out, dpi=110)
    return out
