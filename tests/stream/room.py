"""A network that is not one: it knows the truth of a round room, and drifts by a known amount.

Images show nothing but their number. What is said of a segment's first frame is exact; all that
follows is moved by a similarity that is the segment's own. So each join adds a known error.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.camera import pixel_grid
from ttt3r.models.base import Capabilities, State, Tokens, Views, WeightsInfo
from ttt3r.rules import parse
from ttt3r.types import Preparation, Reading

SIDE, FOCAL, RADIUS = 16, 14.0, 5.0


def images(count: int) -> np.ndarray:
    """Pictures that carry their number."""
    pictures = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    numbers = np.arange(count)
    pictures[..., 0] = (numbers % 256)[:, None, None]
    pictures[..., 1] = (numbers // 256)[:, None, None]
    return pictures


def turned(axis: Collection[float], angle: float) -> Tensor:
    """Rotation by an angle in radians (Rodrigues)."""
    x, y, z = (torch.tensor(list(axis), dtype=torch.float64) / math.hypot(*axis)).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.eye(3).double() + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def circle(count: int, turns: float = 1.0) -> Float[Tensor, "count 4 4"]:
    """Cameras on a circle that look ahead; after `turns` rounds they are where they began."""
    poses = []
    for number in range(count):
        angle = 2 * math.pi * turns * number / (count - 1)
        turn = turned((0, 1, 0), angle)
        poses.append(se3.assemble(turn, turn @ torch.tensor([-2.0, 0.1, 0]).double()))
    return torch.stack(poses)


@dataclass(frozen=True)
class RoomState(State):
    """The frame a segment began with, and how many there were."""

    first: Int[Tensor, " batch"]
    age: Int[Tensor, " batch"]
    tokens: Float[Tensor, "batch 4"]


class Room:
    """The network.

    Args:
        poses: world_from_camera of each frame.
        drift: how far each segment is off after its first frame: rotation in radians, translation,
            and logarithm of scale.
    """

    capabilities = Capabilities(outputs=("points", "pose"), constant_memory=True)
    preparation = Preparation(size=SIDE, patch=SIDE, square_ok=True)
    weights = WeightsInfo("room", "none", "tests", "0" * 64, preparation=preparation)
    device = torch.device("cpu")

    def __init__(
        self,
        poses: Float[Tensor, "count 4 4"],
        drift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.poses, self.drift = poses, drift

    def parse_rule(self, rule: Any = None) -> Any:
        return parse(rule)

    def initial_state(self, rule: Any, batch: int = 1) -> RoomState:
        count = torch.zeros(batch, dtype=torch.int64)
        return RoomState(count - 1, count, torch.zeros(batch, 4))

    def reset(self, state: RoomState, rule: Any, which: Bool[Tensor, " batch"]) -> RoomState:
        return self.initial_state(rule, len(which))

    @cached_property
    def features(self) -> Float[Tensor, "count 6"]:
        """Where the camera stands and looks: what a good place descriptor would tell."""
        return torch.cat([self.poses[:, :3, 3] / 2, self.poses[:, :3, 2]], 1).float()

    def encode(self, views: Views) -> Tokens:
        assert views.image is not None
        shown = ((views.image[0, :2, 0, 0] + 1) * 127.5).round().long()
        number = int(shown[0] + 256 * shown[1])
        size = (views.image.shape[2], views.image.shape[3])
        return Tokens(self.features[number][None, None], size, torch.tensor([True]))

    def drift_of(self, first: int) -> Float[Tensor, "4 4"]:
        """By how much the segment that begins with a frame is off."""
        angle, shift, log_scale = self.drift
        axis = (math.sin(first), 1.0, math.cos(first))
        linear = math.exp(log_scale) * turned(axis, angle)
        return se3.assemble(linear, torch.tensor([shift, 0.3 * shift, -shift]).double())

    def points(self, number: int) -> Float[Tensor, "height width 3"]:
        """What the camera sees of the wall, in its own frame."""
        pixels = pixel_grid((SIDE, SIDE), torch.zeros((), dtype=torch.float64))
        rays = torch.cat([(pixels - SIDE // 2) / FOCAL, torch.ones(SIDE, SIDE, 1).double()], -1)
        pose = self.poses[number]
        turned_rays = rays @ pose[:3, :3].T
        # |position + depth · ray| = RADIUS
        a = turned_rays.square().sum(-1)
        b = (turned_rays * pose[:3, 3]).sum(-1)
        c = pose[:3, 3].square().sum() - RADIUS**2
        depth = (-b + (b * b - a * c).sqrt()) / a
        return rays * depth[..., None]

    def step(
        self,
        state: RoomState,
        tokens: Tokens,
        rule: Any,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[RoomState, Reading]:
        wanted = self.capabilities.check(outputs)
        number = int((self.features == tokens.features[0, 0]).all(1).nonzero()[0])
        fresh = int(state.age) == 0
        first = torch.tensor([number]) if fresh else state.first
        pose, points = se3.invert(self.poses[int(first)]) @ self.poses[number], self.points(number)
        if not fresh:
            drift = self.drift_of(int(first))
            pose = se3.place_camera(drift, pose)
            points = points * se3.similarity_scale(drift)
        reading = Reading(
            points=points[None].float(),
            confidence=torch.full((1, SIDE, SIDE), 3.0),
            pose_encoding=se3.encoding_from_pose(pose)[None].float(),
        )
        kept = update is None or bool(update)
        after = RoomState(first, state.age + 1, tokens.features[0, :, :4]) if kept else state
        return after, reading.only(wanted)
