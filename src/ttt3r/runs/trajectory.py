"""Trajectories in the TUM RGB-D format: `timestamp tx ty tz qx qy qz qw`, one line per pose."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry.rotation import quaternion_from_matrix


@dataclass(frozen=True)
class Trajectory:
    """Camera poses over time.

    Attributes:
        timestamps: seconds, float64.
        world_from_camera: rigid poses, float32.
    """

    timestamps: Float[Tensor, " frames"]
    world_from_camera: Float[Tensor, "frames 4 4"]

    def __len__(self) -> int:
        return len(self.timestamps)

    def to_tum(self) -> str:
        """Return the lines of a TUM file."""
        return "".join(
            tum_line(float(stamp), pose)
            for stamp, pose in zip(self.timestamps, self.world_from_camera, strict=True)
        )


def tum_line(timestamp: float, world_from_camera: Float[Tensor, "4 4"]) -> str:
    """Return one line; the quaternion is written x y z w."""
    pose = world_from_camera.detach().cpu().double()
    w, x, y, z = quaternion_from_matrix(pose[:3, :3]).tolist()
    numbers = [*pose[:3, 3].tolist(), x, y, z, w]
    return f"{timestamp:.6f} " + " ".join(f"{number:.9g}" for number in numbers) + "\n"


def line_of(timestamp: float, world_from_camera: Float[Tensor, "4 4"] | None) -> str:
    """Return the line of a frame; nothing for a frame without a pose or that was not placed."""
    if world_from_camera is None or not bool(world_from_camera.isfinite().all()):
        return ""
    return tum_line(timestamp, world_from_camera)


def stack(timestamps: list[float], poses: list[Tensor]) -> Trajectory:
    """Make a trajectory of single poses."""
    stacked = torch.stack(poses) if poses else torch.zeros(0, 4, 4)
    return Trajectory(torch.tensor(timestamps, dtype=torch.float64), stacked)
