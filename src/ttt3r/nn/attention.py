"""Multi-head attention on fused kernels, with a probe for statistics of the logits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.layers import Linear, at_least_float32
from ttt3r.nn.rope import Rotary, rotate, rotate_half_precision

Probe = Callable[
    [Float[Tensor, "batch heads queries dim"], Float[Tensor, "batch heads keys dim"]], None
]


def split_heads(
    x: Float[Tensor, "batch tokens channels"], heads: int
) -> Float[Tensor, "batch heads tokens dim"]:
    """View channels as heads of contiguous channels."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads keys dim"],
    value: Float[Tensor, "batch heads keys dim"],
) -> Float[Tensor, "batch queries channels"]:
    """Softmax attention in the dtype of `value`, heads merged.

    The fused kernel never forms the attention map. Its backward pass on CPUs is slow for the few
    tokens of small networks, so training there forms the map.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    if value.device.type == "cpu" and torch.is_grad_enabled() and value.requires_grad:
        mixed = attend_with_map(query, key, value)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


def attend_with_map(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads keys dim"],
    value: Float[Tensor, "batch heads keys dim"],
) -> Float[Tensor, "batch heads queries dim"]:
    """Softmax attention by two products; the softmax itself is float32 or float64."""
    logits = query @ key.mT * query.shape[-1] ** -0.5
    return at_least_float32(logits).softmax(dim=-1).to(value.dtype) @ value


class SelfAttention(nn.Module):
    """Self-attention; channels of `qkv` are ordered query, key, value."""

    def __init__(self, dim: int, heads: int, *, half_rope: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rotate = rotate_half_precision if half_rope else rotate

    def forward(
        self, x: Float[Tensor, "batch tokens channels"], positions: Rotary | None
    ) -> Float[Tensor, "batch tokens channels"]:
        """Mix tokens; without `positions` the order of tokens does not matter."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        if positions is not None:
            query, key = self.rotate(query, positions), self.rotate(key, positions)
        return self.proj(attend(query, key, value))


class CrossAttention(nn.Module):
    """Attention from one token set to another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(dim, dim)
        self.projk = Linear(dim, dim)
        self.projv = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries channels"],
        y: Float[Tensor, "batch keys channels"],
        x_positions: Rotary | None,
        y_positions: Rotary | None,
        probe: Probe | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Read `y` from `x`.

        Args:
            x: where queries come from.
            y: where keys and values come from.
            x_positions: rotation of the queries; None for no position embedding.
            y_positions: rotation of the keys; None for no position embedding.
            probe: called with the rotated queries and keys.
        """
        if y.shape[1] == 1 and probe is None:  # softmax over one key is 1: every query reads it
            return self.proj(self.projv(y)).expand(-1, x.shape[1], -1)
        query = split_heads(self.projq(x), self.heads)
        key = split_heads(self.projk(y), self.heads)
        value = split_heads(self.projv(y), self.heads)
        if x_positions is not None and y_positions is not None:
            query, key = rotate(query, x_positions), rotate(key, y_positions)
        if probe is not None:
            probe(query, key)
        return self.proj(attend(query, key, value))
