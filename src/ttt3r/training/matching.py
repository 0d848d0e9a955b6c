"""Teaches a network to match: which patch of one frame shows what a patch of the other shows.

From poses and pointmaps alone, small networks spend most of a training on a plateau where they
claim that the camera never moves. Two losses help them off it: half of the heads of the
cross-attention are told where to look, and the tokens before the encoder are told to be alike where
they show the same.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.geometry.camera import project
from ttt3r.geometry.se3 import apply
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.models.cut3r.state import state_positions
from ttt3r.training.data import Batch

AGREEMENT = 0.08  # relative difference of depth within which two pixels show the same surface
NEAREST = 0.05  # metres
NOTHING = -100  # what `torch.nn.functional.cross_entropy` leaves out
SHARPNESS = 16.0  # inverse temperature of the descriptors' similarity


def matches(batch: Batch, patch: int, frame: int) -> Int[Tensor, "batch patches"]:
    """For each patch of a frame, the patch of frame 0 that shows its centre, or `NOTHING`.

    Patches are counted row by row.
    """
    height, width = batch.size
    middle = slice(patch // 2, None, patch)
    points = batch.points[:, frame, middle, middle].flatten(1, 2)
    valid = batch.valid[:, frame, middle, middle].flatten(1)
    seen = apply(batch.world_from_camera[:, frame], points)
    z = seen[..., 2]
    in_front = torch.cat((seen[..., :2], z.clamp(min=NEAREST)[..., None]), -1)
    u, v = project(in_front, batch.intrinsics).round().long().unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > NEAREST) & valid
    u, v = u.clamp(0, width - 1), v.clamp(0, height - 1)
    there = batch.points[:, 0, ..., 2].flatten(1).gather(1, v * width + u)
    same = inside & ((there - z).abs() < AGREEMENT * z)
    return torch.where(same, v // patch * (width // patch) + u // patch, NOTHING)


def on_state_grid(
    target: Int[Tensor, "batch patches"], size: tuple[int, int], config: Cut3rConfig
) -> Int[Tensor, "batch patches"] | None:
    """The state tokens at the places of patches; None if the state's grid is too small for them."""
    rows, columns = (side // config.patch_size for side in size)
    places = state_positions(config.state_size, config.state_positions, config.state_width)
    width = int(places[:, 1].max()) + 1
    if columns > width or rows * width > len(places):
        return None
    return torch.where(target < 0, target, target // columns * width + target % columns)


def cross_entropy(
    logits: Float[Tensor, "*rows keys"], target: Int[Tensor, "*rows"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the rows that have a target; 0 if none has."""
    total = F.cross_entropy(
        logits.flatten(0, -2).float(), target.flatten(), ignore_index=NOTHING, reduction="sum"
    )
    return total / (target != NOTHING).sum().clamp(min=1)


class MatchingProbe:
    """Collects how well cross-attention finds the matches.

    Args:
        target: for each query but the first (the pose token), the key that shows the same.
        layers: numbers of the layers that are told, counted from 0.
    """

    def __init__(self, target: Int[Tensor, "batch patches"], layers: Collection[int]) -> None:
        self.target, self.layers = target, layers
        self.losses: list[Tensor] = []
        self.layer = 0

    def __call__(
        self,
        query: Float[Tensor, "batch heads queries dim"],
        key: Float[Tensor, "batch heads keys dim"],
    ) -> None:
        """Add a layer's loss, over the first half of its heads."""
        self.layer += 1
        if self.layer - 1 not in self.layers:
            return
        heads = max(1, query.shape[1] // 2)
        logits = (query[:, :heads, 1:] @ key[:, :heads].mT) * query.shape[-1] ** -0.5
        self.losses.append(cross_entropy(logits, self.target[:, None].expand(logits.shape[:3])))

    def loss(self) -> Float[Tensor, ""]:
        """Mean cross-entropy over the layers; 0 if no layer was told."""
        if not self.losses:
            return self.target.new_zeros((), dtype=torch.float32)
        return torch.stack(self.losses).mean()


def descriptor_loss(
    tokens: Float[Tensor, "batch frames patches channels"],
    targets: Int[Tensor, "batch later patches"],
) -> Float[Tensor, ""]:
    """How badly tokens of the later frames find their match in the first frame (InfoNCE).

    Args:
        tokens: of all frames; their directions are compared.
        targets: `matches` of each frame but the first.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    logits = SHARPNESS * unit[:, 1:] @ unit[:, :1].mT
    parts = [cross_entropy(logits[:, i], targets[:, i]) for i in range(targets.shape[1])]
    return torch.stack(parts).mean()
