"""Teaches attention to match: which patch of one frame shows what a patch of the other shows.

From poses and pointmaps alone, small networks spend most of a training on a plateau where they
claim that the camera never moves. Telling half of the heads of the cross-attention where to look
helps them off it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.geometry.camera import project
from ttt3r.geometry.se3 import apply, invert
from ttt3r.training.data import Batch

AGREEMENT = 0.05  # relative difference of depth within which two pixels show the same surface
NOTHING = -100


def matches(
    batch: Batch, patch: int, frame: int = 1, columns: int | None = None
) -> Int[Tensor, "batch patches"]:
    """For each patch of a frame, the patch of frame 0 that shows its centre, or `NOTHING`.

    Args:
        batch: clips.
        patch: side of a patch in pixels.
        frame: which frame's patches.
        columns: width of the grid in which patches of frame 0 are counted row by row; None for
            their own. The state's grid is as wide or wider, so that its tokens can stand for them.
    """
    height, width = batch.image.shape[-2:]
    middle = slice(patch // 2, None, patch)
    points = batch.points[:, frame, middle, middle].flatten(1, 2)
    valid = batch.valid[:, frame, middle, middle].flatten(1)
    first_from_second = invert(batch.world_from_camera[:, 0]) @ batch.world_from_camera[:, frame]
    seen = apply(first_from_second, points)
    z = seen[..., 2]
    u, v = project(seen, batch.intrinsics[:, 0]).round().long().unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0) & valid
    u, v = u.clamp(0, width - 1), v.clamp(0, height - 1)
    rows = torch.arange(len(u), device=u.device)[:, None]
    there = batch.points[:, 0][rows, v, u][..., 2]
    same = inside & ((there - z).abs() < AGREEMENT * z)
    index = v // patch * (columns or width // patch) + u // patch
    return torch.where(same, index, NOTHING)


class MatchingProbe:
    """Collects how well cross-attention finds the matches, over all layers.

    Args:
        target: for each query but the first (the pose token), the key that shows the same.
    """

    def __init__(self, target: Int[Tensor, "batch patches"]) -> None:
        self.target = target
        self.losses: list[Tensor] = []

    def __call__(
        self,
        query: Float[Tensor, "batch heads queries dim"],
        key: Float[Tensor, "batch heads keys dim"],
    ) -> None:
        """Add a layer's loss, over the first half of its heads."""
        heads = (query.shape[1] + 1) // 2
        logits = query[:, :heads, 1:] @ key[:, :heads].mT * query.shape[-1] ** -0.5
        target = self.target[:, None].expand(logits.shape[:3]).flatten()
        if bool((target != NOTHING).any()):
            self.losses.append(F.cross_entropy(logits.flatten(0, 2).float(), target))

    def loss(self) -> Tensor:
        """Mean cross-entropy over layers; 0 if nothing matches."""
        return torch.stack(self.losses).mean() if self.losses else torch.zeros(())
