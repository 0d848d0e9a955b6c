"""Linear and normalisation layers under one precision policy.

The residual stream, normalisation and everything read out of the network are float32, or float64 in
a network that was cast to it. Only matrix products run in the dtype in which a layer's weights are
stored, so lowering the precision of a network means casting the weights of its `Linear` layers; no
autocast context is involved.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn import backend


def at_least_float32(x: Tensor) -> Tensor:
    """Bring what a product made in low precision back to the residual stream; keeps float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Linear(nn.Linear):
    """Affine map computed in the dtype of its own weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        input = input.to(self.weight.dtype)
        if backend.product_by_convolution(input):
            return linear_by_convolution(input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)


def linear_by_convolution(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Affine map as a 1x1 convolution over a column of pixels; no data is moved for it."""
    pixels = input.reshape(1, -1, 1, input.shape[-1]).permute(0, 3, 1, 2)
    kernel = weight[:, None, None].permute(0, 3, 1, 2)
    return F.conv2d(pixels, kernel, bias).permute(0, 2, 3, 1).reshape(*input.shape[:-1], -1)


class Conv2d(nn.Conv2d):
    """Convolution in the memory layout that is fastest on its device."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [b, in, h, w] to [b, out, h', w']."""
        weight = self.weight
        if backend.channels_together(input):  # at each call: weights are small beside the maps
            weight = weight.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


def cast_products(parts: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Store the weights of all products in these parts in `dtype`, in which they then run."""
    for part in parts:
        for layer in part.modules():
            if isinstance(layer, Linear | nn.Conv2d):
                layer.to(dtype)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in its weights' dtype; the default epsilon is CroCo's and DINOv2's."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axis."""
        input = input.to(self.weight.dtype)
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class Mlp(nn.Module):
    """Linear, GELU (exact form), Linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., dim] to [..., out]."""
        return self.fc2(F.gelu(self.fc1(x)))


class ConvBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))): refines a map without changing its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine the map."""
        return x + self.conv2(F.gelu(self.conv1(F.gelu(x))))


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each one to a token.

    Args:
        channels: of the image.
        dim: of a token.
        patch: side of a patch in pixels.
        stem: channels of 3x3 convolutions that each halve the image before it is cut; a stem lets
            small networks see across the edges of patches, and learn faster.
        blocks: `ConvBlock`s after each convolution of the stem but the first.
    """

    def __init__(
        self, channels: int, dim: int, patch: int, stem: Sequence[int] = (), blocks: int = 0
    ) -> None:
        super().__init__()
        for index, width in enumerate(stem):
            convolution = Conv2d(channels, width, kernel_size=3, stride=2, padding=1)
            self.add_module(f"stem{index}", convolution)
            if index and blocks:
                self.add_module(f"res{index}", nn.Sequential(*map(ConvBlock, [width] * blocks)))
            channels, patch = width, patch // 2
        self.halvings, self.blocks = len(stem), blocks
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    @backend.exact_float32()
    def forward(self, x: Tensor) -> Tensor:
        """Map [b, channels, H, W] to [b, (H / patch) * (W / patch), dim], row by row."""
        x = x.to(self.proj.weight.dtype)
        for index in range(self.halvings):
            x = self.get_submodule(f"stem{index}")(x)
            if index and self.blocks:
                x = self.get_submodule(f"res{index}")(x)
            x = F.gelu(x)
        return at_least_float32(self.proj(x).flatten(2).transpose(1, 2))
