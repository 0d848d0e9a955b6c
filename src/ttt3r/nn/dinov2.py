"""DINOv2 image encoder with register tokens (arXiv 2304.07193, 2309.16588)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.blocks import Block
from ttt3r.nn.layers import LayerNorm, PatchEmbed


def resample_positions(
    positions: Float[Tensor, "1 old channels"], grid: tuple[int, int]
) -> Float[Tensor, "1 new channels"]:
    """Resample position embeddings, learned on a square grid, to another grid of patches.

    Args:
        positions: one vector for the class token, then those of the square grid, row by row.
        grid: (rows, columns) of patches.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return positions
    square = positions[:, 1:].mT.unflatten(2, (side, side))
    resized = F.interpolate(square, grid, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat((positions[:, :1], resized.flatten(2).mT), dim=1)


class Dinov2(nn.Module):
    """Vision transformer from images to patch tokens; attributes carry the published names.

    Args:
        dim: channels.
        depth: blocks.
        heads: attention heads.
        patch: side of a patch in pixels.
        side: patches along each side of the square that the position embedding was learned on.
        registers: extra tokens without a place in the image.
        mlp_ratio: hidden width of the MLPs over `dim`.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        side: int,
        registers: int = 4,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))  # of DINOv2's own training; never read
        self.patch_embed = PatchEmbed(3, dim, patch)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, scaled=True) for _ in range(depth))
        self.norm = LayerNorm(dim)

    def forward(
        self, images: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images patches channels"]:
        """Return the normalised patch tokens of each image, row by row.

        Args:
            images: RGB with the mean and the deviation that the network was trained with; sides
                are multiples of the patch.
        """
        grid = (images.shape[2] // self.patch, images.shape[3] // self.patch)
        x = self.patch_embed(images)
        extra = len(images), -1, -1
        x = torch.cat((self.cls_token.expand(*extra), x), dim=1)
        x = x + resample_positions(self.pos_embed, grid)
        x = torch.cat((x[:, :1], self.register_tokens.expand(*extra), x[:, 1:]), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 1 + self.register_tokens.shape[1] :])
