"""Dense prediction transformer heads (DPT, arXiv 2103.13413) without normalisation layers.

`Dpt` is the head of the CroCo lineage; `nn.vggt_dpt` has VGGT's, made of the same parts.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.backend import exact_float32
from ttt3r.nn.layers import Conv2d

# Four sets of patch tokens that dense heads read, from the encoder to the last decoder layer.
Levels = Sequence[Float[Tensor, "batch patches _"]]


def resize(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Resize bilinearly to (height, width); corners keep their values."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """s + conv(relu(conv(relu(x)))), where the skip s is x, or relu(x) as in VGGT.

    Args:
        channels: of the map.
        rectified: whether the skip carries the rectified map.
    """

    def __init__(self, channels: int, *, rectified: bool = False) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)
        self.rectified = rectified

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine the map."""
        positive = F.relu(x)
        inner = self.conv1(positive).relu_()  # fresh maps are changed in place: they are large
        return self.conv2(inner).add_(positive if self.rectified else x)


class Fusion(nn.Module):
    """Merge a coarse map with a skip map and resize.

    The published networks resize and then apply the 1×1 convolution. Both are linear and the
    interpolation weights sum to one, so they commute; the convolution is cheaper on the smaller
    map.

    Args:
        channels: of both maps.
        rectified: see `ResidualUnit`.
        skip: whether there are weights for a skip map.
    """

    def __init__(self, channels: int, *, rectified: bool = False, skip: bool = True) -> None:
        super().__init__()
        self.out_conv = Conv2d(channels, channels, 1)
        if skip:
            self.resConfUnit1 = ResidualUnit(channels, rectified=rectified)
        self.resConfUnit2 = ResidualUnit(channels, rectified=rectified)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        size: tuple[int, int],
        skip: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h2 w2"]:
        """Fuse and resize to `size` (height, width)."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        return resize(self.out_conv(self.resConfUnit2(x)), size)


class Scratch(nn.Module):
    """Projections of the four levels to one width, and their fusions, under the published names.

    Args:
        widths: channels of the four levels, finest first.
        channels: after projection.
        rectified: see `ResidualUnit`.
        coarsest_skip: whether the coarsest fusion has weights for a skip map, which are never used.
    """

    def __init__(
        self, widths: Sequence[int], channels: int, *, rectified: bool, coarsest_skip: bool
    ) -> None:
        super().__init__()
        for level, width in enumerate(widths, start=1):
            projection = Conv2d(width, channels, 3, padding=1, bias=False)
            self.add_module(f"layer{level}_rn", projection)
        for level in range(1, 5):
            fusion = Fusion(channels, rectified=rectified, skip=level < 4 or coarsest_skip)
            self.add_module(f"refinenet{level}", fusion)

    def project(self, level: int, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c h w"]:
        """Bring the map of a level, from 0, to the width of all."""
        return self.get_submodule(f"layer{level + 1}_rn")(x)

    def fuse(
        self, levels: Sequence[Float[Tensor, "b c _ _"]], *, exactly: bool
    ) -> Float[Tensor, "b c h w"]:
        """Merge the four levels from coarse to fine; twice the size of the finest.

        Args:
            levels: finest first, each half as large as the one before.
            exactly: resize every map to the next level's size; otherwise double its size, and cut
                the row or column off that an odd next level lacks.
        """
        x, skip = levels[3], None
        for index in (3, 2, 1, 0):
            twice = (2 * x.shape[2], 2 * x.shape[3])
            finer = levels[index - 1] if index else None
            rows, columns = twice if finer is None else finer.shape[2:]
            fusion = self.get_submodule(f"refinenet{index + 1}")
            x = fusion(x, (rows, columns) if exactly else twice, skip)[:, :, :rows, :columns]
            skip = finer
        return x


def level_sizes(widths: Sequence[int]) -> list[nn.Module]:
    """Layers that bring maps of a grid of patches to 4, 2, 1 and 1/2 times its size."""
    return [
        nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
        nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
        nn.Identity(),
        Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
    ]


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
        self.act_postprocess = nn.ModuleList(
            nn.Sequential(Conv2d(dim, width, 1), to_size)
            for dim, width, to_size in zip(dims, layers, level_sizes(layers), strict=True)
        )
        self.scratch = Scratch(layers, feature, rectified=False, coarsest_skip=True)
        # Each projection has two names in the published state dicts; both lead to one tensor.
        self.scratch.layer_rn = nn.ModuleList(
            self.scratch.get_submodule(f"layer{level}_rn") for level in range(1, 5)
        )
        self.head = nn.Sequential(
            Conv2d(feature, last, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            Conv2d(last, last, 3, padding=1),
            nn.ReLU(inplace=True),
            Conv2d(last, out, 1),
        )

    @exact_float32()
    def forward(
        self, tokens: Sequence[Float[Tensor, "b patches _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "b out height width"]:
        """Return the raw map.

        Args:
            tokens: four sets of patch tokens, from the encoder to the last decoder layer.
            grid: (rows, columns) of patches.
        """
        levels = [
            self.scratch.project(level, to_level(x.mT.unflatten(2, grid)))
            for level, (x, to_level) in enumerate(zip(tokens, self.act_postprocess, strict=True))
        ]
        return self.head(self.scratch.fuse(levels, exactly=False))
