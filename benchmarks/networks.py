"""Networks with random weights, and endless frames, for measuring."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from ttt3r.models.cut3r.config import TINY_DPT, Cut3rConfig
from ttt3r.models.cut3r.network import Cut3r

# (configuration, (height, width)) of the two released networks.
RELEASED = {
    512: (Cut3rConfig(), (384, 512)),
    224: (Cut3rConfig(image_size=224, head="linear"), (224, 224)),
}

# Small enough for thousands of frames; every part of the network is there.
SMALL = TINY_DPT


def empty_network(config: Cut3rConfig, dtype: torch.dtype = torch.float32) -> Cut3r:
    """A network in its final precision on the meta device: shapes without memory."""
    with torch.device("meta"):
        network = Cut3r(config)
    return network.set_precision(dtype).eval().requires_grad_(False)


def random_network(
    config: Cut3rConfig, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Cut3r:
    """A network with small random weights, each made in its final type and place.

    The weights are the same in every process on the same device. They keep the size of what flows
    through the network, so that speed is measured on ordinary numbers.
    """
    network = empty_network(config, dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(float("norm" in name and name.endswith("weight")))
            continue
        is_token = "token" in name or name.endswith(".mem")
        bound = 1.0 if is_token else math.sqrt(3 / parameter[0].numel())
        parameter.uniform_(-bound, bound, generator=generator)
    for head in network.downstream_head.children():  # exp() of the raw maps must stay small
        last = [p for p in head.parameters() if p.ndim > 1][-1]
        last.mul_(0.1)
    return network


def frames(height: int, width: int) -> Iterator[np.ndarray]:
    """Endless moving pattern, uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    index = 0
    while True:
        waves = [
            np.sin(x / (7 + c) + 0.1 * index) * np.cos(y / (9 + c) + 0.07 * index) for c in range(3)
        ]
        yield np.round(127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)
        index += 1
