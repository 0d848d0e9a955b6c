"""Batches of training clips: drawn from rendered ones, mirrored, turned back in time and tinted."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.geometry.camera import unproject
from ttt3r.geometry.se3 import invert
from ttt3r.training.recipe import Stage
from ttt3r.training.shards import ShardClip

FARTHEST = 60.0  # metres; what lies beyond is not learned


@runtime_checkable
class Source(Protocol):
    """Rendered clips, all of one length and size, such as `Shards`."""

    @property
    def frames(self) -> int:
        """Frames of each clip."""
        ...

    def __len__(self) -> int:
        """How many clips there are now."""
        ...

    def __getitem__(self, number: int, /) -> ShardClip:
        """One clip."""
        ...


@dataclass(frozen=True)
class Batch:
    """Clips of equal length and size, in the form the network and the losses take.

    Attributes:
        image: in [-1, 1].
        points: in the camera's frame, metres.
        valid: pixels that show a surface nearer than `FARTHEST`.
        world_from_camera: poses relative to the first frame.
        intrinsics: pinhole matrix of each clip, pixels.
    """

    image: Float[Tensor, "batch frames 3 height width"]
    points: Float[Tensor, "batch frames height width 3"]
    valid: Bool[Tensor, "batch frames height width"]
    world_from_camera: Float[Tensor, "batch frames 4 4"]
    intrinsics: Float[Tensor, "batch 3 3"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[-2], self.image.shape[-1]

    def to(self, device: torch.device | str) -> "Batch":
        """Move to a device."""
        return Batch(*(getattr(self, item.name).to(device) for item in fields(self)))


@dataclass(frozen=True)
class Changes:
    """How each clip of a batch is changed before it is shown.

    Attributes:
        mirrored: left and right exchanged.
        gamma: exponent of the colours.
        contrast: factor on the distance from the mean colour.
        tint: factor on each channel.
    """

    mirrored: Bool[Tensor, " batch"]
    gamma: Float[Tensor, " batch"]
    contrast: Float[Tensor, " batch"]
    tint: Float[Tensor, "batch 3"]

    @staticmethod
    def none(count: int) -> "Changes":
        """Leave `count` clips as they are."""
        one = torch.ones(count)
        return Changes(torch.zeros(count, dtype=torch.bool), one, one, torch.ones(count, 3))

    @staticmethod
    def draw(count: int, random: np.random.Generator) -> "Changes":
        """Half are mirrored, a third change their contrast, all change in brightness and hue."""

        def factors(spread: float, *shape: int) -> Tensor:
            return torch.from_numpy(np.exp(random.normal(0.0, spread, (count, *shape)))).float()

        changed = torch.from_numpy(random.random(count) < 0.3)
        return Changes(
            mirrored=torch.from_numpy(random.random(count) < 0.5),
            gamma=factors(0.15),
            contrast=torch.where(changed, factors(0.15), 1.0),
            tint=factors(0.06, 3) * factors(0.12, 1),
        )


def pick_frames(
    length: int, frames: int, longest_span: int, random: np.random.Generator
) -> Int[np.ndarray, " frames"]:
    """Ordered frames of a clip of `length`, forwards or backwards in time.

    The spacing is random; first and last frame are at most `longest_span` apart.
    """
    span = int(random.integers(frames - 1, max(frames - 1, min(length - 1, longest_span)) + 1))
    start = int(random.integers(0, length - span))
    inner = random.choice(np.arange(1, span), frames - 2, replace=False) if frames > 2 else []
    order = start + np.array([0, *np.sort(inner), span], dtype=int)
    return order if random.random() < 0.5 else order[::-1]


def pick(clip: ShardClip, frames: Sequence[int]) -> ShardClip:
    """Some frames of a clip, in the order given."""
    chosen = list(frames)
    return ShardClip(clip.image[chosen], clip.depth[chosen], clip.pose[chosen], clip.intrinsics)


def collate(clips: Sequence[ShardClip], changes: Changes) -> Batch:
    """Make a batch of clips, changed as told."""
    image = torch.from_numpy(np.stack([clip.image for clip in clips])).float() / 255
    depth = torch.from_numpy(np.stack([clip.depth for clip in clips])).float()
    poses = torch.from_numpy(np.stack([clip.pose for clip in clips])).double()
    focal, *centre = (
        torch.from_numpy(np.stack([clip.intrinsics for clip in clips])).float().unbind(1)
    )
    count, frames, width = *image.shape[:2], image.shape[-1]
    poses = invert(poses[:, :1]) @ poses

    flip = changes.mirrored
    image = torch.where(flip[:, None, None, None, None], image.flip(-1), image)
    depth = torch.where(flip[:, None, None, None], depth.flip(-1), depth)
    centre[0] = torch.where(flip, width - 1 - centre[0], centre[0])
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    poses = torch.where(flip[:, None, None, None], mirror @ poses @ mirror, poses)

    intrinsics = torch.zeros(count, 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = centre
    intrinsics[:, 2, 2] = 1.0
    points = unproject(depth.flatten(0, 1), intrinsics.repeat_interleave(frames, 0))
    return Batch(
        image=recolour(image, changes) * 2 - 1,
        points=points.unflatten(0, (count, frames)),
        valid=(depth > 0) & (depth < FARTHEST),
        world_from_camera=poses.float(),
        intrinsics=intrinsics,
    )


def recolour(
    image: Float[Tensor, "batch frames 3 height width"], changes: Changes
) -> Float[Tensor, "batch frames 3 height width"]:
    """Change gamma, tint and contrast of colours in [0, 1]."""
    image = image ** changes.gamma[:, None, None, None, None]
    image = image * changes.tint[:, None, :, None, None]
    mean = image.mean((2, 3, 4), keepdim=True)
    return (mean + (image - mean) * changes.contrast[:, None, None, None, None]).clamp(0, 1)


def draw_batch(source: Source, stage: Stage, within: int, random: np.random.Generator) -> Batch:
    """A random batch of a stage.

    Args:
        source: rendered clips.
        stage: says how many clips and frames.
        within: number of the step in the stage, from which the longest span follows.
        random: decides the rest.
    """
    first, last = stage.span
    span = round(first + (last - first) * within / stage.steps)
    clips = random.integers(len(source), size=stage.batch)
    rows = [
        pick(source[int(clip)], pick_frames(source.frames, stage.frames, span, random).tolist())
        for clip in clips
    ]
    return collate(rows, Changes.draw(stage.batch, random))


def fixed_batch(source: Source, clips: Sequence[int], frames: Sequence[int]) -> Batch:
    """The given frames of the given clips, as they are; for validation."""
    return collate([pick(source[clip], frames) for clip in clips], Changes.none(len(clips)))
