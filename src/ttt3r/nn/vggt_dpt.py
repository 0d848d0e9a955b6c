"""Dense prediction head of VGGT (arXiv 2503.11651, section 3.3), after DPT (arXiv 2103.13413).

It differs from `nn.dpt.Dpt` in what the released weights were trained with: one normalisation of
all four levels, a position code added to the maps, skips that carry rectified maps, and sizes that
need not be multiples of 16.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.backend import exact_float32
from ttt3r.nn.dpt import Scratch, level_sizes, resize
from ttt3r.nn.layers import Conv2d, LayerNorm
from ttt3r.nn.tables import table

POSITION_WEIGHT = 0.1
POSITION_BASE = 100.0
OUTPUT_WIDTH = 32


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

    def centres(count: int, half_side: float) -> Tensor:
        end = half_side * (count - 1) / count  # centres of the outer pixels
        return torch.linspace(-end, end, count, dtype=torch.float64, device=device)

    return centres(size[1], aspect / diagonal), centres(size[0], 1 / diagonal)


@table
def position_code(
    size: tuple[int, int], channels: int, aspect: float, device: torch.device | None = None
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
        self.norm = LayerNorm(dim, eps=1e-5)
        self.projects = nn.ModuleList(Conv2d(dim, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(level_sizes(widths))
        self.scratch = Scratch(widths, features, rectified=True, coarsest_skip=False)
        half = features if out is None else features // 2
        self.scratch.output_conv1 = Conv2d(features, half, 3, padding=1)
        if out is not None:
            self.scratch.output_conv2 = nn.Sequential(
                Conv2d(half, OUTPUT_WIDTH, 3, padding=1),
                nn.ReLU(inplace=True),
                Conv2d(OUTPUT_WIDTH, out, 1),
            )

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

    @exact_float32()
    def read(
        self, tokens: Sequence[Float[Tensor, "frames patches channels"]], size: tuple[int, int]
    ) -> Float[Tensor, "frames out height width"]:
        """Return the raw map of each frame, all at once; see `forward`."""
        aspect = size[1] / size[0]
        with_code: Callable[[Tensor], Tensor] = (
            (lambda x: add_positions(x, aspect)) if self.knows_positions else (lambda x: x)
        )
        grid = (size[0] // self.patch, size[1] // self.patch)
        layers = zip(map(self.norm, tokens), self.projects, self.resize_layers, strict=True)
        levels = [
            self.scratch.project(level, to_size(with_code(project(x.mT.unflatten(2, grid)))))
            for level, (x, project, to_size) in enumerate(layers)
        ]
        x = self.scratch.get_submodule("output_conv1")(self.scratch.fuse(levels, exactly=True))
        x = with_code(resize(x, (size[0] // self.down_ratio, size[1] // self.down_ratio)))
        return self.scratch.get_submodule("output_conv2")(x) if self.knows_positions else x
