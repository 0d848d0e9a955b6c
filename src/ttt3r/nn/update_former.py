"""Transformer that lets tracks talk across frames and, through virtual tracks, to each other.

VGGT (arXiv 2503.11651) tracks points with the architecture of CoTracker2 (arXiv 2307.07635): its
attention over frames looks at one track at a time, and its attention over tracks passes through a
small set of learned virtual tracks, so that the cost is linear in the number of tracks.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.errors import SettingError
from ttt3r.nn.attention import attend, split_heads
from ttt3r.nn.layers import Linear, Mlp


class PackedAttention(nn.Module):
    """Attention whose query, key and value projections are one matrix, in this order."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries channels"],
        context: Float[Tensor, "batch keys channels"],
    ) -> Float[Tensor, "batch queries channels"]:
        """Read `context` from `x`."""
        dim = x.shape[-1]
        query = F.linear(x, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
        both = F.linear(context, self.in_proj_weight[dim:], self.in_proj_bias[dim:])
        query, key, value = (split_heads(part, self.heads) for part in (query, *both.chunk(2, -1)))
        return self.out_proj(attend(query, key, value))


class SelfBlock(nn.Module):
    """Self-attention, then MLP; the first residual starts from the normalised tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PackedAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(
        self, x: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine the tokens."""
        x = self.norm1(x)
        x = x + self.attn(x, x)
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Cross-attention, then MLP; the first residual starts from the normalised tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.cross_attn = PackedAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        context: Float[Tensor, "batch others channels"],
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine `x` while reading `context`."""
        x = self.norm1(x)
        x = x + self.cross_attn(x, self.norm_context(context))
        return x + self.mlp(self.norm2(x))


class UpdateFormer(nn.Module):
    """From what is known of every track in every frame to how each estimate must change.

    Args:
        inputs: channels that describe a track in one frame.
        outputs: channels of its update.
        dim: channels of a token.
        heads: of every attention.
        rounds: times that tracks exchange over frames and then over tracks.
        virtual_tracks: learned tracks through which the others exchange.

    Raises:
        SettingError: if `dim` is not a multiple of `heads`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, dim: int, heads: int, rounds: int, virtual_tracks: int
    ) -> None:
        super().__init__()
        if dim % heads:
            raise SettingError(f"{dim} channels cannot be split into {heads} heads")
        self.input_norm = nn.LayerNorm(inputs)
        self.input_transform = Linear(inputs, dim)
        self.virual_tracks = nn.Parameter(torch.zeros(1, virtual_tracks, 1, dim))  # as published
        self.time_blocks = nn.ModuleList(SelfBlock(dim, heads) for _ in range(rounds))
        self.space_virtual2point_blocks = nn.ModuleList(
            CrossBlock(dim, heads) for _ in range(rounds)
        )
        self.space_virtual_blocks = nn.ModuleList(SelfBlock(dim, heads) for _ in range(rounds))
        self.space_point2virtual_blocks = nn.ModuleList(
            CrossBlock(dim, heads) for _ in range(rounds)
        )
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = Linear(dim, outputs)

    def forward(
        self, x: Float[Tensor, "batch tracks frames inputs"]
    ) -> Float[Tensor, "batch tracks frames outputs"]:
        """Return the update of every track in every frame."""
        batch, count, frames, _ = x.shape
        own = self.input_transform(self.input_norm(x))
        tokens = torch.cat((own, self.virual_tracks.expand(batch, -1, frames, -1)), dim=1)
        for over_time, gather, exchange, scatter in zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        ):
            tokens = over_time(tokens.flatten(0, 1)).unflatten(0, (batch, -1))
            by_frame = tokens.transpose(1, 2).flatten(0, 1)
            points, virtual = by_frame[:, :count], by_frame[:, count:]
            virtual = exchange(gather(virtual, points))
            points = scatter(points, virtual)
            by_frame = torch.cat((points, virtual), dim=1).unflatten(0, (batch, frames))
            tokens = by_frame.transpose(1, 2)
        return self.flow_head(self.output_norm(tokens[:, :count] + own))
