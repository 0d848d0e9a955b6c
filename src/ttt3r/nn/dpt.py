"""Dense prediction transformer head (DPT, arXiv 2103.13413) without normalisation layers."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.layers import Conv2d


def upsample2(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Double the resolution; corners keep their values."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class ResidualConvUnit(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine the map."""
        inner = self.conv1(F.relu(x)).relu_()  # fresh maps are changed in place: they are large
        return self.conv2(inner).add_(x)


class Fusion(nn.Module):
    """Merge a coarse map with a skip map and double the resolution.

    The published network upsamples and then applies the 1×1 convolution. Both are linear and the
    interpolation weights sum to one, so they commute; applying the convolution first costs a
    quarter.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_conv = Conv2d(channels, channels, 1)
        self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c h2 w2"]:
        """Fuse and upsample."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        return upsample2(self.out_conv(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """Projections of the four levels to one width, and their fusions, under the published names.

    Each level's projection has two names in the published state dicts; both lead to one tensor.
    """

    def __init__(self, layers: Sequence[int], channels: int) -> None:
        super().__init__()
        self.layer_rn = nn.ModuleList(
            Conv2d(width, channels, 3, padding=1, bias=False) for width in layers
        )
        for level, projection in enumerate(self.layer_rn, start=1):
            self.add_module(f"layer{level}_rn", projection)
        # The coarsest level has no skip input: refinenet4.resConfUnit1 exists, but is never used.
        self.refinenet1 = Fusion(channels)
        self.refinenet2 = Fusion(channels)
        self.refinenet3 = Fusion(channels)
        self.refinenet4 = Fusion(channels)


class Dpt(nn.Module):
    """Four token maps in, one dense map of 16 × the grid out.

    Args:
        dims: channels of the four token sets, finest first.
        layers: channels of the four levels.
        feature: channels after projection.
        last: channels before the output.
        out: output channels.
    """

    def __init__(
        self,
        dims: Sequence[int],
        layers: Sequence[int],
        feature: int,
        last: int,
        out: int,
    ) -> None:
        super().__init__()
        project = [Conv2d(dim, width, 1) for dim, width in zip(dims, layers, strict=True)]
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(project[0], nn.ConvTranspose2d(layers[0], layers[0], 4, stride=4)),
                nn.Sequential(project[1], nn.ConvTranspose2d(layers[1], layers[1], 2, stride=2)),
                nn.Sequential(project[2]),
                nn.Sequential(project[3], Conv2d(layers[3], layers[3], 3, stride=2, padding=1)),
            ]
        )
        self.scratch = Scratch(layers, feature)
        self.head = nn.Sequential(
            Conv2d(feature, last, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            Conv2d(last, last, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(last, out, 1),
        )

    def forward(
        self, tokens: Sequence[Float[Tensor, "b patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "b out height width"]:
        """Return the raw map.

        Args:
            tokens: four sets of patch tokens, from the encoder to the last decoder layer.
            grid: (rows, columns) of patches.
        """
        maps = [x.transpose(1, 2).unflatten(2, grid) for x in tokens]
        levels = [
            project(post(x))
            for project, post, x in zip(
                self.scratch.layer_rn, self.act_postprocess, maps, strict=True
            )
        ]
        rows, columns = grid
        # An odd grid halves to a level that doubles to one row or column too many.
        x = self.scratch.refinenet4(levels[3])[:, :, :rows, :columns]
        x = self.scratch.refinenet3(x, levels[2])
        x = self.scratch.refinenet2(x, levels[1])
        x = self.scratch.refinenet1(x, levels[0])
        return self.head(x)
