"""Facts about machine, process and code that every measurement states."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ttt3r.version import __version__

CLEAR_REFERENCES, RESET_PEAK = Path("/proc/self/clear_refs"), "5"


def facts(device: torch.device) -> dict[str, str]:
    """Return versions, commit, processor and device."""
    known = {
        "ttt3r": __version__,
        "commit": commit(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": str(device),
    }
    if device.type == "cuda":
        known["gpu"] = torch.cuda.get_device_name(device)
    return known


def commit(folder: Path = Path(__file__).parent) -> str:
    """Return the short hash of the checkout that holds a folder.

    Returns:
        The hash, with a + if tracked files differ; "unknown" outside of a checkout.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")  # inside, but is it tracked?
        changes = _git(folder, "status", "--porcelain", "-uno")
        return _git(folder, "rev-parse", "--short", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def cpu_name() -> str:
    """Return the processor's model, and the unit that decides the speed of bfloat16 products."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = known.get("model name", platform.machine())
    family = ", ".join(f"{k} {known[k]}" for k in ("cpu family", "model") if k in known)
    flags = set(known.get("flags", "").split())
    units = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
    unit = next((unit for unit in units if unit in flags), "")
    return f"{name} ({', '.join(filter(None, (family, unit)))})"


def clock(device: torch.device) -> float:
    """Return seconds, once the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device | None = None) -> int | None:
    """Return the largest memory since `reset_peak_memory`, in bytes.

    Of a CUDA device, what PyTorch had allocated there; else the resident memory of this process.
    None where the system does not tell.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # of this program alone; getrusage also counts the parent between fork and exec
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory(device: torch.device | None = None) -> None:
    """Let `peak_memory` count from now on, where the system can."""
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        CLEAR_REFERENCES.write_text(RESET_PEAK, "ascii")
