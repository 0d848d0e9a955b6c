"""Transformer blocks whose tokens have places in space, and may be absent.

They hold the parameters of `blocks.DecoderBlock` under the same names. Streams of a batch may hold
different numbers of tokens: a token that is absent is read by none.
"""

from jaxtyping import Float
from torch import Tensor

from ttt3r.nn.attention import CrossAttention, SelfAttention, split_heads
from ttt3r.nn.blocks import DecoderBlock
from ttt3r.nn.rope3d import Placement, turn
from ttt3r.nn.scaled import attend_where


def attend_in_space(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads keys dim"],
    value: Float[Tensor, "batch heads keys dim"],
    query_at: Placement,
    key_at: Placement,
) -> Float[Tensor, "batch queries channels"]:
    """Softmax attention over the keys that are present, in the dtype of `value`, heads merged.

    Each stream must hold at least one key that is present.
    """
    query, key = turn(query, query_at).to(value.dtype), turn(key, key_at).to(value.dtype)
    return attend_where(query, key, value, key_at.present)


class SpatialSelfAttention(SelfAttention):
    """Self-attention of tokens with places; channels of `qkv` are ordered query, key, value."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "batch tokens channels"], at: Placement
    ) -> Float[Tensor, "batch tokens channels"]:
        """Mix the tokens that are present."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return self.proj(attend_in_space(query, key, value, at, at))


class SpatialCrossAttention(CrossAttention):
    """Attention from one token set to another, both with places."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "batch queries channels"],
        y: Float[Tensor, "batch keys channels"],
        x_at: Placement,
        y_at: Placement,
    ) -> Float[Tensor, "batch queries channels"]:
        """Read from `x` what is present of `y`."""
        query = split_heads(self.projq(x), self.heads)
        key = split_heads(self.projk(y), self.heads)
        value = split_heads(self.projv(y), self.heads)
        return self.proj(attend_in_space(query, key, value, x_at, y_at))


class SpatialDecoderBlock(DecoderBlock):
    """Pre-norm block: self-attention, cross-attention to another stream, then MLP."""

    self_attention = SpatialSelfAttention
    cross_attention = SpatialCrossAttention

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Float[Tensor, "batch queries channels"],
        y: Float[Tensor, "batch keys channels"],
        x_at: Placement,
        y_at: Placement,
    ) -> Float[Tensor, "batch queries channels"]:
        """Refine `x` while reading `y`; what absent tokens of `x` become means nothing."""
        x = x + self.attn(self.norm1(x), x_at)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), x_at, y_at)
        return x + self.mlp(self.norm3(x))
