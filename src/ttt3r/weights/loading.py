"""From a name or a path to a network that is ready to run."""

import logging
from pathlib import Path

import torch

from ttt3r.errors import SettingError
from ttt3r.models.base import WeightsInfo
from ttt3r.models.network import SetNetwork, StreamNetwork
from ttt3r.weights.catalogue import licence_notice
from ttt3r.weights.network import PRECISIONS, build
from ttt3r.weights.sources import read_weights

logger = logging.getLogger("ttt3r.weights")
_announced: set[tuple[str, str]] = set()


def load(
    source: str | Path = "builtin",
    device: str | torch.device = "auto",
    precision: str = "auto",
    family: str | None = None,
) -> StreamNetwork | SetNetwork:
    """Return a network for inference: a `StreamModel`, or a `SetModel`, as its family is.

    The weights' licence is logged once per process; the result's `weights` repeats it. On the CPU
    float32 weights stay in the memory-mapped file, which must not change while they are in use.

    Args:
        source: a name of the catalogue, a folder that ``ttt3r convert`` made, a ``.safetensors``
            file, or a published ``.pth`` or ``.pt`` checkpoint, from which nothing is ever
            executed.
        device: "auto" (a CUDA device if there is one, else the CPU) or a device of PyTorch. All
            weights are put there; so must be the images given to the network, and there its output
            is. Nothing is moved later, unless by ``.to``.
        precision: "float32", "bfloat16" or "float16" for encoder and decoders (heads stay in
            float32); "auto" is bfloat16 on CUDA devices that support it, else float32.
        family: which network the weights belong to, such as "cut3r"; ``ttt3r models`` lists the
            names. None takes it from a description, from the name, or from the names of the
            tensors; these are the same in VGGT and StreamVGGT, and are then taken for VGGT's.

    Raises:
        WeightsError: if the weights cannot be found or read, or do not fit the network.
        SettingError: if the device is not available, or the precision or the family is unknown.
    """
    chosen = choose_device(device)
    dtype = choose_precision(precision, chosen)
    info, tensors = read_weights(source, family)
    network = build(info.config, tensors, dtype)
    network.weights = info
    if info.preparation is not None:
        network.preparation = info.preparation
    _announce(info)
    network.eval().requires_grad_(False)
    return network.to(chosen)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that `device` stands for.

    Raises:
        SettingError: if it is not a device, or not one of this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingError(
            f"unknown device {device!r}; choose auto, cpu, cuda, cuda:1, … or mps"
        ) from error
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (chosen.index or 0) >= available.get(chosen.type, 0):
        here = ", ".join(f"{count} {kind}" for kind, count in available.items() if count)
        raise SettingError(
            f"the device {str(device)!r} is not available: PyTorch finds {here}. "
            "Choose another, or install a build of PyTorch that supports it."
        )
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that encoder and decoders compute in.

    Raises:
        SettingError: if `precision` is unknown.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        with torch.cuda.device(device):
            is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if is_native else torch.float32
    if precision not in PRECISIONS:
        raise SettingError(f"unknown precision {precision!r}; choose auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _announce(info: WeightsInfo) -> None:
    """Log what the user should know about a set of weights, once.

    Python shows warnings even where no logging is set up, so a restriction cannot be missed.
    """
    if (info.name, info.sha256) not in _announced:
        _announced.add((info.name, info.sha256))
        is_free = info.trained and info.licence == "Apache-2.0"
        logger.log(logging.INFO if is_free else logging.WARNING, licence_notice(info))
