"""Where time and floating-point operations go: encoder, decoders, heads, memory."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

PARTS = ("encoder", "decoders", "heads", "memory", "rest")


class Meter:
    """Splits a growing quantity between parts of a program; inner parts do not count as outer.

    Args:
        read: current value of the quantity, such as a clock.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.totals: dict[str, float] = defaultdict(float)
        self._read = read
        self._active = ["rest"]
        self._last = read()

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Charge what `owner.method` uses to `part` from now on."""
        original = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._charge()
            self._active.append(part)
            result = original(*args, **kwargs)
            self._charge()
            self._active.pop()
            return result

        setattr(owner, method, wrapped)

    def _charge(self) -> None:
        now = self._read()
        self.totals[self._active[-1]] += now - self._last
        self._last = now

    def finish(self) -> dict[str, float]:
        """Return the total of each part."""
        self._charge()
        return {part: self.totals[part] for part in PARTS}


def clock(device: str) -> Callable[[], float]:
    """A clock that waits for the device."""
    if device != "cuda":
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return read


def best_time(action: Callable[[], Any], device: str, repeats: int = 7) -> float:
    """Shortest of some runs, in seconds, after warm-up."""
    read, times = clock(device), []
    for _ in range(repeats + 2):
        start = read()
        action()
        times.append(read() - start)
    return min(times[2:])


def ceilings(device: str) -> dict[str, float]:
    """Largest rates that single products and convolutions reach here, in FLOP per second.

    Whichever is fastest of torch's own operation and the package's layer, over a few sizes.
    """
    from ttt3r.nn.layers import Conv2d, Linear

    rates: dict[str, float] = defaultdict(float)
    for dtype in (torch.float32, torch.bfloat16):
        key = str(dtype).removeprefix("torch.") + " product"
        for size in (1024, 2048, 3072):
            a = torch.randn(size, size, device=device).to(dtype)
            layer = Linear(size, size, bias=False, device=device, dtype=dtype)
            for action in (lambda a=a: a @ a, lambda a=a, layer=layer: layer(a)):
                rates[key] = max(rates[key], 2 * size**3 / best_time(action, device))
    for channels, rows, columns in ((256, 48, 64), (256, 96, 128), (256, 192, 256)):
        x = torch.randn(1, channels, rows, columns, device=device)
        together = x.contiguous(memory_format=torch.channels_last)
        plain = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device)
        ours = Conv2d(channels, channels, 3, padding=1, device=device)
        flops = 2 * 9 * channels**2 * rows * columns
        for conv, pixels in ((plain, x), (ours, together)):
            rate = flops / best_time(lambda conv=conv, x=pixels: conv(x), device)
            rates["float32 convolution"] = max(rates["float32 convolution"], rate)
    return dict(rates)
