"""Our own numbers, frozen once they agreed with the reference; they ship with the project.

Written by `python -m tests.regression.frozen`. Do that only when a change of numbers is intended,
and say in CHANGELOG.md why it is.
"""

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from tests.networks import tiny_config
from ttt3r.geometry.camera import ray_map
from ttt3r.stream.session import Session
from ttt3r.types import Camera
from ttt3r.weights import build, random_weights

FILE = Path(__file__).parent / "frozen.safetensors"
NETWORKS = ("tiny_dpt", "tiny_linear")
SETTINGS = {
    "overwrite": dict(rule="overwrite"),
    "ttt3r": dict(rule="ttt3r"),
    "damped": dict(rule="damped(ttt3r, 0.5)"),
    "reset": dict(rule="ttt3r", reset=3),
    "similarity": dict(rule="ttt3r", reset=3, stitch="similarity"),
}
FRAMES = 8


def frame(index: int) -> np.ndarray:
    """A frame that moves, from integer arithmetic alone."""
    x, y = np.arange(64)[None] + 5 * index, np.arange(48)[:, None] + 3 * index
    channels = (x * x // 64 + 3 * y, (5 * x) ^ (3 * y), 3 * (x + 2 * y))
    return np.stack([np.broadcast_to(c, (48, 64)) % 256 for c in channels], axis=2).astype(np.uint8)


def compute(network: str, setting: str) -> dict[str, Tensor]:
    """Outputs of a short stream, maps sampled at every sixth row and eighth column."""
    config = tiny_config(network)
    model = build(config, random_weights(config, seed=7)).eval().requires_grad_(False)
    session = Session(model, outputs=("points", "pose", "world", "rgb"), **SETTINGS[setting])
    found: dict[str, list[Tensor]] = {}
    for index in range(FRAMES):
        prediction = session.push(frame(index))
        for name in ("points", "confidence", "world_points", "world_confidence", "rgb"):
            found.setdefault(name, []).append(getattr(prediction, name)[3::6, 4::8])
        for name in ("pose_encoding", "world_from_camera", "intrinsics"):
            found.setdefault(name, []).append(getattr(prediction, name))
        if prediction.gate is not None:
            found.setdefault("gate", []).append(prediction.gate)
    arrays = {name: torch.stack(values) for name, values in found.items()}
    arrays["state"] = session.state.tokens[0]
    arrays["pose_memory"] = session.state.pose_memory[0]
    intrinsics = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    view = session.query(Camera(pose, intrinsics, (48, 64)))
    assert view.points is not None
    arrays["query_points"] = view.points[3::6, 4::8]
    arrays["rays"] = ray_map(pose, intrinsics, (48, 64))[3::6, 4::8]
    return arrays


def main() -> None:
    """Write the file."""
    frozen = {
        f"{network}.{setting}.{name}": value.contiguous()
        for network in NETWORKS
        for setting in SETTINGS
        for name, value in compute(network, setting).items()
    }
    safetensors.torch.save_file(frozen, FILE)
    print(f"{FILE}: {len(frozen)} arrays, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
