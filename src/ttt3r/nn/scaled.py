"""Pre-norm transformer blocks with LayerScale, as in DINOv2 (arXiv 2304.07193) and VGGT.

The residual stream has the dtype of the normalisation weights, float32 or float64; only matrix
products run in the dtype of a `Linear` layer's own weights.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r.nn.attention import attend, split_heads
from ttt3r.nn.layers import Linear, Mlp
from ttt3r.nn.rope import Rotary, rotate


class Norm(nn.LayerNorm):
    """Layer normalisation in the dtype of its own weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axis."""
        input = input.to(self.weight.dtype)
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class LayerScale(nn.Module):
    """A learned factor per channel (arXiv 2103.17239, equation 5)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last axis."""
        return x * self.gamma


class Projected(NamedTuple):
    """Queries, keys and values; queries and keys are normalised and rotated."""

    query: Float[Tensor, "batch heads tokens dim"]
    key: Float[Tensor, "batch heads tokens dim"]
    value: Float[Tensor, "batch heads tokens dim"]


# How queries, keys and values become mixed values.
Mix = Callable[[Projected], Float[Tensor, "batch tokens channels"]]


def mix_own(projected: Projected) -> Float[Tensor, "batch tokens channels"]:
    """Attend from all tokens to all tokens."""
    return attend(*projected)


class NormedAttention(nn.Module):
    """Self-attention that lets the caller decide what is attended to, so that keys can be kept.

    Channels of `qkv` are ordered query, key, value.

    Args:
        dim: channels.
        heads: attention heads.
        qk_norm: normalise each head of queries and keys, before they are rotated.
        eps: of that normalisation.
    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.q_norm = Norm(dim // heads, eps=eps) if qk_norm else nn.Identity()
        self.k_norm = Norm(dim // heads, eps=eps) if qk_norm else nn.Identity()
        self.proj = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        positions: Rotary | None = None,
        mix: Mix = mix_own,
    ) -> Float[Tensor, "batch tokens channels"]:
        """Mix tokens.

        Args:
            x: the tokens.
            positions: rotation of queries and keys; None for no position embedding.
            mix: turns queries, keys and values, all in the dtype of the values, into mixed values.
        """
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        query, key = self.q_norm(query), self.k_norm(key)
        if positions is not None:
            query, key = rotate(query, positions), rotate(key, positions)
        return self.proj(mix(Projected(query.to(value.dtype), key.to(value.dtype), value)))


class ScaledBlock(nn.Module):
    """Pre-norm block whose two branches are scaled: self-attention, then MLP.

    Args:
        dim: channels.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over `dim`.
        qk_norm: see `NormedAttention`.
        eps: of every normalisation.
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: int, *, qk_norm: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = Norm(dim, eps=eps)
        self.attn = NormedAttention(dim, heads, qk_norm=qk_norm, eps=eps)
        self.ls1 = LayerScale(dim)
        self.norm2 = Norm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.ls2 = LayerScale(dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        positions: Rotary | None = None,
        mix: Mix = mix_own,
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine the tokens; for `positions` and `mix` see `NormedAttention`."""
        x = x + self.ls1(self.attn(self.norm1(x), positions, mix))
        return x + self.ls2(self.mlp(self.norm2(x)))


def attend_where(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads keys dim"],
    value: Float[Tensor, "batch heads keys dim"],
    allowed: Bool[Tensor, "batch keys"] | None,
) -> Float[Tensor, "batch queries channels"]:
    """Softmax attention to the keys of `allowed` (None: all of them), heads merged."""
    if allowed is None:
        return attend(query, key, value)
    mask = allowed[:, None, None]
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)
