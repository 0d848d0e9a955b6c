"""Batches of training clips: drawn from rendered ones, cropped, resized, mirrored and tinted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ttt3r.geometry.camera import unproject
from ttt3r.geometry.se3 import invert
from ttt3r.training.cache import Shard, read
from ttt3r.training.losses import Target

FARTHEST = 60.0  # metres; what lies beyond is not learned


@dataclass(frozen=True)
class Batch:
    """Clips of equal length and size, in the form the network and the losses take.

    Attributes:
        image: in [-1, 1].
        points: in the camera's frame, metres.
        valid: pixels that show a surface nearer than `FARTHEST`.
        world_from_camera: poses relative to the first frame.
        intrinsics: pinhole matrix, pixels.
    """

    image: Float[Tensor, "batch frames 3 height width"]
    points: Float[Tensor, "batch frames height width 3"]
    valid: Bool[Tensor, "batch frames height width"]
    world_from_camera: Float[Tensor, "batch frames 4 4"]
    intrinsics: Float[Tensor, "batch frames 3 3"]

    def target(self, frame: int) -> Target:
        """What the network should say of one frame."""
        return Target(
            self.points[:, frame],
            self.valid[:, frame],
            self.world_from_camera[:, frame],
            self.image[:, frame],
        )

    def split(self, parts: int) -> list["Batch"]:
        """Cut into batches of about equal size, at most `parts` of them."""
        columns = [value.chunk(parts) for value in vars(self).values()]
        return [Batch(*row) for row in zip(*columns, strict=True)]

    def to(self, device: torch.device | str) -> "Batch":
        """Move to a device."""
        return Batch(*(value.to(device) for value in vars(self).values()))


def relative_to_first(poses: Float[Tensor, "*batch frames 4 4"]) -> Tensor:
    """Poses in the frame of each clip's first camera."""
    return invert(poses[..., :1, :, :].double()).matmul(poses.double()).float()


def crop_and_resize(
    image: UInt8[Tensor, "frames height width 3"],
    depth: Float[Tensor, "frames height width"],
    intrinsics: Float[Tensor, "frames 3 3"],
    size: tuple[int, int],
    zoom: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Central crop of `size`'s shape, `zoom` (up to 1) of the largest, resized to `size`.

    Returns the image [frames, 3, *size] in [0, 1], points [frames, *size, 3] and the intrinsics.
    Points are those of the nearest source pixels, so they lie exactly on surfaces.
    """
    height, width = depth.shape[1:]
    fit = min(height / size[0], width / size[1]) * zoom
    rows, columns = min(round(size[0] * fit), height), min(round(size[1] * fit), width)
    top, left = (height - rows) // 2, (width - columns) // 2
    window = (slice(None), slice(top, top + rows), slice(left, left + columns))
    pixels = image[window].movedim(-1, 1).float() / 255
    if (rows, columns) != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    scale_y, scale_x = size[0] / rows, size[1] / columns
    v = ((torch.arange(size[0]) + 0.5) / scale_y).long() + top
    u = ((torch.arange(size[1]) + 0.5) / scale_x).long() + left
    points = unproject(depth.float(), intrinsics)[:, v[:, None], u[None]]
    resized = intrinsics.clone()
    resized[:, 0, 0] *= scale_x
    resized[:, 1, 1] *= scale_y
    resized[:, 0, 2] = (intrinsics[:, 0, 2] - left + 0.5) * scale_x - 0.5
    resized[:, 1, 2] = (intrinsics[:, 1, 2] - top + 0.5) * scale_y - 0.5
    return pixels, points, resized


class Clips:
    """Rendered clips in memory, from which batches are drawn.

    Args:
        folder: where the cache is.
        shards: what to read from it; all of one frame count and size.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.parts = [read(folder, shard) for shard in shards]
        self.index = [(i, j) for i, s in enumerate(shards) for j in range(s.clips)]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def length(self) -> int:
        """Frames of each clip."""
        return len(self.parts[0]["image"][0])

    def batch(
        self,
        clips: Sequence[int],
        frames: Sequence[Sequence[int]],
        size: tuple[int, int],
        generator: torch.Generator | None = None,
    ) -> Batch:
        """Take the given frames of the given clips; with a generator, augment them at random."""
        rows = []
        for clip, chosen in zip(clips, frames, strict=True):
            part, row = self.index[clip]
            tensors = {name: values[row][list(chosen)] for name, values in self.parts[part].items()}
            zoom, mirrored, tint = 1.0, False, torch.ones(3)
            if generator is not None:
                draw = torch.rand(6, generator=generator)
                zoom = float(1 - 0.3 * draw[0])
                mirrored = bool(draw[1] < 0.5)
                tint = torch.exp(0.5 * (draw[2] - 0.5) + 0.2 * (draw[3:] - 0.5))
            image, points, intrinsics = crop_and_resize(
                tensors["image"], tensors["depth"], tensors["intrinsics"], size, zoom
            )
            poses = relative_to_first(tensors["world_from_camera"])
            if mirrored:
                image, points = image.flip(-1), points.flip(2) * torch.tensor([-1.0, 1, 1])
                mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
                poses = mirror @ poses @ mirror
                intrinsics[:, 0, 2] = size[1] - 1 - intrinsics[:, 0, 2]
            image = (image * tint[:, None, None]).clamp(0, 1) * 2 - 1
            valid = (points[..., 2] > 0) & (points[..., 2] < FARTHEST)
            rows.append((image, points, valid, poses, intrinsics))
        return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def draw_batch(
    clips: Clips,
    count: int,
    frames: int,
    size: tuple[int, int],
    generator: torch.Generator,
    longest_span: int = 0,
) -> Batch:
    """A random batch: clips, and ordered frames of each, forwards or backwards in time.

    The spacing is random; first and last frame are at most `longest_span` apart, if that is not 0.
    """
    chosen = torch.randint(len(clips), (count,), generator=generator).tolist()
    length = clips.length
    longest = max(min(longest_span or length, length - 1), frames - 1)
    picks = []
    for _ in chosen:
        draw = torch.rand(3, generator=generator)
        span = frames - 1 + int((longest - frames + 2) * float(draw[0]))
        start = int((length - span) * float(draw[1]))
        inner = torch.randperm(span - 1, generator=generator)[: frames - 2] if frames > 2 else []
        middle = sorted(start + 1 + int(i) for i in inner)
        order = [start, *middle, start + span]
        picks.append(order if draw[2] < 0.5 else order[::-1])
    return clips.batch(chosen, picks, size, generator)
