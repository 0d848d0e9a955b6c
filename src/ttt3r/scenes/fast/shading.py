"""What rays of a tile ended on, and the light that comes from there: `render.shade`, compiled."""

import math

import numpy as np

from ttt3r.scenes.fast.compiling import kernel
from ttt3r.scenes.fast.solids import ground_height
from ttt3r.scenes.fast.tables import (
    AMBIENT,
    BALL,
    COS,
    DIRECT,
    FALLOFF,
    GLOW,
    KIND,
    MATERIAL,
    ROOM,
    SIN,
    TUBE,
)
from ttt3r.scenes.fast.textures import paint

REACH = np.float32(1e3)  # metres to which points are told apart
THIN = np.float32(1e-6)


@kernel
def _sign(x):
    return 1.0 if x > 0 else (-1.0 if x < 0 else 0.0)


@kernel
def _on_solid(solid, tags, point):
    """The point in the solid's coordinates, the face, the normal in the world, the material."""
    c, s = solid[COS], solid[SIN]
    x, y, z = point[0] - solid[0], point[1] - solid[1], point[2] - solid[2]
    local = (c * x - s * z, y, s * x + c * z)
    hx, hy, hz = max(solid[3], THIN), max(solid[4], THIN), max(solid[5], THIN)
    rx, ry, rz = local[0] / hx, local[1] / hy, local[2] / hz
    face, reach = 0, rx
    if abs(ry) > abs(reach):
        face, reach = 1, ry
    if abs(rz) > abs(reach):
        face, reach = 2, rz
    kind, material = tags[KIND], tags[MATERIAL]
    side = _sign(reach)
    nx, ny, nz = 0.0, 0.0, 0.0
    if kind == BALL:
        nx, ny, nz = rx / hx, ry / hy, rz / hz
    elif kind == TUBE:
        if abs(ry) > 1 - 1e-4:
            ny = _sign(ry)
        else:
            nx, nz = rx / hx, rz / hz
    else:
        if kind == ROOM:
            material += 2 * face + (1 if reach > 0 else 0)
            side = -side
        nx, ny, nz = side * (face == 0), side * (face == 1), side * (face == 2)
    return local, face, (c * nx + s * nz, ny, c * nz - s * nx), material


@kernel
def describe(tables, frame, origin, tile, count):
    """Fill in point, normal, colour and glow of all rays of a tile."""
    solids, tags, waves = tables.solids[frame], tables.tags[frame], tables.ground[frame]
    rays, pixel = tile.rays, 1 / float(tables.camera[0])
    for i in range(count):
        t = tile.best[i]
        near = min(t, REACH)
        for axis in range(3):
            tile.point[axis, i] = origin[axis] + near * rays[axis, i]
            tile.normal[axis, i] = 0
        number = tile.which[i]
        if number < 0:
            continue
        point = (origin[0] + t * rays[0, i], origin[1] + t * rays[1, i], origin[2] + t * rays[2, i])
        if number < len(solids):
            local, face, normal, material = _on_solid(solids[number], tags[number], point)
        else:
            _, slope_x, slope_z = ground_height(waves, point[0], point[2])
            local, face, normal, material = (
                point,
                1,
                (-slope_x, -1.0, -slope_z),
                tables.floor[frame],
            )
        nx, ny, nz = normal
        length = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
        dx, dy, dz = float(rays[0, i]), float(rays[1, i]), float(rays[2, i])
        facing = (nx * dx + ny * dy + nz * dz) / length
        flip = -1 / length if facing > 0 else 1 / length
        tile.normal[0, i], tile.normal[1, i], tile.normal[2, i] = nx * flip, ny * flip, nz * flip
        slant = max(abs(facing) / math.sqrt(dx * dx + dy * dy + dz * dz), 0.15)
        footprint = near * pixel / slant
        row = tables.materials[frame, material]
        kind = tables.patterns[frame, material]
        paint(kind, row, local, face, footprint, tables.volume, tile.colour, i)
        tile.glow[i] = row[GLOW]


@kernel
def _direct(tables, tile, i):
    """Light of all lamps on one point, of a white surface and white lamps."""
    light, total = tables.light, 0.0
    share = light[DIRECT] / len(tables.lamps)
    for lamp in range(len(tables.lamps)):
        x = tables.lamps[lamp, 0] - tile.point[0, i]
        y = tables.lamps[lamp, 1] - tile.point[1, i]
        z = tables.lamps[lamp, 2] - tile.point[2, i]
        distance = math.sqrt(x * x + y * y + z * z)
        along = x * tile.normal[0, i] + y * tile.normal[1, i] + z * tile.normal[2, i]
        faded = light[FALLOFF] * distance
        bright = share * 1.6 * max(along / distance, 0.0) / (1 + faded * faded * 0.3)
        if lamp == 0 and tile.blocker[i] >= 0:
            bright *= 0.15
        total += bright
    return total


@kernel
def shade(tables, tile, count):
    """Turn the colours of a tile's surfaces into light; rays that end nowhere see the sky."""
    light = tables.light
    for i in range(count):
        if tile.which[i] < 0:
            x, y, z = float(tile.rays[0, i]), float(tile.rays[1, i]), float(tile.rays[2, i])
            high = 1.1 + 0.5 * y / math.sqrt(x * x + y * y + z * z)
            for c in range(3):
                tile.colour[c, i] = light[3 + c] * min(max(high, 0.5), 1.1)
            continue
        around = light[AMBIENT] * (0.75 - 0.25 * tile.normal[1, i]) + tile.glow[i]
        direct = _direct(tables, tile, i)
        for c in range(3):
            tile.colour[c, i] *= around + direct * light[c]
