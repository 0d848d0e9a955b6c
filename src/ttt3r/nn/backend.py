"""Every choice that depends on the processor; the layers ask here and know no hardware."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from ttt3r.errors import SettingError

# "product" or "convolution": overrides how a CPU computes a float32 `Linear`.
LINEAR_VARIABLE = "TTT3R_LINEAR"
# With fewer rows, reordering the weights costs the convolution more than its kernels gain.
MANY_ROWS = 128
# Numbers that are gathered from maps at a time: what a CPU's cache holds, or 64 MiB.
GATHERED_ON_CPU, GATHERED = 2**20, 2**24


@cache
def convolutions_outrun_products() -> bool:
    """Whether float32 products run as 1x1 convolutions on this CPU.

    They do where the CPU has AVX-512 and torch has oneDNN. torch's products come from MKL, its
    convolutions from oneDNN. On AMD, MKL leaves AVX-512 unused and convolutions are about twice as
    fast; on the Intel Xeon that was measured they reach 299 GFLOP/s and products 245. A fixed
    rule, unlike a measurement at the start, gives the same numbers in every run on one machine.

    Raises:
        SettingError: if the variable `TTT3R_LINEAR` is neither "product" nor "convolution".
    """
    asked = os.environ.get(LINEAR_VARIABLE)
    if asked not in (None, "", "product", "convolution"):
        raise SettingError(
            f"{LINEAR_VARIABLE} is {asked!r}; set it to 'product' or 'convolution', or unset it"
        )
    if asked:
        return asked == "convolution"
    return (
        torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


@cache
def bfloat16_outruns_float32() -> bool:
    """Whether products in bfloat16 are faster than in float32 on this CPU, found by trying.

    With units for bfloat16 they take less than half the time; without, about ten times as long.
    """
    fastest = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            times.append(time.perf_counter() - began)
        fastest[dtype] = min(times)
    return fastest[torch.bfloat16] < fastest[torch.float32]


def product_by_convolution(input: Tensor) -> bool:
    """Whether an affine map of these rows is best computed as a convolution."""
    return (
        input.dtype == torch.float32
        and input.device.type == "cpu"
        and input.numel() >= MANY_ROWS * input.shape[-1]
        and convolutions_outrun_products()
    )


def channels_together(input: Tensor) -> bool:
    """Whether convolutions are fastest with the channels of a pixel side by side in memory.

    torch otherwise converts every map to a blocked layout and back on a CPU.
    """
    return input.device.type == "cpu"


def attention_by_map(value: Tensor) -> bool:
    """Whether attention forms its map: training on a CPU.

    The backward pass of the fused kernel is slow there for the few tokens of small networks.
    """
    return value.device.type == "cpu" and torch.is_grad_enabled() and value.requires_grad


def gathered_at_once(maps: Tensor) -> int:
    """How many numbers to gather from `maps` at a time."""
    return GATHERED_ON_CPU if maps.device.type == "cpu" else GATHERED


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 convolutions in float32; also decorates functions.

    By default torch lets cuDNN round their operands to TF32, with 10 bits of mantissa for 23.
    Products of matrices need nothing: torch rounds them only where the user asked for that. The
    setting belongs to the process, so other threads see it until the context ends.
    """
    flags, name = torch.backends.cudnn, "allow_tf32"
    exact: object = False
    if hasattr(flags, "conv"):  # torch 2.9 and later
        flags, name, exact = flags.conv, "fp32_precision", "ieee"
    before = getattr(flags, name)
    setattr(flags, name, exact)
    try:
        yield
    finally:
        setattr(flags, name, before)
