"""Random weights that are the same on every machine and give finite, varying output."""

import hashlib
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ttt3r.checkpoints.shapes import Shapes
from ttt3r.models.config import NetworkConfig
from ttt3r.models.family import OutputLayer
from ttt3r.models.registry import family_of
from ttt3r.weights.network import expected_shapes


def random_weights(config: NetworkConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return seeded float32 weights for every tensor of a network.

    Points lie about two units in front of the camera and the camera hardly moves, so that the
    output can be looked at; it says nothing about the images.
    """
    shapes: Shapes = expected_shapes(config)
    outputs = family_of(config).outputs
    return {
        key: torch.from_numpy(_tensor(key, shape, seed, _output(key, outputs)))
        for key, shape in shapes.items()
    }


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and values; for weights without a file."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _output(key: str, outputs: tuple[OutputLayer, ...]) -> OutputLayer | None:
    """The last layer of a head that a tensor belongs to, if it does."""
    layer = key.rpartition(".")[0]
    return next((output for output in outputs if output.pattern.fullmatch(layer)), None)


def _tensor(key: str, shape: tuple[int, ...], seed: int, output: OutputLayer | None) -> np.ndarray:
    if len(shape) == 1 and key.endswith((".weight", ".gamma")):
        return np.ones(shape, np.float32)
    if len(shape) == 1:
        return _bias(shape[0], output)
    count = int(np.prod(shape))
    is_token = "token" in key or key.endswith(".mem")
    spread = 1.0 if is_token else (3 / (count // shape[0])) ** 0.5
    if output is not None:
        spread *= output.spread
    return _uniform(key, count, seed).reshape(shape) * np.float32(spread)


def _uniform(key: str, count: int, seed: int) -> np.ndarray:
    """Values in [−1, 1). Uses raw bits of PCG64, which never change between NumPy versions."""
    raw = np.random.PCG64([seed, zlib.crc32(key.encode())]).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def _bias(count: int, output: OutputLayer | None) -> np.ndarray:
    bias = np.zeros(count, np.float32)
    if output is not None:
        for channel, value in output.bias.items():
            bias.reshape(output.channels, -1)[channel] = value
    return bias
