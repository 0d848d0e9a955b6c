"""Colours of surfaces: a few families of solid textures, from plain paint to print.

A texture is a pattern in [0, 1] over the surface's own coordinates that blends two colours, plus
slow stains. Patterns fade to their mean where they become finer than a pixel, so that distance does
not turn them into noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

NOISE_CELLS = 32


@dataclass(frozen=True)
class Materials:
    """A table of materials in each frame of a batch; one row is one material.

    Attributes:
        pattern: index into `PATTERNS`.
        first: one colour of the pattern, linear RGB in [0, 1].
        second: the other.
        scale: cells per metre.
        contrast: how far the pattern departs from its mean, 0 to 1.
        stain: strength of slow brightness changes, 0 to 1.
        glow: light that the surface gives off itself, 0 to 1.
    """

    pattern: Int[Tensor, "frames materials"]
    first: Float[Tensor, "frames materials 3"]
    second: Float[Tensor, "frames materials 3"]
    scale: Float[Tensor, "frames materials"]
    contrast: Float[Tensor, "frames materials"]
    stain: Float[Tensor, "frames materials"]
    glow: Float[Tensor, "frames materials"]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Materials":
        """Apply `function` to every tensor."""
        return Materials(*(function(getattr(self, field.name)) for field in fields(self)))


def hashed(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """A number in [0, 1) for each cell (a, b, c), the same wherever the cell turns up."""
    n = a.to(torch.int64) * 73856093 ^ b.to(torch.int64) * 19349663 ^ c.to(torch.int64) * 83492791
    n = (n ^ (n >> 13)) * 1274126177
    return ((n ^ (n >> 16)) & 0xFFFFFF).to(torch.float32) / 0x1000000


def noise(
    volume: Float[Tensor, "cells cells cells"], at: Float[Tensor, "points 3"]
) -> Float[Tensor, " points"]:
    """Smooth periodic noise in [0, 1] with one feature per unit length."""
    wrapped = torch.remainder(at, NOISE_CELLS) / NOISE_CELLS * 2 - 1
    padded = F.pad(volume[None, None], (0, 1, 0, 1, 0, 1), mode="circular")
    return F.grid_sample(padded, wrapped[None, None, None], align_corners=True)[0, 0, 0, 0]


def _smooth(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _plain(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    return noise(volume, q * 3)


def _mottled(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    mixed = 0.6 * noise(volume, q) + 0.3 * noise(volume, 2.03 * q) + 0.1 * noise(volume, 4.1 * q)
    return _smooth(mixed, 0.35, 0.65)


def _checks(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    return torch.remainder(u.floor() + v.floor(), 2)


def _tiles(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    grout = torch.minimum(torch.remainder(u, 1), torch.remainder(v, 1)) < 0.06
    shade = 0.7 + 0.3 * hashed(u.floor(), v.floor(), torch.zeros_like(u))
    return torch.where(grout, 0.0, shade)


def _bricks(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    row = (2 * v).floor()
    u = u + 0.5 * torch.remainder(row, 2)
    joint = (torch.remainder(u, 1) < 0.05) | (torch.remainder(2 * v, 1) < 0.1)
    shade = 0.5 + 0.5 * hashed(u.floor(), row, torch.ones_like(u))
    return torch.where(joint, 0.0, shade)


def _planks(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    plank = (3 * v).floor()
    grain = noise(volume, torch.stack((0.7 * u, 12 * v, plank), -1))
    gap = torch.remainder(3 * v, 1) < 0.05
    shade = 0.45 * hashed(plank, plank, plank) + 0.55 * grain
    return torch.where(gap, 0.0, shade)


def _print(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    line = (4 * v).floor()
    word = hashed((3 * u).floor(), line, torch.zeros_like(u)) > 0.25
    stroke = hashed((12 * u).floor(), (16 * v).floor(), torch.ones_like(u)) > 0.45
    inked = word & stroke & (torch.remainder(4 * v, 1) > 0.4)
    return torch.where(inked, 0.0, 1.0)


def _speckle(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    return 0.5 * noise(volume, 9 * q) + 0.5 * noise(volume, 19 * q)


def _picture(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    blobs = 0.7 * noise(volume, 1.3 * q) + 0.3 * noise(volume, 4.3 * q)
    return (blobs * 7).floor() / 7


def _stripes(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    return (torch.remainder(u, 1) < 0.5).float()


def _windows(u: Tensor, v: Tensor, q: Tensor, volume: Tensor) -> Tensor:
    pane = (torch.remainder(u, 1) > 0.35) & (torch.remainder(v, 1) > 0.4)
    lit = 0.35 * hashed(u.floor(), v.floor(), torch.zeros_like(u))
    return torch.where(pane, lit, 1.0)


# Each pattern, and the finest of its details in cells, which decides where it fades.
PATTERNS: tuple[tuple[Callable[..., Tensor], float], ...] = (
    (_plain, 3.0),
    (_mottled, 2.0),
    (_checks, 1.0),
    (_tiles, 2.0),
    (_bricks, 3.0),
    (_planks, 6.0),
    (_print, 6.0),
    (_speckle, 12.0),
    (_picture, 3.0),
    (_stripes, 1.5),
    (_windows, 2.0),
)
PATTERN_NAMES = tuple(function.__name__[1:] for function, _ in PATTERNS)


def albedo(
    materials: Materials,
    index: Int[Tensor, "frames rays"],
    local: Float[Tensor, "frames rays 3"],
    face: Int[Tensor, "frames rays"],
    footprint: Float[Tensor, "frames rays"],
    volume: Float[Tensor, "cells cells cells"],
) -> tuple[Float[Tensor, "frames rays 3"], Float[Tensor, "frames rays"]]:
    """Colour of surface points, and the light they give off.

    Args:
        materials: the tables.
        index: row of each point; -1 is black.
        local: the point in its solid's coordinates, metres.
        face: axis of the face it lies on.
        footprint: width of a pixel on the surface, metres.
        volume: a periodic cube of random numbers in [0, 1].
    """
    frames = torch.arange(len(index), device=index.device)[:, None]
    row = materials.map(lambda table: table[frames, index.clamp(min=0)])
    q = (local * row.scale[..., None]).flatten(0, 1)
    # The two coordinates along the face; sideways faces keep "up" as their second coordinate.
    u = torch.where((face == 0).flatten(), q[:, 2], q[:, 0])
    v = torch.where((face == 1).flatten(), q[:, 2], q[:, 1])
    kind = row.pattern.flatten()
    pattern = torch.full_like(u, 0.5)
    for number, (function, detail) in enumerate(PATTERNS):
        chosen = torch.nonzero(kind == number)[:, 0]
        if len(chosen):
            value = function(u[chosen], v[chosen], q[chosen], volume)
            cells = (footprint * row.scale).flatten()[chosen] * detail
            value = 0.5 + (value - 0.5) * (1.5 - cells).clamp(0, 1)
            pattern[chosen] = value
    pattern = 0.5 + (pattern.view_as(footprint) - 0.5) * row.contrast
    stains = noise(volume, local.flatten(0, 1) * 1.7 + 5.3).view_as(footprint)
    shade = 1 + row.stain * (stains - 0.5)
    colour = row.first + (row.second - row.first) * pattern[..., None]
    return colour * shade[..., None], row.glow
