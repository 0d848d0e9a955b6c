"""The trunk of VGGT: frames look at themselves and at each other in turn (arXiv 2503.11651)."""

from collections.abc import Callable, Collection
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r.models.vggt.config import VggtConfig
from ttt3r.nn.attention import Projected, attend
from ttt3r.nn.blocks import Block
from ttt3r.nn.dinov2 import Dinov2
from ttt3r.nn.rope import Rotary, grid_rotary
from ttt3r.nn.tables import constants

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

# How tokens of different frames mix: (number of the block, projected tokens) to mixed tokens.
FrameMix = Callable[[int, Projected], Float[Tensor, "batch tokens channels"]]


def mix_all(block: int, projected: Projected) -> Float[Tensor, "batch tokens channels"]:
    """Let every token read all frames."""
    return attend(*projected)


def mix_causally(frames: int) -> FrameMix:
    """Let the tokens of each frame read that frame and those before it.

    One product per frame needs no mask, and half the work of a masked product over all frames.
    """

    def mix(block: int, projected: Projected) -> Float[Tensor, "batch tokens channels"]:
        query, key, value = projected
        length = query.shape[2] // frames
        return torch.cat(
            [
                attend(query[:, :, end - length : end], key[:, :, :end], value[:, :, :end])
                for end in range(length, frames * length + 1, length)
            ],
            dim=1,
        )

    return mix


class Aggregator(nn.Module):
    """Image encoder and alternating blocks; attributes carry the published names."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patch_embed = Dinov2(
            c.dim,
            c.encoder_depth,
            c.encoder_heads,
            c.patch_size,
            c.image_size // c.patch_size,
            c.registers,
            c.mlp_ratio,
        )
        # Index 0 is for the first frame, whose camera is the world; index 1 for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, c.dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, c.registers, c.dim))
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                Block(c.dim, c.heads, c.mlp_ratio, eps=1e-5, qk_norm=True, scaled=True)
                for _ in range(c.depth)
            )
            for _ in range(2)
        )

    @property
    def special(self) -> int:
        """Number of tokens of a frame before its patches: its camera's, then its registers."""
        return 1 + self.config.registers

    def encode(
        self, images: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images patches channels"]:
        """Return the patch tokens of single images, RGB in [-1, 1]."""
        like = self.camera_token
        mean, deviation = (
            constants(values, like.dtype, like.device)[:, None, None]
            for values in (MEAN, DEVIATION)
        )
        return self.patch_embed(((images.to(like.dtype) + 1) / 2 - mean) / deviation)

    def assemble(
        self,
        patches: Float[Tensor, "batch frames patches channels"],
        is_first: Bool[Tensor, "batch frames"],
    ) -> Float[Tensor, "batch frames tokens channels"]:
        """Put camera and register tokens before each frame's patches.

        Args:
            patches: patch tokens.
            is_first: frames whose camera is the world.
        """
        special = torch.cat((self.camera_token, self.register_token), dim=2)[0]
        chosen = torch.where(is_first[..., None, None], special[0], special[1])
        return torch.cat((chosen, patches), dim=2)

    def forward(
        self,
        x: Float[Tensor, "batch frames tokens channels"],
        grid: tuple[int, int],
        keep: Collection[int],
        mix: FrameMix = mix_all,
    ) -> dict[int, Float[Tensor, "batch frames tokens wide"]]:
        """Run the alternating blocks.

        Args:
            x: what `assemble` returns.
            grid: (rows, columns) of patches.
            keep: pairs of blocks whose outputs are returned.
            mix: how tokens of different frames mix.

        Returns:
            For each pair of `keep`, what the block inside frames and the block across frames made
            of the tokens, side by side.
        """
        batch, frames = x.shape[:2]
        inside = self.positions(grid)
        across = inside.repeat(frames)
        kept = {}
        for pair, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            own = frame_block(x.flatten(0, 1), inside).unflatten(0, (batch, frames))
            x = global_block(own.flatten(1, 2), across, partial(mix, pair))
            x = x.unflatten(1, (frames, -1))
            if pair in keep:
                kept[pair] = torch.cat((own, x), dim=-1)
        return kept

    def positions(self, grid: tuple[int, int]) -> Rotary:
        """Rotations of one frame's tokens: patches count from (1, 1), the others are at (0, 0)."""
        config, like = self.config, self.camera_token
        head_dim = config.dim // config.heads
        return grid_rotary(
            *(grid, head_dim, config.rope_base, like.dtype, like.device),
            start=1,
            before=self.special,
        )
