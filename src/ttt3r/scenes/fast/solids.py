"""Where the rays of a tile meet solids and the ground: `scenes.solids`, compiled.

Everything that loops over rays is float32 and free of branches, so that it becomes vector code.
"""

import math

import numpy as np

from ttt3r.scenes.fast.compiling import kernel
from ttt3r.scenes.fast.tables import BALL, BOX, COS, KIND, ROOM, SIN, TUBE
from ttt3r.scenes.solids import FAR as FARTHEST
from ttt3r.scenes.solids import NEAR as NEAREST

# Numbers of this type keep sums and products in float32; literals would make them float64.
ZERO, ONE = np.float32(0), np.float32(1)
NEAR, FAR = np.float32(NEAREST), np.float32(FARTHEST)
TINY, SMALLEST, THIN = np.float32(1e-9), np.float32(1e-12), np.float32(1e-6)
GROUND_REACH = 1e4
SAFE_STEPS, NEWTON_STEPS = 48, 6


@kernel
def meet(solid, tags, number, origin, rays, best, which, count):
    """Let one solid stop the rays that meet it before `best`.

    Args:
        solid: its row of `Tables.solids`.
        tags: its row of `Tables.tags`.
        number: what to note in `which`.
        origin: where all rays start [3].
        rays: directions [3, rays].
        best: distance to the nearest thing so far [rays], which is changed.
        which: what that is [rays], which is changed.
        count: how many rays there are.
    """
    c, s = solid[COS], solid[SIN]
    x, y, z = origin[0] - solid[0], origin[1] - solid[1], origin[2] - solid[2]
    start = (c * x - s * z, y, s * x + c * z)
    kind = tags[KIND]
    if kind == BOX:
        _box(solid, number, start, rays, best, which, count)
    elif kind == BALL:
        _ball(solid, number, start, rays, best, which, count)
    elif kind == TUBE:
        _tube(solid, number, start, rays, best, which, count)
    elif kind == ROOM:
        _room(solid, number, start, rays, best, which, count)


@kernel
def _note(t, hit, number, i, best, which):
    closer = hit and t < best[i]
    best[i] = t if closer else best[i]
    which[i] = number if closer else which[i]


@kernel
def _local(solid, rays, i):
    c, s = solid[COS], solid[SIN]
    return c * rays[0, i] - s * rays[2, i], rays[1, i], s * rays[0, i] + c * rays[2, i]


@kernel
def _between(half, start, step):
    """Where a ray enters and leaves the space between two opposite faces."""
    inverse = ONE / (TINY if abs(step) < TINY else step)
    middle, reach = -start * inverse, half * abs(inverse)
    return middle - reach, middle + reach


@kernel
def _slabs(solid, start, rays, i):
    """Where a ray enters and leaves a box."""
    dx, dy, dz = _local(solid, rays, i)
    enter, leave = _between(solid[3], start[0], dx)
    near, far = _between(solid[4], start[1], dy)
    enter, leave = max(enter, near), min(leave, far)
    near, far = _between(solid[5], start[2], dz)
    return max(enter, near), min(leave, far)


@kernel
def _box(solid, number, start, rays, best, which, count):
    for i in range(count):
        enter, leave = _slabs(solid, start, rays, i)
        _note(enter, (leave > enter) & (enter > NEAR), number, i, best, which)


@kernel
def _room(solid, number, start, rays, best, which, count):
    for i in range(count):
        enter, leave = _slabs(solid, start, rays, i)
        _note(leave, (leave > max(enter, NEAR)) & (enter < NEAR), number, i, best, which)


@kernel
def _ball(solid, number, start, rays, best, which, count):
    qx, qy, qz = ONE / max(solid[3], THIN), ONE / max(solid[4], THIN), ONE / max(solid[5], THIN)
    sx, sy, sz = start[0] * qx, start[1] * qy, start[2] * qz
    outside = sx * sx + sy * sy + sz * sz - ONE
    exists = solid[3] > ZERO
    for i in range(count):
        dx, dy, dz = _local(solid, rays, i)
        dx, dy, dz = dx * qx, dy * qy, dz * qz
        a, b = dx * dx + dy * dy + dz * dz, sx * dx + sy * dy + sz * dz
        discriminant = b * b - a * outside
        t = (-b - math.sqrt(max(discriminant, ZERO))) / a
        _note(t, (discriminant > ZERO) & (t > NEAR) & exists, number, i, best, which)


@kernel
def _tube(solid, number, start, rays, best, which, count):
    qx, qz = ONE / max(solid[3], THIN), ONE / max(solid[5], THIN)
    sx, sz = start[0] * qx, start[2] * qz
    outside = sx * sx + sz * sz - ONE
    exists = solid[3] > ZERO
    for i in range(count):
        dx, dy, dz = _local(solid, rays, i)
        near, far = _between(solid[4], start[1], dy)
        dx, dz = dx * qx, dz * qz
        a, b = max(dx * dx + dz * dz, SMALLEST), sx * dx + sz * dz
        discriminant = b * b - a * outside
        root = math.sqrt(max(discriminant, ZERO))
        enter, leave = max(near, (-b - root) / a), min(far, (-b + root) / a)
        hit = (discriminant > ZERO) & (leave > enter) & (enter > NEAR) & exists
        _note(enter, hit, number, i, best, which)


@kernel
def ground_height(waves, x, z):
    """Height of the ground over one place, and its slopes along x and z."""
    total, slope_x, slope_z = 0.0, 0.0, 0.0
    for i in range(len(waves)):
        kx, kz, amplitude = waves[i, 0], waves[i, 1], waves[i, 2]
        angle = kx * x + kz * z + waves[i, 3]
        total += amplitude * math.sin(angle)
        slope = amplitude * math.cos(angle)
        slope_x, slope_z = slope_x + slope * kx, slope_z + slope * kz
    return total, slope_x, slope_z


@kernel
def meet_ground(waves, number, origin, rays, best, which, count):
    """Let the ground stop the rays that meet it before `best`; see `meet`."""
    steepest, top = 0.0, 0.0
    for i in range(len(waves)):
        steepest += abs(waves[i, 2]) * math.hypot(waves[i, 0], waves[i, 1])
        top += abs(waves[i, 2])
    for i in range(count):
        t = _ground(waves, steepest, top, origin, rays, i, best[i])
        _note(np.float32(t), t > NEAR, number, i, best, which)


@kernel
def _ground(waves, steepest, top, origin, rays, i, best):
    """Distance to the ground, or 0 if it is not before `best`: safe steps, then Newton's method."""
    ox, oy, oz = origin[0], origin[1], origin[2]
    dx, dy, dz = float(rays[0, i]), float(rays[1, i]), float(rays[2, i])
    speed = max(dy + steepest * math.sqrt(dx * dx + dz * dz), 1e-6)
    if speed <= 1e-5:
        return 0.0
    t = max((-top - oy) / max(dy, 1e-6), 0.0)
    for _ in range(SAFE_STEPS if top > 0 else 0):
        if dy <= 0 and -(oy + t * dy) > top:  # upwards, above all hills
            return 0.0
        above = -(oy + t * dy) - ground_height(waves, ox + t * dx, oz + t * dz)[0]
        if t > best or above < 1e-4:  # what is nearer hides it; or there
            break
        t += above / speed
    if t > best:
        return 0.0
    for _ in range(NEWTON_STEPS if top > 0 else 0):
        level, slope_x, slope_z = ground_height(waves, ox + t * dx, oz + t * dz)
        above = -(oy + t * dy) - level
        rate = -dy - slope_x * dx - slope_z * dz
        t -= above / (-1e-6 if abs(rate) < 1e-6 else rate)
        if abs(above) < 1e-7:
            break
    level = ground_height(waves, ox + t * dx, oz + t * dz)[0]
    close = abs(-(oy + t * dy) - level) < 1e-3 + 1e-4 * t
    return t if close and t < GROUND_REACH else 0.0
