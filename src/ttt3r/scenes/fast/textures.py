"""Colours of single points: `scenes.textures`, compiled."""

import numpy as np

from ttt3r.scenes.fast.compiling import kernel
from ttt3r.scenes.fast.tables import CONTRAST, DETAIL, SCALE, STAIN
from ttt3r.scenes.textures import NOISE_CELLS, PATTERN_NAMES

LAST_CELL = NOISE_CELLS - 1  # of a power of two, so it masks
PLAIN, MOTTLED, CHECKS, TILES = map(PATTERN_NAMES.index, ("plain", "mottled", "checks", "tiles"))
BRICKS, PLANKS, PRINT = map(PATTERN_NAMES.index, ("bricks", "planks", "print"))
SPECKLE, PICTURE = map(PATTERN_NAMES.index, ("speckle", "picture"))
STRIPES, WINDOWS = map(PATTERN_NAMES.index, ("stripes", "windows"))


@kernel
def fraction(x):
    """What is beyond the next lower integer."""
    return x - np.floor(x)


@kernel
def hashed(a, b, c):
    """A number in [0, 1) for each cell of whole numbers (a, b, c)."""
    n = np.int64(a) * 73856093 ^ np.int64(b) * 19349663 ^ np.int64(c) * 83492791
    n = (n ^ (n >> 13)) * 1274126177
    return ((n ^ (n >> 16)) & 0xFFFFFF) / 0x1000000


@kernel
def _corner(x):
    """The two cells beside a coordinate, and how far it is from the first to the second."""
    low = np.floor(x)
    cell = np.int64(low)
    return cell & LAST_CELL, (cell + 1) & LAST_CELL, x - low


@kernel
def noise(volume, x, y, z):
    """Smooth periodic noise in [0, 1] with one feature per unit length."""
    x0, x1, fx = _corner(x)
    y0, y1, fy = _corner(y)
    z0, z1, fz = _corner(z)
    a = volume[z0, y0, x0] * (1 - fx) + volume[z0, y0, x1] * fx
    b = volume[z0, y1, x0] * (1 - fx) + volume[z0, y1, x1] * fx
    c = volume[z1, y0, x0] * (1 - fx) + volume[z1, y0, x1] * fx
    d = volume[z1, y1, x0] * (1 - fx) + volume[z1, y1, x1] * fx
    a, c = a * (1 - fy) + b * fy, c * (1 - fy) + d * fy
    return a * (1 - fz) + c * fz


@kernel
def _two_dimensional(kind, u, v):
    """Patterns of the two coordinates along a face."""
    if kind == CHECKS:
        return (np.floor(u) + np.floor(v)) % 2.0
    if kind == TILES:
        shade = 0.7 + 0.3 * hashed(np.floor(u), np.floor(v), 0)
        return 0.0 if min(fraction(u), fraction(v)) < 0.06 else shade
    if kind == BRICKS:
        row = np.floor(2 * v)
        u += 0.5 * (row % 2.0)
        shade = 0.5 + 0.5 * hashed(np.floor(u), row, 1)
        return 0.0 if fraction(u) < 0.05 or fraction(2 * v) < 0.1 else shade
    if kind == PRINT:
        word = hashed(np.floor(3 * u), np.floor(4 * v), 0) > 0.25
        stroke = hashed(np.floor(12 * u), np.floor(16 * v), 1) > 0.45
        return 0.0 if word and stroke and fraction(4 * v) > 0.4 else 1.0
    if kind == STRIPES:
        return 1.0 if fraction(u) < 0.5 else 0.0
    lit = 0.35 * hashed(np.floor(u), np.floor(v), 0)  # windows
    return lit if fraction(u) > 0.35 and fraction(v) > 0.4 else 1.0


@kernel
def _blend(volume, q, many, few, share):
    """Noise of two sizes."""
    coarse = noise(volume, few * q[0], few * q[1], few * q[2])
    fine = noise(volume, many * q[0], many * q[1], many * q[2])
    return share * coarse + (1 - share) * fine


@kernel
def pattern(kind, u, v, q, volume):
    """Value of a pattern in [0, 1] at the coordinates u, v along a face and q in space."""
    if kind == PLAIN:
        return noise(volume, q[0] * 3, q[1] * 3, q[2] * 3)
    if kind == SPECKLE:
        return _blend(volume, q, 19.0, 9.0, 0.5)
    if kind == PICTURE:
        return np.floor(_blend(volume, q, 4.3, 1.3, 0.7) * 7) / 7
    if kind == MOTTLED:
        mixed = 0.9 * _blend(volume, q, 2.03, 1.0, 2 / 3)
        mixed += 0.1 * noise(volume, 4.1 * q[0], 4.1 * q[1], 4.1 * q[2])
        t = min(max((mixed - 0.35) / 0.3, 0.0), 1.0)
        return t * t * (3 - 2 * t)
    if kind == PLANKS:
        plank = np.floor(3 * v)
        grain = noise(volume, 0.7 * u, 12 * v, plank)
        shade = 0.45 * hashed(plank, plank, plank) + 0.55 * grain
        return 0.0 if fraction(3 * v) < 0.05 else shade
    return _two_dimensional(kind, u, v)


@kernel
def paint(kind, row, local, face, footprint, volume, colour, i):
    """Write the colour of a point to `colour` [3, rays] at ray i; see `textures.albedo`."""
    scale = row[SCALE]
    # Rounded as the other renderer rounds, so that borders of cells fall on the same side.
    q = (float(local[0] * scale), float(local[1] * scale), float(local[2] * scale))
    x, y, z = float(local[0]), float(local[1]), float(local[2])
    u = q[2] if face == 0 else q[0]
    v = q[2] if face == 1 else q[1]
    fade = min(max(1.5 - footprint * scale * row[DETAIL], 0.0), 1.0)
    value = 0.0
    if fade > 0:
        value = (pattern(kind, u, v, q, volume) - 0.5) * fade
    value = 0.5 + value * row[CONTRAST]
    stain = noise(volume, x * 1.7 + 5.3, y * 1.7 + 5.3, z * 1.7 + 5.3)
    shade = 1 + row[STAIN] * (stain - 0.5)
    for c in range(3):
        colour[c, i] = (row[c] + (row[3 + c] - row[c]) * value) * shade
