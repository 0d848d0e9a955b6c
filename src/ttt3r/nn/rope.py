"""Two-dimensional rotary position embedding (RoPE, arXiv 2104.09864), in plain torch.

A head of D channels is laid out as four runs of D/4: [uY | vY | uX | vX]. Channel j of a pair
(u, v) is rotated by the angle position · base^(−j / (D/4)), the first pair by the row, the second
by the column. Positions are any integers; the pose token sits at (−1, −1).
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.nn.tables import table

# What the published image encoders round to float16. Their CUDA kernel rounds "operands": queries,
# keys and results. Their portable code rounds "everything": angles, cosines, sines, products and
# sums too.
Half = Literal["operands", "everything"]


@runtime_checkable
class Positions(Protocol):
    """Where a set of tokens is, as attention needs it; shared by all layers of one head size."""

    @property
    def present(self) -> Bool[Tensor, "batch tokens"] | None:
        """Tokens that may be read; None means all."""
        ...

    def turn(
        self, x: Float[Tensor, "batch heads tokens dim"]
    ) -> Float[Tensor, "batch heads tokens dim"]:
        """Embed the positions in queries or keys."""
        ...


class Rotary(NamedTuple):
    """Rotations of tokens on a grid.

    Attributes:
        cos: cosines.
        sin: sines, signed.
        in_half: whether queries, keys and results are rounded to float16.
        present: None, since all tokens of a grid may be read.
    """

    cos: Float[Tensor, "positions dim"]
    sin: Float[Tensor, "positions dim"]
    in_half: bool = False
    present: None = None

    def turn(
        self, x: Float[Tensor, "batch heads positions dim"]
    ) -> Float[Tensor, "batch heads positions dim"]:
        """Rotate queries or keys: u' = u cos − v sin, v' = v cos + u sin; in the table's dtype."""
        turned = x.half() if self.in_half else x.to(self.cos.dtype)
        u_row, v_row, u_column, v_column = turned.chunk(4, dim=-1)
        swapped = torch.cat((v_row, u_row, v_column, u_column), dim=-1)
        if self.in_half:
            return (turned * self.cos + swapped * self.sin).half().to(x.dtype)
        return torch.addcmul(turned * self.cos, swapped, self.sin)

    def repeat(self, times: int) -> "Rotary":
        """Return the rotations of several grids, one after the other."""
        return self._replace(cos=self.cos.repeat(times, 1), sin=self.sin.repeat(times, 1))


def rotary(
    positions: Int[Tensor, "positions 2"],
    dim: int,
    base: float = 100.0,
    dtype: torch.dtype = torch.float32,
    half: Half | None = None,
) -> Rotary:
    """Tabulate the rotation of each (row, column) position for heads of `dim` channels.

    Args:
        positions: integer (row, column).
        dim: channels per head, a multiple of 4.
        base: frequency base.
        dtype: of the table, and so of what is rotated by it.
        half: what is rounded to float16, see `Half`; None rounds nothing.
    """
    quarter = dim // 4
    exponents = torch.arange(quarter, device=positions.device, dtype=dtype) / quarter
    angles = positions[:, :, None].to(dtype) * base**-exponents
    if half == "everything":
        angles = angles.half()
    cos, sin = angles.cos(), angles.sin()
    return Rotary(
        cos=torch.stack((cos, cos), dim=2).flatten(1),
        sin=torch.stack((-sin, sin), dim=2).flatten(1),
        in_half=half is not None,
    )


@table
def grid_rotary(
    grid: tuple[int, int],
    dim: int,
    base: float,
    dtype: torch.dtype,
    device: torch.device,
    *,
    start: int = 0,
    before: int = 0,
    half: Half | None = None,
) -> Rotary:
    """Rotations of the patches of a grid, row by row, and of tokens without a place before them.

    Args:
        grid: (rows, columns) of patches.
        dim: channels per head, a multiple of 4.
        base: frequency base.
        dtype: of the table.
        device: where to put it.
        start: row and column of the top-left patch.
        before: tokens before the patches; they sit at (start − 1, start − 1).
        half: see `rotary`.
    """
    patches = grid_positions(*grid, device) + start
    places = torch.cat((patches.new_full((before, 2), start - 1), patches))
    return rotary(places, dim, base, dtype, half)


def grid_positions(
    height: int, width: int, device: torch.device | str | None = None
) -> Int[Tensor, "positions 2"]:
    """(row, column) of each patch of a grid, row by row."""
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns)


@table
def absolute_positions(
    height: int,
    width: int,
    dim: int,
    device: torch.device | None = None,
    *,
    skipped: int = 0,
) -> Float[Tensor, "positions dim"]:
    """Sines and cosines of where each patch lies in the image, row by row.

    Rotary embedding tells attention how far apart two tokens are, but a token says nothing of its
    own place. A pointmap needs that (a pixel's ray is its place), and so does motion (a match means
    something only with both places). Large networks learn to find it; small ones are told.

    Args:
        height: patches.
        width: patches.
        dim: channels, a multiple of 4.
        device: where to put it.
        skipped: first channels that stay 0, so that they can hold content alone.
    """
    places = grid_positions(height, width, device).float()
    middle = torch.tensor([height - 1, width - 1], device=device) / 2
    places = (places - middle) * (2 / max(height, width))  # -1 to 1 along the longer side
    steps = torch.linspace(0, 1, dim // 4, device=device)
    angles = places[:, :, None] * (torch.pi / 2 * 8**steps)
    code = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return code * (torch.arange(dim, device=device) >= skipped)
