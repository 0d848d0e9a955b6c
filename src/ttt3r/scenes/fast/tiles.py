"""A frame, tile by tile: small enough for fast memory, and most solids miss the whole tile."""

import math
from typing import NamedTuple

import numpy as np

from ttt3r.scenes.fast.compiling import entry, kernel, sources_digest
from ttt3r.scenes.fast.shading import describe, shade
from ttt3r.scenes.fast.solids import FAR, ONE, meet, meet_ground
from ttt3r.scenes.fast.tables import CASTS, KIND, RADIUS, ROOM

SIDE = 16
RAYS = SIDE * SIDE


class Tile(NamedTuple):
    """What is known of the rays of one tile; space that one thread uses again and again.

    Attributes:
        rays: [3, rays] directions, with camera z = 1.
        best: [rays] distance to the nearest thing.
        which: [rays], int32: which solid that is; their number stands for the ground, -1 for none.
        point: [3, rays] where the rays end, in the world.
        normal: [3, rays] of the surface, unit length, towards the camera.
        colour: [3, rays] of the surface.
        glow: [rays] light that it gives off itself.
        beams: [3, rays] from the first lamp to the points.
        lit: [rays] how far along the beam light comes: 1 reaches the point.
        blocker: [rays], int32: which solid is in between; -1 for none.
    """

    rays: np.ndarray
    best: np.ndarray
    which: np.ndarray
    point: np.ndarray
    normal: np.ndarray
    colour: np.ndarray
    glow: np.ndarray
    beams: np.ndarray
    lit: np.ndarray
    blocker: np.ndarray


def new_tile() -> Tile:
    """Space for one thread."""
    vector, number = np.empty((5, 3, RAYS), np.float32), np.empty((3, RAYS), np.float32)
    index = np.empty((2, RAYS), np.int32)
    return Tile(
        rays=vector[0],
        best=number[0],
        which=index[0],
        point=vector[1],
        normal=vector[2],
        colour=vector[3],
        glow=number[1],
        beams=vector[4],
        lit=number[2],
        blocker=index[1],
    )


@kernel
def _aim(pose, camera, top, left, rows, columns, tile):
    """Rays through the pixels of a tile; returns their mean direction and how wide they spread.

    The spread is the tangent of the angle between the mean and the outermost ray.
    """
    rays = tile.rays
    sum_x, sum_y, sum_z = 0.0, 0.0, 0.0
    for row in range(rows):
        y = (np.float32(top + row) - camera[3]) / camera[1]
        for column in range(columns):
            x = (np.float32(left + column) - camera[2]) / camera[0]
            i = row * columns + column
            for axis in range(3):
                rays[axis, i] = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2]
            sum_x += rays[0, i]
            sum_y += rays[1, i]
            sum_z += rays[2, i]
            tile.best[i] = FAR
            tile.which[i] = -1
    length = math.sqrt(sum_x * sum_x + sum_y * sum_y + sum_z * sum_z)
    axis = (sum_x / length, sum_y / length, sum_z / length)
    least = 1.0
    for i in range(rows * columns):
        x, y, z = float(rays[0, i]), float(rays[1, i]), float(rays[2, i])
        along = x * axis[0] + y * axis[1] + z * axis[2]
        least = min(least, along / math.sqrt(x * x + y * y + z * z))
    sine = math.sqrt(max(1 - least * least, 0.0)) + 1e-4
    return axis, sine / max(least, 1e-3)


@kernel
def _find(solids, tags, waves, floor, origin, axis, spread, tile, count):
    """The first thing on each ray; solids whose ball misses the tile's cone are left out."""
    slope = math.sqrt(1 + spread * spread)
    for number in range(len(solids)):
        solid, radius = solids[number], float(solids[number, RADIUS])
        if radius <= 0:
            continue
        if tags[number, KIND] != ROOM:
            x, y, z = solid[0] - origin[0], solid[1] - origin[1], solid[2] - origin[2]
            along = x * axis[0] + y * axis[1] + z * axis[2]
            across = math.sqrt(max(x * x + y * y + z * z - along * along, 0.0))
            if along < -radius or across > max(along, 0.0) * spread + radius * slope:
                continue
        meet(solid, tags[number], number, origin, tile.rays, tile.best, tile.which, count)
    if floor >= 0:
        meet_ground(waves, len(solids), origin, tile.rays, tile.best, tile.which, count)


@kernel
def _bounds(tile, count):
    """Middle of the points of a tile, and the radius of a ball around all of them."""
    x, y, z, hits, most = 0.0, 0.0, 0.0, 0, 0.0
    for i in range(count):
        if tile.which[i] >= 0:
            x, y, z = x + tile.point[0, i], y + tile.point[1, i], z + tile.point[2, i]
            hits += 1
    x, y, z = x / max(hits, 1), y / max(hits, 1), z / max(hits, 1)
    for i in range(count):
        if tile.which[i] >= 0:
            a, b, c = tile.point[0, i] - x, tile.point[1, i] - y, tile.point[2, i] - z
            most = max(most, a * a + b * b + c * c)
    return (x, y, z), math.sqrt(most) + 1e-2, hits > 0


@kernel
def _darken(solids, tags, lamp, tile, count):
    """Which solid stands between the first lamp and each point, if any."""
    middle, reach, any_hit = _bounds(tile, count)
    if not any_hit:
        return
    for i in range(count):
        tile.lit[i] = ONE
        tile.blocker[i] = -1
        for axis in range(3):
            lifted = tile.point[axis, i] + np.float32(3e-3) * tile.normal[axis, i]
            tile.beams[axis, i] = lifted - lamp[axis]
    bx, by, bz = middle[0] - lamp[0], middle[1] - lamp[1], middle[2] - lamp[2]
    length = bx * bx + by * by + bz * bz + 1e-12
    for number in range(len(solids)):
        solid = solids[number]
        if tags[number, CASTS] == 0:
            continue
        x, y, z = solid[0] - lamp[0], solid[1] - lamp[1], solid[2] - lamp[2]
        share = min(max((x * bx + y * by + z * bz) / length, 0.0), 1.0)
        x, y, z = x - share * bx, y - share * by, z - share * bz
        if math.sqrt(x * x + y * y + z * z) <= solid[RADIUS] + reach:
            meet(solid, tags[number], number, lamp, tile.beams, tile.lit, tile.blocker, count)


def _renderer(digest: str):
    """The function that Python calls; `digest` is only part of its name in the cache."""

    @entry
    def render_rows(tables, frame, first, last, tile, light, depth, moving):
        """Write rows `first` to `last` of one frame, whole tiles but for the image's end.

        Args:
            tables: the scene.
            frame: which one.
            first: first row, a multiple of `SIDE`.
            last: row after the last.
            tile: space to compute in.
            light: [3, height, width] is written.
            depth: [height, width] is written.
            moving: [height, width], bool, is written.
        """
        len(digest)
        solids, tags = tables.solids[frame], tables.tags[frame]
        waves, floor, pose = tables.ground[frame], tables.floor[frame], tables.poses[frame]
        origin = pose[:3, 3].copy()
        width = depth.shape[1]
        for top in range(first, last, SIDE):
            for left in range(0, width, SIDE):
                rows, columns = min(SIDE, last - top), min(SIDE, width - left)
                count = rows * columns
                axis, spread = _aim(pose, tables.camera, top, left, rows, columns, tile)
                _find(solids, tags, waves, floor, origin, axis, spread, tile, count)
                describe(tables, frame, origin, tile, count)
                _darken(solids, tags, tables.lamps[0], tile, count)
                shade(tables, tile, count)
                for i in range(count):
                    row, column = top + i // columns, left + i % columns
                    number = tile.which[i]
                    depth[row, column] = tile.best[i] if number >= 0 else 0
                    moving[row, column] = 0 <= number < len(tags) and tags[number, 2] > 0
                    for c in range(3):
                        light[c, row, column] = tile.colour[c, i]

    return render_rows


render_rows = _renderer(sources_digest())
