"""Transformer blocks of the CroCo lineage."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.attention import CrossAttention, Probe, SelfAttention
from ttt3r.nn.layers import LayerNorm, Linear, Mlp
from ttt3r.nn.rope import Rotary


class EncoderBlock(nn.Module):
    """Pre-norm block: self-attention, then MLP."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, *, half_rope: bool = False) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = SelfAttention(dim, heads, half_rope=half_rope)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(
        self, x: Float[Tensor, "batch tokens channels"], positions: Rotary | None
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine the tokens."""
        x = x + self.attn(self.norm1(x), positions)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Pre-norm block: self-attention, cross-attention to another stream, then MLP."""

    self_attention: type[SelfAttention] = SelfAttention
    cross_attention: type[CrossAttention] = CrossAttention

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = self.self_attention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.norm_y = LayerNorm(dim)
        self.cross_attn = self.cross_attention(dim, heads)
        self.norm3 = LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries channels"],
        y: Float[Tensor, "batch keys channels"],
        x_positions: Rotary | None = None,
        y_positions: Rotary | None = None,
        probe: Probe | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Refine `x` while reading `y`; `probe` sees the cross-attention's queries and keys."""
        x = x + self.attn(self.norm1(x), x_positions)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), x_positions, y_positions, probe)
        return x + self.mlp(self.norm3(x))


class ModulatedNorm(nn.Module):
    """Layer normalisation whose shift and scale depend on a conditioning token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.mlp = nn.Sequential(nn.SiLU(), Linear(dim, 2 * dim))

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        condition: Float[Tensor, "batch channels"],
    ) -> Float[Tensor, "batch tokens channels"]:
        """Normalise `x`, then apply x · (1 + scale) + shift; shift is the first half."""
        shift, scale = self.mlp(condition)[:, None].chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """Encoder block conditioned on one token, used to move tokens into the world's frame."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = ModulatedNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = ModulatedNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        condition: Float[Tensor, "batch channels"],
        positions: Rotary,
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine the tokens under `condition`."""
        x = x + self.attn(self.norm1(x, condition), positions)
        return x + self.mlp(self.norm2(x, condition))


class PoseHead(nn.Module):
    """MLP from the pose token to raw translation and quaternion."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = Mlp(dim, 4 * dim, 7)

    def forward(self, token: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch 7"]:
        """Return the raw pose, before its activation."""
        return self.mlp(token)


class LinearHead(Mlp):
    """MLP from each token to the pixels of its patch."""

    def __init__(self, dim: int, channels: int, patch: int) -> None:
        super().__init__(dim, 4 * dim, channels * patch * patch)
        self.patch = patch

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, tokens: Float[Tensor, "batch patches channels"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch out height width"]:
        """Return a raw map of grid · patch pixels."""
        pixels = super().forward(tokens).transpose(1, 2).unflatten(2, grid)
        return F.pixel_shuffle(pixels, self.patch)
