"""Dense prediction head of VGGT (arXiv 2503.11651, section 3.3), after DPT (arXiv 2103.13413).

It differs from `nn.dpt` in what the released weights were trained with: one normalisation of all
four levels, a position code added to the maps, skips that carry rectified maps, and sizes that need
not be multiples of 16.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.layers import Conv2d
from ttt3r.nn.scaled import Norm

POSITION_WEIGHT = 0.1
POSITION_BASE = 100.0
OUTPUT_WIDTH = 32


def resize(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Resize bilinearly to (height, width); corners keep their values."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def pixel_places(
    size: tuple[int, int], aspect: float, device: torch.device | str | None = None
) -> tuple[Float[Tensor, " columns"], Float[Tensor, " rows"]]:
    """Where the pixels of a map lie in the image, a centred rectangle with a diagonal of 2.

    Args:
        size: (rows, columns) of the map.
        aspect: width over height of the image, which the map covers.
        device: where to put it.

    Returns:
        The coordinates of columns and of rows, at pixel centres, float64.
    """
    diagonal = (aspect**2 + 1) ** 0.5

    def places(count: int, half_side: float) -> Tensor:
        end = half_side * (count - 1) / count  # centres of the outer pixels
        return torch.linspace(-end, end, count, dtype=torch.float64, device=device)

    return places(size[1], aspect / diagonal), places(size[0], 1 / diagonal)


def position_code(
    size: tuple[int, int], channels: int, aspect: float, device: torch.device | str | None = None
) -> tuple[Float[Tensor, "half columns"], Float[Tensor, "half rows"]]:
    """Sines and cosines of where the columns and the rows of a map lie in the image.

    Places are those of `pixel_places`. A map's full code is the columns' repeated over the rows,
    followed by the rows' repeated over the columns.

    Args:
        size: (rows, columns) of the map.
        channels: of the map, a multiple of 4.
        aspect: width over height of the image, which the map covers.
        device: where to put it.

    Returns:
        The codes of columns and rows, each `channels` / 2 long, float64.
    """
    quarter = channels // 4
    exponents = torch.arange(quarter, dtype=torch.float64, device=device) / quarter
    frequencies = POSITION_BASE**-exponents

    def code(places: Tensor) -> Tensor:
        angles = frequencies[:, None] * places
        return torch.cat((angles.sin(), angles.cos()))

    columns, rows = pixel_places(size, aspect, device)
    return code(columns), code(rows)


def add_positions(x: Float[Tensor, "b c h w"], aspect: float) -> Float[Tensor, "b c h w"]:
    """Add a tenth of the position code; the full code of a map is never formed."""
    columns, rows = position_code((x.shape[2], x.shape[3]), x.shape[1], aspect, x.device)
    left, right = x.chunk(2, dim=1)
    return torch.cat(
        (
            left + POSITION_WEIGHT * columns.to(x.dtype)[:, None],
            right + POSITION_WEIGHT * rows.to(x.dtype)[..., None],
        ),
        dim=1,
    )


class RectifiedUnit(nn.Module):
    """r + conv(relu(conv(r))) with r = relu(x): the skip carries the rectified map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Refine the map."""
        rectified = F.relu(x)
        return rectified + self.conv2(F.relu(self.conv1(rectified)))


class SizedFusion(nn.Module):
    """Merge a coarse map with a skip map and resize.

    The published network resizes and then applies the 1×1 convolution; the two commute (see
    `nn.dpt.Fusion`), and the convolution is cheaper on the smaller map.

    Args:
        channels: of both maps.
        skip: whether there is a skip map; the coarsest level has none.
    """

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        self.out_conv = Conv2d(channels, channels, 1)
        if skip:
            self.resConfUnit1 = RectifiedUnit(channels)
        self.resConfUnit2 = RectifiedUnit(channels)

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


class VggtScratch(nn.Module):
    """Projections of the four levels to one width, their fusions, and the output layers.

    Args:
        widths: channels of the four levels.
        features: channels after projection.
        out: channels of the output; None leaves the last layers out.
    """

    def __init__(self, widths: Sequence[int], features: int, out: int | None) -> None:
        super().__init__()
        for level, width in enumerate(widths, start=1):
            projection = Conv2d(width, features, 3, padding=1, bias=False)
            self.add_module(f"layer{level}_rn", projection)
        self.refinenet1 = SizedFusion(features, skip=True)
        self.refinenet2 = SizedFusion(features, skip=True)
        self.refinenet3 = SizedFusion(features, skip=True)
        self.refinenet4 = SizedFusion(features, skip=False)
        half = features if out is None else features // 2
        self.output_conv1 = Conv2d(features, half, 3, padding=1)
        if out is not None:
            self.output_conv2 = nn.Sequential(
                Conv2d(half, OUTPUT_WIDTH, 3, padding=1),
                nn.ReLU(inplace=True),
                Conv2d(OUTPUT_WIDTH, out, 1),
            )

    def project(self, levels: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Tensor]:
        """Bring the maps of the four levels to one width."""
        return [
            self.get_submodule(f"layer{level}_rn")(x) for level, x in enumerate(levels, start=1)
        ]

    def fuse(self, levels: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "b c h w"]:
        """Merge the four levels from coarse to fine; twice the size of the finest."""
        sizes = [(x.shape[2], x.shape[3]) for x in levels]
        x = self.refinenet4(levels[3], sizes[2])
        x = self.refinenet3(x, sizes[1], levels[2])
        x = self.refinenet2(x, sizes[0], levels[1])
        return self.refinenet1(x, (2 * sizes[0][0], 2 * sizes[0][1]), levels[0])


class VggtDpt(nn.Module):
    """Four sets of patch tokens in, one dense map out.

    There are two forms. With `out`, the head of depth and points: it adds the position code and
    returns `out` raw channels at the image's resolution. Without, the feature extractor of the
    track head: it knows no positions and returns `features` channels at 1 / `down_ratio` of it.

    Args:
        dim: channels of the tokens.
        widths: channels of the four levels, finest first.
        features: channels after projection.
        out: channels of the output; None for the feature extractor.
        patch: side of a patch in pixels.
        down_ratio: the output is this much smaller than the image.
    """

    def __init__(
        self,
        dim: int,
        widths: Sequence[int],
        features: int,
        out: int | None = None,
        *,
        patch: int = 14,
        down_ratio: int = 1,
    ) -> None:
        super().__init__()
        self.patch, self.down_ratio, self.knows_positions = patch, down_ratio, out is not None
        self.norm = Norm(dim)
        self.projects = nn.ModuleList(Conv2d(dim, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = VggtScratch(widths, features, out)

    def forward(
        self,
        tokens: Sequence[Float[Tensor, "frames patches channels"]],
        size: tuple[int, int],
        chunk: int = 8,
    ) -> Float[Tensor, "frames out height width"]:
        """Return the raw map of each frame.

        Args:
            tokens: patch tokens of four depths, shallowest first.
            size: (height, width) of the images in pixels, multiples of `patch`.
            chunk: frames that are worked on at a time; it bounds memory and changes nothing else.
        """
        parts = zip(*(x.split(chunk) for x in tokens), strict=True)
        return torch.cat([self.read(part, size) for part in parts])

    def read(
        self, tokens: Sequence[Float[Tensor, "frames patches channels"]], size: tuple[int, int]
    ) -> Float[Tensor, "frames out height width"]:
        """Return the raw map of each frame, all at once; see `forward`."""
        aspect = size[1] / size[0]
        place: Callable[[Tensor], Tensor] = (
            (lambda x: add_positions(x, aspect)) if self.knows_positions else (lambda x: x)
        )
        grid = (size[0] // self.patch, size[1] // self.patch)
        levels = [
            to_size(place(project(self.norm(x).mT.unflatten(2, grid))))
            for x, project, to_size in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        x = self.scratch.output_conv1(self.scratch.fuse(self.scratch.project(levels)))
        x = place(resize(x, (size[0] // self.down_ratio, size[1] // self.down_ratio)))
        return self.scratch.output_conv2(x) if self.knows_positions else x
