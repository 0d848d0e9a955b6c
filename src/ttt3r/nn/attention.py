"""Multi-head attention on fused kernels, with a probe for statistics of the logits."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r.nn import backend
from ttt3r.nn.layers import LayerNorm, Linear, at_least_float32
from ttt3r.nn.rope import Positions

Probe = Callable[
    [Float[Tensor, "batch heads queries dim"], Float[Tensor, "batch heads keys dim"]], None
]


class Projected(NamedTuple):
    """Queries, keys and values; queries and keys are normalised and rotated."""

    query: Float[Tensor, "batch heads tokens dim"]
    key: Float[Tensor, "batch heads tokens dim"]
    value: Float[Tensor, "batch heads tokens dim"]


# How queries, keys and values become mixed values.
Mix = Callable[[Projected], Float[Tensor, "batch tokens channels"]]


def split_heads(
    x: Float[Tensor, "batch tokens channels"], heads: int
) -> Float[Tensor, "batch heads tokens dim"]:
    """View channels as heads of contiguous channels."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads keys dim"],
    value: Float[Tensor, "batch heads keys dim"],
    allowed: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch queries channels"]:
    """Softmax attention in the dtype of `value`, heads merged.

    The fused kernel never forms the attention map; `backend.attention_by_map` says where it is not
    used.

    Args:
        query: queries.
        key: keys.
        value: values.
        allowed: keys that are read, at least one of each sample; None reads all, which is faster.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    if allowed is not None:
        mixed = F.scaled_dot_product_attention(query, key, value, allowed[:, None, None])
    elif backend.attention_by_map(value):
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
    """Self-attention; the caller may decide what is attended to, so that keys can be kept.

    Channels of `qkv` are ordered query, key, value.

    Args:
        dim: channels.
        heads: attention heads.
        qk_norm: normalise each head of queries and keys, before they are rotated.
        eps: of that normalisation.
        gain: factor on the logits, beside 1 / √(channels of a head).
    """

    def __init__(
        self, dim: int, heads: int, *, qk_norm: bool = False, eps: float = 1e-6, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.gain = heads, gain
        self.qkv = Linear(dim, 3 * dim)
        self.q_norm = LayerNorm(dim // heads, eps=eps) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(dim // heads, eps=eps) if qk_norm else nn.Identity()
        self.proj = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        positions: Positions | None = None,
        mix: Mix | None = None,
    ) -> Float[Tensor, "batch tokens channels"]:
        """Mix tokens.

        Args:
            x: the tokens.
            positions: where they are; without it the order of tokens does not matter.
            mix: turns queries, keys and values, all in the dtype of the values, into mixed values;
                None lets every token read all tokens that are present.
        """
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        query, key = self.q_norm(query), self.k_norm(key)
        if positions is not None:
            query, key = positions.turn(query), positions.turn(key)
        if self.gain != 1.0:
            query = query * self.gain
        if mix is not None:
            return self.proj(mix(Projected(query.to(value.dtype), key.to(value.dtype), value)))
        present = None if positions is None else positions.present
        return self.proj(attend(query, key, value, present))


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
        x_positions: Positions | None,
        y_positions: Positions | None,
        probe: Probe | None = None,
        first_reads: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Read what is present of `y` from `x`.

        Args:
            x: where queries come from.
            y: where keys and values come from.
            x_positions: where the tokens of `x` are; None for no position embedding.
            y_positions: where the tokens of `y` are; None for no position embedding.
            probe: called with the rotated queries and keys.
            first_reads: keys that the first query is confined to, at least one of each sample; None
                lets it read what the others read.
        """
        if y.shape[1] == 1 and probe is None:  # softmax over one key is 1: every query reads it
            return self.proj(self.projv(y)).expand(-1, x.shape[1], -1)
        query = split_heads(self.projq(x), self.heads)
        key = split_heads(self.projk(y), self.heads)
        value = split_heads(self.projv(y), self.heads)
        if x_positions is not None and y_positions is not None:
            query, key = x_positions.turn(query), y_positions.turn(key)
        if probe is not None:
            probe(query, key)
        present = None if y_positions is None else y_positions.present
        mixed = attend(query, key, value, present)
        if first_reads is not None:  # one query more, and the others keep the faster kernel
            allowed = first_reads if present is None else first_reads & present
            first = attend(query[:, :, :1], key, value, allowed)
            mixed = torch.cat((first, mixed[:, 1:]), dim=1)
        return self.proj(mixed)
