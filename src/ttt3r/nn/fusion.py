"""The transformer block of networks that join the tokens of many views into one long sequence."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.attention import attend
from ttt3r.nn.layers import Mlp
from ttt3r.nn.rope import Rotary
from ttt3r.nn.scaled import Norm, NormedAttention, Projected

# The hidden layer of an MLP is by far the widest thing in a block, so that a long sequence passes
# it in pieces: 256 MiB each at 4096 channels in float32.
MLP_TOKENS = 16384


class FusionBlock(nn.Module):
    """Pre-norm block: self-attention, then MLP, for sequences of any length.

    Args:
        dim: channels of a token.
        heads: number of heads.
        mlp_ratio: hidden width of the MLP over its input width.
        eps: of both normalisations.
        gain: factor on the logits of the attention, beside 1 / √(channels of a head).
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: int, *, eps: float, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.gain = gain
        self.norm1 = Norm(dim, eps=eps)
        self.attn = NormedAttention(dim, heads)
        self.norm2 = Norm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(
        self, x: Float[Tensor, "batch tokens channels"], positions: Rotary | None = None
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine the tokens; without `positions` their order does not matter."""
        x = x + self.attn(self.norm1(x), positions, self._mix)
        parts = [part + self.mlp(self.norm2(part)) for part in x.split(MLP_TOKENS, dim=1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _mix(self, projected: Projected) -> Float[Tensor, "batch tokens channels"]:
        query, key, value = projected
        return attend(query * self.gain, key, value)
