"""Transformer blocks, and the small heads of the CroCo lineage."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ttt3r.nn.attention import CrossAttention, Mix, Probe, SelfAttention
from ttt3r.nn.layers import LayerNorm, Linear, Mlp
from ttt3r.nn.rope import Positions
from ttt3r.nn.tables import table

# The hidden layer of an MLP is by far the widest thing in a block, so that a long sequence passes
# it in pieces: 256 MiB each at 4096 channels in float32.
MLP_TOKENS = 16384


class LayerScale(nn.Module):
    """A learned factor per channel (arXiv 2103.17239, equation 5)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last axis."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm block: self-attention, then MLP; for sequences of any length.

    The residual stream has the dtype of the normalisation weights, float32 or float64; only matrix
    products run in the dtype of a `Linear` layer's own weights.

    Args:
        dim: channels of a token.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over `dim`.
        eps: of every normalisation.
        qk_norm: see `SelfAttention`.
        scaled: scale both branches by learned factors, as in DINOv2 (arXiv 2304.07193) and VGGT.
        gain: see `SelfAttention`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: int,
        *,
        eps: float = 1e-6,
        qk_norm: bool = False,
        scaled: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads, qk_norm=qk_norm, eps=eps, gain=gain)
        self.ls1 = LayerScale(dim) if scaled else nn.Identity()
        self.norm2 = LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.ls2 = LayerScale(dim) if scaled else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        positions: Positions | None = None,
        mix: Mix | None = None,
    ) -> Float[Tensor, "batch tokens channels"]:
        """Refine the tokens; for `positions` and `mix` see `SelfAttention`."""
        x = x + self.ls1(self.attn(self.norm1(x), positions, mix))
        parts = [part + self.ls2(self.mlp(self.norm2(part))) for part in x.split(MLP_TOKENS, dim=1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class DecoderBlock(nn.Module):
    """Pre-norm block: self-attention, cross-attention to another stream, then MLP.

    Streams of a batch may hold different numbers of tokens: a token that is absent by its positions
    is read by none, and what becomes of it means nothing.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.norm_y = LayerNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(
        self,
        x: Float[Tensor, "batch queries channels"],
        y: Float[Tensor, "batch keys channels"],
        x_positions: Positions | None = None,
        y_positions: Positions | None = None,
        probe: Probe | None = None,
        first_reads: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch queries channels"]:
        """Refine `x` while reading `y`; for the other arguments see `CrossAttention`."""
        x = x + self.attn(self.norm1(x), x_positions)
        positions = x_positions, y_positions
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), *positions, probe, first_reads)
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
        positions: Positions,
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


@table
def _gaussian(
    sigma: int, radius: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, " steps"]:
    """Weights of a Gaussian of deviation `sigma` from -`radius` to `radius`; their sum is 1."""
    steps = torch.arange(-radius, radius + 1, device=device, dtype=dtype)
    weights = torch.exp(-steps.square() / (2 * sigma**2))
    return weights / weights.sum()


def smoothed(map: Float[Tensor, "batch channels height width"], sigma: int) -> Tensor:
    """Convolve a map with a Gaussian, cut off at three sigma; the border is repeated outwards.

    Args:
        map: of any size.
        sigma: standard deviation in whole pixels; 0 changes nothing.
    """
    if sigma == 0:
        return map
    radius = 3 * sigma
    weights = _gaussian(sigma, radius, map.dtype, map.device).expand(map.shape[1], 1, 1, -1)
    padded = F.pad(map, (radius,) * 4, mode="replicate")
    along_rows = F.conv2d(padded, weights, groups=map.shape[1])
    return F.conv2d(along_rows, weights.mT, groups=map.shape[1])
