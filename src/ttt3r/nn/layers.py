"""Linear and normalisation layers under one precision policy.

The residual stream, normalisation and everything read out of the network are float32. Only matrix
products run in the dtype in which a layer's weights are stored, so lowering the precision of a
network means casting the weights of its `Linear` layers; no autocast context is involved.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """Affine map computed in the dtype of its own weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32 with the epsilon of the published networks."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.layer_norm(input.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class Mlp(nn.Module):
    """Linear, GELU (exact form), Linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., dim] to [..., out]."""
        return self.fc2(F.gelu(self.fc1(x)))


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each one to a token."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, channels, H, W] to [b, (H / patch) * (W / patch), dim], row by row."""
        return self.proj(x.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2).float()
