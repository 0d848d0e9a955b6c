"""What training minimises: confidence-weighted pointmap regression, pose and colour.

Follows the losses of CUT3R (arXiv 2501.12387, section 3.4) on metric data, with three differences
that small networks trained from nothing need:

* The error of a point is divided by its distance from the camera that sees it rather than by the
  mean distance of all points, so that near and far count alike, as in the relative errors reported.
* Errors of pose are squared near zero. Most motions are small, and the plain distance rewards a
  network for claiming that there is none.
* The motion of each point between the two pointmaps is a target of its own. Errors of depth are an
  order of magnitude larger than motions, and would drown what there is to learn about matching.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.geometry.se3 import apply, encoding_from_pose
from ttt3r.models.base import StepOutput

NEAREST = 0.3  # metres; keeps relative errors finite


@dataclass(frozen=True)
class Target:
    """The truth about one frame of each stream of a batch.

    Attributes:
        points: in the camera's frame, metres.
        valid: pixels that show a surface.
        world_from_camera: pose relative to the stream's first frame.
        image: in [-1, 1].
    """

    points: Float[Tensor, "batch height width 3"]
    valid: Bool[Tensor, "batch height width"]
    world_from_camera: Float[Tensor, "batch 4 4"]
    image: Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts.

    Attributes:
        points: pointmap in the camera's frame.
        world: pointmap in the frame of the first camera.
        motion: difference of the two pointmaps, over the distance from the camera.
        rotation: distance of unit quaternions.
        translation: distance of camera centres over the scene's mean depth.
        rgb: squared error of colours in [-1, 1].
        matching: cross-entropy of the attention from one frame of a pair to the other.
        confidence: α, the reward for claiming to be sure; errors above it earn no confidence.
    """

    points: float = 1.0
    world: float = 1.0
    motion: float = 5.0
    rotation: float = 20.0
    translation: float = 20.0
    rgb: float = 0.0
    matching: float = 1.0
    confidence: float = 0.6


def robust(error: Tensor, width: float = 0.1) -> Tensor:
    """Square of a small error over `width`, and the error itself when it is large."""
    return error.square() / (error + width)


def pointmap_loss(
    points: Float[Tensor, "batch height width 3"],
    confidence: Float[Tensor, "batch height width"],
    target: Float[Tensor, "batch height width 3"],
    distance: Float[Tensor, "batch height width"],
    valid: Bool[Tensor, "batch height width"],
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """Loss C·e - α log C and the plain relative error e, each averaged over valid pixels.

    Pixels that show nothing only pull the confidence down to its floor, where log C is 0.
    """
    error = torch.linalg.vector_norm(points - target, dim=-1) / distance
    weighted = confidence * error - alpha * confidence.log()
    empty = alpha * confidence.log()
    count = valid.sum().clamp(min=1)
    loss = torch.where(valid, weighted, 0.0).sum() / count
    loss = loss + torch.where(valid, 0.0, empty).sum() / (~valid).sum().clamp(min=1) * 0.1
    return loss, torch.where(valid, error, 0.0).sum().detach() / count


def frame_loss(
    output: StepOutput, target: Target, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of one frame and its parts, averaged over the batch.

    Parts of `output` that were not asked for are left out.
    """
    total = target.points.new_zeros(())
    parts: dict[str, Tensor] = {}
    distance = torch.linalg.vector_norm(target.points, dim=-1).clamp(min=NEAREST)
    maps = (
        ("points", output.points, output.confidence, weights.points),
        ("world", output.world_points, output.world_confidence, weights.world),
    )
    for name, points, confidence, weight in maps:
        if points is not None and confidence is not None and weight > 0:
            truth = target.points
            truth = apply(target.world_from_camera, truth) if name == "world" else truth
            loss, error = pointmap_loss(
                points, confidence, truth, distance, target.valid, weights.confidence
            )
            total, parts[name] = total + weight * loss, error
    if output.points is not None and output.world_points is not None and weights.motion > 0:
        moved = apply(target.world_from_camera, target.points) - target.points
        claimed = output.world_points - output.points.detach()
        error = torch.linalg.vector_norm(claimed - moved, dim=-1) / distance
        error = torch.where(target.valid, error, 0.0)
        count = target.valid.sum().clamp(min=1)
        total = total + weights.motion * robust(error).sum() / count
        parts["motion"] = error.sum() / count
    if output.pose_encoding is not None:
        truth = encoding_from_pose(target.world_from_camera)
        mask = target.valid.flatten(1)
        scale = (distance.flatten(1) * mask).sum(1) / mask.sum(1).clamp(min=1)
        move = torch.linalg.vector_norm(output.pose_encoding[:, :3] - truth[:, :3], dim=-1)
        turn = quaternion_distance(output.pose_encoding[:, 3:], truth[:, 3:])
        move = move / scale.clamp(min=NEAREST)
        total = total + weights.translation * robust(move).mean()
        total = total + weights.rotation * robust(turn).mean()
        parts["translation"], parts["rotation"] = move.mean(), turn.mean()
    if output.rgb is not None and weights.rgb > 0:
        parts["rgb"] = (output.rgb - target.image.movedim(1, -1)).square().mean()
        total = total + weights.rgb * parts["rgb"]
    return total, {name: value.detach() for name, value in parts.items()}


def quaternion_distance(
    estimate: Float[Tensor, "batch 4"], truth: Float[Tensor, "batch 4"]
) -> Float[Tensor, " batch"]:
    """Euclidean distance of unit quaternions, of which q and -q mean the same."""
    sign = torch.where((estimate * truth).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return torch.linalg.vector_norm(estimate - sign * truth, dim=-1)
