"""Random weights that are the same on every machine and give finite, varying output."""

import hashlib
import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.weights.network import expected_shapes
from ttt3r.weights.shapes import Shapes

_POINTS = re.compile(
    r"downstream_head\.(dpt_(self|cross)\.head\.4|(cross_)?proj\.fc2)\.(weight|bias)"
)
POSE_OUTPUT = "downstream_head.pose_head.mlp.fc2"
# Raw depth of the mean point: expm1(1.1) is about 2 in the network's units.
RAW_DEPTH = 1.1


def random_weights(config: Cut3rConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return seeded float32 weights for every tensor of a network.

    Points lie about two units in front of the camera and the camera hardly moves, so that the
    output can be looked at; it says nothing about the images.
    """
    shapes: Shapes = expected_shapes(config)
    return {key: torch.from_numpy(_tensor(key, shape, seed)) for key, shape in shapes.items()}


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and values; for weights that are no file."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensor(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if len(shape) == 1 and key.endswith(".weight"):
        return np.ones(shape, np.float32)
    if len(shape) == 1:
        return _bias(key, shape[0])
    count = int(np.prod(shape))
    is_token = "token" in key or key.endswith(".mem")
    spread = 1.0 if is_token else (3 / (count // shape[0])) ** 0.5
    if key == f"{POSE_OUTPUT}.weight":
        spread *= 0.02
    elif _POINTS.fullmatch(key):
        spread *= 0.1
    return _uniform(key, count, seed).reshape(shape) * np.float32(spread)


def _uniform(key: str, count: int, seed: int) -> np.ndarray:
    """Values in [−1, 1). Uses raw bits of PCG64, which never change between NumPy versions."""
    raw = np.random.PCG64([seed, zlib.crc32(key.encode())]).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def _bias(key: str, count: int) -> np.ndarray:
    bias = np.zeros(count, np.float32)
    if key == f"{POSE_OUTPUT}.bias":
        bias[3] = 1  # the quaternion's real part: no rotation
    elif _POINTS.fullmatch(key):
        bias.reshape(4, -1)[2] = RAW_DEPTH
    return bias
