"""Poses refined against a key frame, by brightness and depth of pixels; see `geometry.direct`.

The key frame is the first frame of a segment that was pushed and has a pose. A frame takes its
place where it sees too little of it, or looks too different. Only the key frame is kept, so memory
stays as it is. A frame's depth, its points and what the network remembers never change. Where
pixels do not say clearly that another pose is better, the network's pose stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.direct import LEAST_PIXELS, View, align
from ttt3r.stream.placing import Shown, camera_of, pose_of
from ttt3r.types import Reading

NEEDED = frozenset({"points", "pose"})
# A frame becomes the key frame where it sees less of the one before, or is less like it.
LEAST_SHARED, LEAST_LIKE = 0.5, 0.7
LUMA = 0.299, 0.587, 0.114  # shares of red, green and blue in brightness (ITU-R BT.601)


@dataclass(frozen=True)
class Key:
    """A frame that others are compared with.

    Attributes:
        grey: brightness in [0, 1].
        depth: as the network gave it, in the segment's unit.
        intrinsics: pinhole matrix in pixels.
        segment_from_camera: its pose, perhaps refined, float64 on the CPU.
    """

    grey: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    intrinsics: Float[Tensor, "3 3"]
    segment_from_camera: Float[Tensor, "4 4"]

    def to_tensors(self) -> dict[str, Tensor]:
        """Write as tensors by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_tensors(cls, named: Mapping[str, Tensor], device: torch.device) -> "Key | None":
        """Read what `to_tensors` wrote, onto the model's device; None if there is nothing.

        Raises:
            ValueError: if a tensor is missing, or there is one too many.
        """
        names = {item.name for item in fields(cls)}
        if named and named.keys() != names:
            raise ValueError(f"its key frame has {', '.join(named)}, not {', '.join(names)}")
        if not named:
            return None
        pose = named["segment_from_camera"]
        moved = {name: named[name].to(device) for name in names}
        return cls(**moved | {"segment_from_camera": pose})


class Refined(NamedTuple):
    """What came of a frame.

    Attributes:
        output: what was said, with the pose that counts, and points of the world moved with it.
        key: the key frame for the next frame; None if there is none yet.
        improved: whether the pose is another one than the network's.
    """

    output: Reading
    key: Key | None
    improved: bool


def refine(key: Key | None, output: Reading, shown: Shown) -> Refined:
    """Refine the pose of a frame.

    Args:
        key: the key frame; None if there is none yet.
        output: what the network said of the frame: a batch of one, with points and pose.
        shown: the frame.
    """
    points, intrinsics = camera_of(output, shown)
    assert points is not None and intrinsics is not None
    output = replace(output, intrinsics=intrinsics[None])
    pose = pose_of(output)
    shares = torch.tensor(LUMA, device=points.device)[:, None, None]
    grey = (shown.pixels.to(points) * shares).sum(0) / 2 + 0.5
    own = Key(grey, points[..., 2].float().contiguous(), intrinsics.to(points), pose)
    known = (own.depth > 0) & own.depth.isfinite()
    usable = bool(pose.isfinite().all() & intrinsics.isfinite().all())
    usable = usable and int(known.sum()) >= LEAST_PIXELS
    if key is None or not usable:
        return Refined(output, own if usable else key, False)
    initial = se3.invert(key.segment_from_camera) @ pose
    found = align(_view(key), _view(own), initial)
    if found.accepted:
        better = key.segment_from_camera @ found.reference_from_frame
        output = _moved(output, better, pose)
        own = replace(own, segment_from_camera=better)
    stays = found.overlap >= LEAST_SHARED and found.correlation >= LEAST_LIKE
    return Refined(output, key if stays else own, found.accepted)


def _view(key: Key) -> View:
    return View(key.grey, key.depth, key.intrinsics)


def _moved(output: Reading, pose: Float[Tensor, "4 4"], before: Float[Tensor, "4 4"]) -> Reading:
    """Give a frame another pose; its points in the world go with it."""
    world = output.world_points
    if world is not None:
        world = se3.apply((pose @ se3.invert(before)).float().to(world), world)
    return replace(output, world_from_camera=pose[None], world_points=world)
