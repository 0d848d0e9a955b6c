"""Two-dimensional rotary position embedding (RoPE, arXiv 2104.09864), in plain torch.

A head of D channels is laid out as four runs of D/4: [uY | vY | uX | vX]. Channel j of a pair
(u, v) is rotated by the angle position · base^(−j / (D/4)), the first pair by the row, the second
by the column. Positions are any integers; the pose token sits at (−1, −1).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Rotary(NamedTuple):
    """Cosines and signed sines for a set of positions, shared by all layers of one head size."""

    cos: Float[Tensor, "positions dim"]
    sin: Float[Tensor, "positions dim"]


def rotary(
    positions: Int[Tensor, "positions 2"],
    dim: int,
    base: float = 100.0,
    dtype: torch.dtype = torch.float32,
) -> Rotary:
    """Tabulate the rotation of each (row, column) position for heads of `dim` channels.

    Args:
        positions: integer (row, column).
        dim: channels per head, a multiple of 4.
        base: frequency base.
        dtype: of the table, and so of what is rotated by it.
    """
    quarter = dim // 4
    exponents = torch.arange(quarter, device=positions.device, dtype=dtype) / quarter
    angles = positions[:, :, None].to(dtype) * base**-exponents
    cos, sin = angles.cos(), angles.sin()
    return Rotary(
        cos=torch.stack((cos, cos), dim=2).flatten(1),
        sin=torch.stack((-sin, sin), dim=2).flatten(1),
    )


def rotate(
    x: Float[Tensor, "batch heads positions dim"], table: Rotary
) -> Float[Tensor, "batch heads positions dim"]:
    """Rotate queries or keys: u' = u cos − v sin, v' = v cos + u sin; in the table's dtype."""
    x = x.to(table.cos.dtype)
    u_row, v_row, u_column, v_column = x.chunk(4, dim=-1)
    swapped = torch.cat((v_row, u_row, v_column, u_column), dim=-1)
    return torch.addcmul(x * table.cos, swapped, table.sin)


def rotate_half_precision(
    x: Float[Tensor, "batch heads positions dim"], table: Rotary
) -> Float[Tensor, "batch heads positions dim"]:
    """Rotate with operand and result rounded to float16, as the published image encoder does."""
    return rotate(x.half(), table).half().to(x.dtype)


def grid_positions(
    height: int, width: int, device: torch.device | str | None = None
) -> Int[Tensor, "positions 2"]:
    """(row, column) of each patch of a grid, row by row."""
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    return torch.cartesian_prod(rows, columns)


def absolute_positions(
    height: int, width: int, dim: int, device: torch.device | str | None = None
) -> Float[Tensor, "positions dim"]:
    """Sines and cosines of where each patch lies in the image, row by row.

    Rotary embedding tells attention how far apart two tokens are, but a token says nothing of its
    own place. A pointmap needs it (a pixel's ray is its place), and so does motion (a match means
    something only with both places). Large networks learn to find it; small ones are told.

    Args:
        height: patches.
        width: patches.
        dim: channels, a multiple of 4.
        device: where to put it.
    """
    places = grid_positions(height, width, device).float()
    middle = torch.tensor([height - 1, width - 1], device=device) / 2
    places = (places - middle) * (2 / max(height, width))  # -1 to 1 along the longer side
    steps = torch.linspace(0, 1, dim // 4, device=device)
    angles = places[:, :, None] * (torch.pi / 2 * 8**steps)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
