"""What a network is asked for while it is trained, one clip at a time.

* Depth is judged after one scale per clip, in closed form: the shape of a scene can be learned long
  before its size, and an error of size must not drown it. The scale itself is a small part.
* World points are judged against the network's *own* points moved by the true pose, so that they
  teach motion and leave depth alone.
* Errors of pose are squared near zero. Most motions are small, and the plain distance rewards a
  network for claiming that there is none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.geometry.se3 import encoding_from_pose
from ttt3r.models.base import Tokens, Views
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.rules.base import Rule
from ttt3r.training.data import Batch
from ttt3r.training.matching import MatchingProbe, descriptor_loss, matches, on_state_grid
from ttt3r.training.recipe import LossWeights
from ttt3r.types import Reading

OUTPUTS = ("points", "pose", "world")
NEAREST = 0.3  # metres; keeps relative errors finite
CONFIDENCE = 0.3  # α, the error at which a confidence of 1 is worth it
GATE_LOGIT = -0.3  # what the gate is held to on average, so that neither end is ever all there is
TOLD_LAYERS = (0, 1)  # layers of the decoder whose attention is told where to look


@dataclass(frozen=True)
class Said:
    """What a network said of all frames of a batch.

    Attributes:
        points: in each camera's frame.
        confidence: of `points`.
        world: in the frame of the first camera.
        world_confidence: of `world`.
        pose: [tx, ty, tz, qw, qx, qy, qz].
    """

    points: Float[Tensor, "batch frames height width 3"]
    confidence: Float[Tensor, "batch frames height width"]
    world: Float[Tensor, "batch frames height width 3"]
    world_confidence: Float[Tensor, "batch frames height width"]
    pose: Float[Tensor, "batch frames 7"]

    @staticmethod
    def of(readings: list[Reading]) -> "Said":
        """Stack the readings of the frames."""
        names = ("points", "confidence", "world_points", "world_confidence", "pose_encoding")
        return Said(*(torch.stack([getattr(each, name) for each in readings], 1) for name in names))


@dataclass(frozen=True)
class Errors:
    """Parts of the loss, each a scalar. What is reported beside them is in `shown`."""

    points: Tensor
    world: Tensor
    direction: Tensor
    translation: Tensor
    rotation: Tensor
    matching: Tensor
    descriptor: Tensor
    scale: Tensor
    confidence: Tensor
    gate: Tensor

    def weighted(self, weights: LossWeights) -> dict[str, Tensor]:
        """Each part times its weight, by name."""
        return {
            item.name: getattr(self, item.name) * getattr(weights, item.name)
            for item in fields(self)
        }


def robust(error: Tensor, width: float) -> Tensor:
    """Square of a small error over `width`, and the error itself when it is large."""
    return error.square() / (error + width)


def length(vector: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any"]:
    """Euclidean length, with a gradient at zero."""
    return (vector.square().sum(-1) + 1e-8).sqrt()


def log_scale(
    points: Float[Tensor, "batch frames height width 3"],
    distance: Float[Tensor, "batch frames height width"],
    valid: Float[Tensor, "batch frames height width"],
) -> Float[Tensor, " batch"]:
    """Log of the factor by which the points of each clip are too near: a mean over its pixels."""
    said = points.norm(dim=-1).clamp(min=0.05)
    difference = (distance.log() - said.log()) * valid
    return difference.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)


def geometry_errors(
    said: Said, batch: Batch, offset: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """The parts of the loss that judge points, poses and confidence.

    Args:
        said: of all frames.
        batch: the truth.
        offset: judge every second pixel only, from this row and column on; None judges all.
    """
    pick = (
        (slice(None), slice(None))
        if offset is None
        else (slice(offset[0], None, 2), slice(offset[1], None, 2))
    )
    at = (slice(None), slice(None), *pick)
    points, world, truth = said.points[at], said.world[at], batch.points[at]
    valid = batch.valid[at].float()
    count = valid.sum().clamp(min=1)
    distance = truth.norm(dim=-1).clamp(min=NEAREST)
    scales = log_scale(points, distance, valid)
    scale = scales.exp()[:, None, None, None, None]

    error = length(scale * points - truth) / distance
    rotation, translation = (
        batch.world_from_camera[..., :3, :3],
        batch.world_from_camera[..., :3, 3],
    )
    moved = torch.einsum("btij,bthwj->bthwi", rotation, (scale * points).detach())
    target = moved + translation[:, :, None, None]
    world_error = length(scale * world - target) / distance
    turn = length(F.normalize(world, dim=-1, eps=1e-4) - F.normalize(target, dim=-1, eps=1e-4))
    far = (target.norm(dim=-1) > 0.2).float() * valid

    mean = (distance * valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)
    step = (scale[:, :, 0, 0] * said.pose[..., :3] - translation).norm(dim=-1)
    step = step / mean[:, None].clamp(min=0.5)
    angle = quaternion_distance(
        said.pose[..., 3:], encoding_from_pose(batch.world_from_camera)[..., 3:]
    )

    def reward(confidence: Tensor, error: Tensor) -> Tensor:
        cost = confidence[at] * error.detach() - CONFIDENCE * confidence[at].log()
        return (cost * valid).sum() / count

    return {
        "points": (error * valid).sum() / count,
        "world": (robust(world_error, 0.05) * valid).sum() / count,
        "direction": (robust(turn, 0.02) * far).sum() / count,
        "translation": robust(step[:, 1:], 0.05).mean(),  # the first frame's pose is trivial
        "rotation": robust(angle[:, 1:], 0.03).mean(),
        "scale": scales.abs().mean(),
        "confidence": reward(said.confidence, error) + reward(said.world_confidence, world_error),
    }


def quaternion_distance(
    estimate: Float[Tensor, "*batch 4"], truth: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """Euclidean distance of unit quaternions, of which q and -q mean the same."""
    sign = torch.where((estimate * truth).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return (estimate * sign - truth).norm(dim=-1)


def gate_error(gates: list[Float[Tensor, "batch tokens"]]) -> Float[Tensor, ""]:
    """Squared distance of the gate's mean logit from `GATE_LOGIT`."""
    logits = torch.logit(torch.stack(gates).clamp(1e-4, 1 - 1e-4))
    return (logits.mean() - GATE_LOGIT).square()


@contextmanager
def kept_outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module returns while the block runs."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(output)

    handle = module.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def clip_errors(
    model: Cut3r, batch: Batch, rule: Rule, offset: tuple[int, int] | None = None
) -> Errors:
    """Stream the clips of a batch through the state, and judge what the network says.

    Args:
        model: the network.
        batch: clips.
        rule: how the state is updated.
        offset: see `geometry_errors`.
    """
    count, frames = batch.image.shape[:2]
    config, zero = model.config, batch.image.new_zeros(())
    with kept_outputs(model.patch_embed) as embedded:
        tokens = model.encode(Views(image=batch.image.flatten(0, 1)))
    features = tokens.features.unflatten(0, (count, frames))
    found = [matches(batch, config.patch_size, frame) for frame in range(1, frames)]
    content = embedded[0][..., : config.content_channels or None].unflatten(0, (count, frames))
    state = model.initial_state(rule, count)
    readings, told, gates = [], [], []
    for frame in range(frames):
        probe = None
        if frame:
            target = on_state_grid(found[frame - 1], batch.size, config)
            probe = None if target is None else MatchingProbe(target, TOLD_LAYERS)
        now = Tokens(features[:, frame], tokens.size, tokens.has_image[:count])
        state, reading = model.step(state, now, rule, OUTPUTS, image_probe=probe)
        readings.append(reading)
        if probe is not None:
            told.append(probe.loss())
        if frame and rule.evidence and isinstance(reading.gate, Tensor):
            gates.append(reading.gate)
    return Errors(
        **geometry_errors(Said.of(readings), batch, offset),
        matching=torch.stack(told).mean() if told else zero,
        descriptor=descriptor_loss(content, torch.stack(found, 1)),
        gate=gate_error(gates) if gates else zero,
    )
