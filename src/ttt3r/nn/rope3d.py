"""Rotary position embedding of points in space, over a hierarchy of frequencies.

Point3R (arXiv 2507.02863, "3D hierarchical position embedding") gives x, y and z a third of a
head's channels each; the last third takes what is left over. A third of D channels is cut after
its first h = ⌈D/2⌉ channels, channel k has the angle a_k = p · base^(−2 (k mod h) / D), and

    out_k = x_k cos a_k − x_{k+h} sin a_k        for k < D − h
    out_k = x_k cos a_k + x_{k−(D−h)} sin a_k    for k ≥ D − h,

which for odd D is not a rotation, but is what the released weights were trained with. The result
is the mean over several bases. It is linear in cosines and sines, so their means over the bases
are tabulated once and heads are turned once. A token at the origin stays as it is.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.nn.tables import table

BASES = (10.0, 100.0, 1000.0, 10000.0)


class SpatialRotary(NamedTuple):
    """Where a set of tokens is, for all attention layers of one head size; see `rope.Positions`.

    Attributes:
        cos: mean cosines.
        sin: mean sines, signed as the formula above has them.
        present: tokens that may be read; None means all.
    """

    cos: Float[Tensor, "batch tokens dim"]
    sin: Float[Tensor, "batch tokens dim"]
    present: Bool[Tensor, "batch tokens"] | None = None

    def turn(
        self, x: Float[Tensor, "batch heads tokens dim"]
    ) -> Float[Tensor, "batch heads tokens dim"]:
        """Embed the positions of queries or keys, in the precision of the table."""
        x = x.to(self.cos.dtype)
        partners = []
        for part in x.split(axis_widths(x.shape[-1]), dim=-1):
            upper = (part.shape[-1] + 1) // 2
            partners += [part[..., upper:], part[..., :upper]]
        return torch.addcmul(x * self.cos[:, None], torch.cat(partners, -1), self.sin[:, None])


def spatial_rotary(
    positions: Float[Tensor, "batch tokens 3"],
    dim: int,
    present: Bool[Tensor, "batch tokens"] | None = None,
) -> SpatialRotary:
    """Tabulate the embedding of each position for heads of `dim` channels.

    Args:
        positions: x, y, z, in the unit the network was trained with.
        dim: channels per head, at least 3.
        present: tokens that may be read; None means all.
    """
    cosines, sines = [], []
    for axis, width in enumerate(axis_widths(dim)):
        angles = positions[..., axis, None, None] * _frequencies(
            width, positions.dtype, positions.device
        )
        cos, sin = angles.cos().mean(-2), angles.sin().mean(-2)
        lower = width - (width + 1) // 2
        cosines += [cos, cos[..., :lower]]
        sines += [-sin[..., :lower], sin[..., lower:], sin[..., :lower]]
    return SpatialRotary(torch.cat(cosines, -1), torch.cat(sines, -1), present)


@table
def _frequencies(
    width: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "bases upper"]:
    """Frequencies of an axis that has `width` channels, for each base."""
    exponents = torch.arange((width + 1) // 2, dtype=dtype, device=device) * (-2.0 / width)
    return torch.tensor(BASES, dtype=dtype, device=device)[:, None] ** exponents


def axis_widths(dim: int) -> tuple[int, int, int]:
    """Channels of a head that encode x, y and z."""
    third = dim // 3
    return third, third, dim - 2 * third
