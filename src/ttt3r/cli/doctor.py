"""``ttt3r doctor``: is this machine ready, and does the installation work?"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ttt3r.cli.command import Command, Debug, print_pairs
from ttt3r.cli.messages import without_licence_notice
from ttt3r.files import bytes_text

CODECS = ("h264", "hevc", "av1")
FRAMES = 4


@dataclass(frozen=True)
class DoctorCommand(Command):
    """Show versions, devices and space, and run a short self-test.

    The exit status is 0 if the installation works, else 1.
    """

    debug: Debug = False

    def main(self) -> int:
        """Run all checks."""
        healthy = True
        pairs: list[tuple[str, str]] = []
        for name, check in CHECKS.items():
            try:
                pairs.append((name, check()))
            except Exception as error:  # whatever is broken, the others are worth a look
                if self.debug:
                    raise
                healthy = False
                pairs.append((name, f"BROKEN: {type(error).__name__}: {error}"))
        print_pairs(pairs)
        print("\nready" if healthy else "\nsomething is broken; --debug shows where")
        return 0 if healthy else 1


def _versions() -> str:
    import ttt3r

    return f"{ttt3r.__version__} on Python {platform.python_version()}, {platform.platform()}"


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _devices() -> str:
    import torch

    devices = ["cpu"]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} ({properties.name}, {bytes_text(properties.total_memory)})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return ", ".join(devices)


def _video() -> str:
    import av
    from av.codec.codec import UnknownCodecError

    parts = []
    for name in CODECS:
        try:
            av.Codec(name, "r")
            parts.append(name)
        except UnknownCodecError:
            parts.append(f"no {name}")
    return f"PyAV {av.__version__}, decodes {', '.join(parts)}"


def _images() -> str:
    import PIL

    heic = importlib.util.find_spec("pillow_heif") is not None
    extra = "with HEIC" if heic else "no HEIC (pip install 'ttt3r[heic]')"
    return f"Pillow {PIL.__version__}, {extra}"


def _packages() -> str:
    names = ("numpy", "safetensors", "jaxtyping", "tyro", "rich")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _disk() -> str:
    return f"{bytes_text(shutil.disk_usage(Path.cwd()).free)} free in {Path.cwd()}"


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
        return f"{bytes_text(sizes['MemAvailable'])} of {bytes_text(sizes['MemTotal'])} free"
    except (OSError, KeyError, ValueError, IndexError):
        return f"unknown; {os.cpu_count()} processors"


def _weights() -> str:
    from ttt3r.weights import CATALOGUE, weights_folder
    from ttt3r.weights.catalogue import find_on_disk

    found = [spec.name for spec in CATALOGUE.values() if spec.trained and find_on_disk(spec)]
    return f"{weights_folder()}: {', '.join(found) or 'none yet'}"


def _self_test() -> str:
    """Reconstruct a few frames, once in one go and once with saving in between, and compare."""
    import numpy as np
    import torch

    from ttt3r.stream.session import Session
    from ttt3r.weights import load

    began = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several only wait for each other in so small a network
    try:
        with without_licence_notice(), tempfile.TemporaryDirectory() as folder:
            model = load("tiny-dpt", "cpu", "float32")
            straight, other = Session(model), Session(model)
            path = Path(folder) / "session.safetensors"
            for image in np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), np.uint8):
                expected, actual = straight.push(image).points, other.push(image).points
                assert expected is not None and actual is not None
                if not (expected.isfinite().all() and torch.equal(expected, actual)):
                    raise RuntimeError("a session that was saved and loaded goes on differently")
                other.save(path)
                other = Session.load(path, model)
    finally:
        torch.set_num_threads(threads)
    return f"passed in {time.monotonic() - began:.1f} s"


CHECKS: dict[str, Callable[[], str]] = {
    "ttt3r": _versions,
    "torch": _torch,
    "devices": _devices,
    "video": _video,
    "images": _images,
    "packages": _packages,
    "disk": _disk,
    "memory": _memory,
    "weights": _weights,
    "self-test": _self_test,
}
