"""Facts of the machine and the process that every report states."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ttt3r.errors import MissingExtraError
from ttt3r.evaluation.machine import commit, cpu_name

ROOT = Path(__file__).resolve().parents[1]
GIB = 2.0**30


def describe(device: str) -> dict[str, Any]:
    """Machine, threads, versions and commit; imports torch."""
    import torch

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
        "commit": commit(),
    }


def sentence(facts: dict[str, Any]) -> str:
    """The facts of `describe` as one line."""
    gpu = f"{facts['gpu']}, " if facts["gpu"] else ""
    return (
        f"Machine: {gpu}{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; "
        f"torch {facts['torch']}; commit {facts['commit']}."
    )


def require_matplotlib() -> None:
    """Check before a long measurement that its figure can be drawn.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "eval", "drawing figures")


def in_subprocess(
    module: str, arguments: list[str], environment: dict[str, str] | None = None
) -> Any:
    """Run a module of this folder in a process of its own; returns the JSON of its last line.

    Args:
        module: its name.
        arguments: of its command line.
        environment: its variables; None for those of this process.

    Raises:
        RuntimeError: if it fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))
