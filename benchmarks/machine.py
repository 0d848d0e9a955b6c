"""Facts of the machine and the process that every report states."""

import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GIB = 2.0**30


def commit() -> str:
    """Short hash of the checkout, with a + if tracked files differ; or "unknown"."""
    try:
        short, changes = (
            subprocess.run(
                ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return short + ("+" if changes else "")


def cpu_name() -> str:
    """Model of the processor, and the unit that decides the speed of its bfloat16 products."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = facts.get("model name", platform.machine())
    family = ", ".join(f"{k} {facts[k]}" for k in ("cpu family", "model") if k in facts)
    flags = set(facts.get("flags", "").split())
    unit = next(
        (unit for unit in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if unit in flags), ""
    )
    return f"{name} ({', '.join(filter(None, (family, unit)))})"


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


def peak_memory() -> float:
    """Largest resident memory of this process so far, in bytes."""
    try:  # of this program alone; getrusage also counts the parent between fork and exec
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_subprocess(module: str, arguments: list[str]) -> Any:
    """Run a module of this folder in a process of its own; returns the JSON of its last line.

    Raises:
        RuntimeError: if it fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))
