"""Rotary position embedding on a grid, wholly in float16.

The published image encoders embed positions in float16 even where all else is float32. Their CUDA
kernel rounds operands and results only, as `rope.rotate_half_precision` does. Their portable
computation, reproduced here, also rounds angles, cosines, sines, products and sums.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.nn.blocks import EncoderBlock
from ttt3r.nn.rope import Rotary


def rotary_in_half(positions: Int[Tensor, "positions 2"], dim: int, base: float = 100.0) -> Rotary:
    """Tabulate `rope.rotary` in float16.

    Args:
        positions: integer (row, column).
        dim: channels per head, a multiple of 4.
        base: frequency base.
    """
    quarter = dim // 4
    exponents = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
    angles = (positions[:, :, None].float() * base**-exponents).half()
    cos, sin = angles.cos(), angles.sin()
    return Rotary(
        cos=torch.stack((cos, cos), dim=2).flatten(1),
        sin=torch.stack((-sin, sin), dim=2).flatten(1),
    )


def rotate_in_half(
    x: Float[Tensor, "batch heads positions dim"], table: Rotary
) -> Float[Tensor, "batch heads positions dim"]:
    """Rotate queries or keys by a table of `rotary_in_half`; every step rounds to float16."""
    half = x.half()
    u_row, v_row, u_column, v_column = half.chunk(4, dim=-1)
    swapped = torch.cat((v_row, u_row, v_column, u_column), dim=-1)
    return (half * table.cos + swapped * table.sin).to(x.dtype)


class HalfRopeEncoderBlock(EncoderBlock):
    """Encoder block that rotates in float16; takes tables of `rotary_in_half`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__(dim, heads, mlp_ratio)
        self.attn.rotate = rotate_in_half
