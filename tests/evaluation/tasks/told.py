"""Recorders that are told what was predicted, and sequences to tell them about."""

import numpy as np
import torch

from tests.evaluation.arrays import array_sequence
from tests.evaluation.trajectories import random_trajectory
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.sequences import Sequence
from ttt3r.types import Prediction, Preparation

POLICY = Preparation(64, 16)
MATRIX = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])


def scene(frames=6, size=(48, 64), seed=3) -> Sequence:
    """Random images, smooth depth with unknown places, random poses."""
    random = np.random.default_rng(seed)
    v, u = np.mgrid[: size[0], : size[1]] / size[1]
    waves = [2.0 + np.sin(6 * u + i) * np.cos(5 * v) + 0.5 * v for i in range(frames)]
    depth = np.stack(waves).astype(np.float32)
    depth[:, :3] = 0
    depth[:, :, 40:44] = np.nan
    matrix = MATRIX.copy()
    matrix[:2] *= size[1] / 64
    return array_sequence(
        "told",
        random.integers(0, 256, (frames, *size, 3), np.uint8),
        depth,
        random_trajectory(seed, frames),
        np.tile(matrix, (frames, 1, 1)),
    )


def protocol(task, variant="published", dataset="folder") -> Protocol:
    return Protocol(task, dataset, 1, None, variant)


def show(recorder, predict):
    """Tell a recorder what `predict(index, true, frame)` makes of each frame."""
    for index, true in enumerate(recorder.sequence):
        frame = recorder.prepare(true)
        told = predict(index, true, frame)
        tensors = {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in told.items()}
        recorder.take(Prediction(index=index, timestamp=true.timestamp, **tensors))
    return recorder
