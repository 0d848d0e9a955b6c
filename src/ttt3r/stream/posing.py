"""Where the pose of a frame comes from.

* ``head``: the network's pose head, as published.
* ``points``: the rigid motion that takes the frame's points in its own camera onto its points in
  the world. Needs a network that gives both.
* ``auto``: the head's rotation, and the position that the points give with it.

Points count with log c · log c', the product of the logarithms of their two confidences, as where
segments are joined. They count as the network gives them, also where the intrinsics are known. A
frame whose points determine no pose keeps the head's, and a warning says so.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import InputError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.pointmap_pose import pose_from_points
from ttt3r.types import POSE_SOURCES, PoseFrom, Reading

logger = logging.getLogger(__name__)

NEEDED = frozenset({"points", "world"})
MOST_POINTS = 4096  # of a view that are looked at, on an even grid
LEAST_POINTS = 32


def choose(pose_from: str | None, model: Any) -> PoseFrom:
    """Return where poses come from: as asked for, or as the weights say, or the head.

    Raises:
        SettingError: if there is no such source, or the network does not give what it takes.
    """
    chosen = pose_from or model.weights.pose_from or "head"
    if chosen not in POSE_SOURCES:
        raise SettingError(f"pose_from must be one of {', '.join(POSE_SOURCES)}, not {chosen!r}")
    if needs(chosen) - set(model.capabilities.outputs):
        raise SettingError(
            f"poses cannot come from {chosen}: this network gives no points in the world, only "
            f"{', '.join(model.capabilities.outputs)}. Leave pose_from out, or load other weights."
        )
    return cast(PoseFrom, chosen)


def needs(pose_from: str) -> frozenset[str]:
    """Outputs that a source of poses takes beside the pose itself."""
    return frozenset() if pose_from == "head" else NEEDED


def repose(output: Reading, pose_from: PoseFrom, indices: Sequence[int]) -> Reading:
    """Return what was said, with the pose from where it is to come from.

    Args:
        output: of a batch of one: a frame, or the views of a segment.
        pose_from: where poses come from.
        indices: of the frames, for messages.
    """
    if pose_from == "head":
        return output
    heads = output.world_from_camera
    if heads is None:
        assert output.pose_encoding is not None
        heads = se3.pose_from_encoding(output.pose_encoding.cpu().double())
    assert output.points is not None and output.world_points is not None
    assert output.confidence is not None and output.world_confidence is not None
    views = zip(
        heads.cpu().double().flatten(0, -3),
        output.points.flatten(0, -4),
        output.world_points.flatten(0, -4),
        (output.confidence.log() * output.world_confidence.log()).flatten(0, -3),
        indices,
        strict=True,
    )
    poses = [_pose(*view[:-1], pose_from, view[-1]) for view in views]
    return replace(output, world_from_camera=torch.stack(poses).reshape(heads.shape))


def _pose(
    head: Float[Tensor, "4 4"],
    points: Float[Tensor, "height width 3"],
    world_points: Float[Tensor, "height width 3"],
    weights: Float[Tensor, "height width"],
    pose_from: PoseFrom,
    index: int,
) -> Float[Tensor, "4 4"]:
    height, width = weights.shape
    step = max(1, round((height * width / MOST_POINTS) ** 0.5))
    grid = slice(step // 2, None, step)
    own, world = (item[grid, grid].reshape(-1, 3).cpu().double() for item in (points, world_points))
    trust = weights[grid, grid].flatten().cpu().double()
    usable = own.isfinite().all(1) & world.isfinite().all(1) & trust.isfinite() & (trust > 0)
    rotation = head[:3, :3] if pose_from == "auto" else None
    try:
        if int(usable.sum()) < LEAST_POINTS:
            raise InputError(f"only {int(usable.sum())} of its points can be used")
        return pose_from_points(own[usable], world[usable], trust[usable], rotation)
    except InputError as problem:
        logger.warning("frame %d keeps the pose of the head: %s", index, problem)
        return head
