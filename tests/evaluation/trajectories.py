"""Readers of the golden trajectories, and random trajectories for the property tests."""

import json
from itertools import accumulate

import numpy as np
import torch

from tests.geometry.samples import normal
from tests.goldens import goldens
from ttt3r.geometry import se3


def expected(kind):
    return json.loads((goldens("eval") / kind / "expected.json").read_text("utf-8"))


def read_tum(path):
    """Time stamps [n] and poses [n, 4, 4] of the lines `t tx ty tz qx qy qz qw`."""
    rows = np.loadtxt(path, ndmin=2)
    encoding = torch.from_numpy(rows[:, [1, 2, 3, 7, 4, 5, 6]])
    return rows[:, 0], se3.pose_from_encoding(encoding).numpy()


def read_matrices(path):
    rows = np.loadtxt(path, ndmin=2)
    return np.arange(len(rows), dtype=np.float64), rows.reshape(-1, 4, 4)


def read_sintel(folder):
    """A float32 tag, nine float64 intrinsics, twelve float64 of ``camera_from_world``."""
    paths = sorted(folder.glob("*.cam"))
    numbers = [np.frombuffer(path.read_bytes(), "<f8", 12, offset=4 + 72) for path in paths]
    poses = np.tile(np.eye(4), (len(paths), 1, 1))
    poses[:, :3] = np.stack(numbers).reshape(-1, 3, 4)
    stamps = np.array([float(path.stem.split("_")[1]) for path in paths])
    return stamps, np.linalg.inv(poses)


READERS = {"tum": read_tum, "replica": read_matrices, "sintel": read_sintel}


def load_case(case):
    """(estimate [n, 4, 4], its stamps [n], truth [m, 4, 4], its stamps [m]) of a golden case."""
    folder = goldens("eval") / "pose"
    stamps, truth = READERS[case["gt_format"]](folder / case["gt"])
    estimate = np.load(folder / case["pred"])
    own = stamps if len(estimate) == len(truth) else np.arange(len(estimate), dtype=np.float64)
    return estimate, own, truth, stamps


def random_trajectory(seed, frames=12):
    """Rigid poses [frames, 4, 4] that move a little from frame to frame."""
    steps = normal(seed, frames, 6) * 0.2
    encoding = torch.cat([steps[:, :3], torch.ones(frames, 1).double(), steps[:, 3:]], dim=-1)
    return np.stack(list(accumulate(se3.pose_from_encoding(encoding).numpy(), np.matmul)))


def associate(first, second, max_difference=0.01):
    """Indices into two lists of time stamps (seconds) of the entries that belong together.

    Every stamp of the shorter list takes the nearest of the longer one, if that is near enough.
    """
    if len(first) > len(second):
        return associate(second, first, max_difference)[::-1]
    nearest = np.array([np.abs(second - stamp).argmin() for stamp in first], dtype=np.int64)
    paired = np.flatnonzero(np.abs(second[nearest] - first) <= max_difference)
    return paired, nearest[paired]
