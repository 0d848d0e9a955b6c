"""Where rays meet boxes, ellipsoids, upright cylinders, the walls of a room and the ground.

Rays are `origin + t · direction` with directions of any length: with directions whose camera z is
1, t is the depth. The leading axis of everything is a batch of frames, each with solids of its own,
so that moving solids and mixed scenes need nothing special. Lengths are metres, y points down.

Boxes, balls and tubes are met from outside only: a ray that starts within one passes through it.
Rooms are met from inside only.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NEAR = 1e-3
FAR = 1e6


@dataclass(frozen=True)
class Solids:
    """Solids of one kind, in each frame of a batch.

    Attributes:
        centre: in the world.
        half: half the extent along each local axis; 0 for a solid that is only padding.
        turn: cosine and sine of the angle by which the solid is turned about the vertical.
        material: row of the material table.
        moving: 1 for solids that move in the world.
    """

    centre: Float[Tensor, "frames solids 3"]
    half: Float[Tensor, "frames solids 3"]
    turn: Float[Tensor, "frames solids 2"]
    material: Int[Tensor, "frames solids"]
    moving: Int[Tensor, "frames solids"]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Solids":
        """Apply `function` to every tensor."""
        return Solids(*(function(getattr(self, field.name)) for field in fields(self)))


@dataclass(frozen=True)
class Ground:
    """Rolling ground: height above 0 is a sum of plane waves, amplitude · sin(wave · xz + phase).

    Attributes:
        wave: wave vectors over (x, z), radians per metre.
        amplitude: metres; all 0 for a plane.
        phase: radians.
        material: row of the material table, -1 where a frame has no ground.
    """

    wave: Float[Tensor, "frames waves 2"]
    amplitude: Float[Tensor, "frames waves"]
    phase: Float[Tensor, "frames waves"]
    material: Int[Tensor, " frames"]

    @property
    def exists(self) -> bool:
        """Whether any frame has ground."""
        return bool((self.material >= 0).any())

    def map(self, function: Callable[[Tensor], Tensor]) -> "Ground":
        """Apply `function` to every tensor."""
        return Ground(*(function(getattr(self, field.name)) for field in fields(self)))


@dataclass(frozen=True)
class Geometry:
    """All that rays can meet in each frame of a batch.

    Attributes:
        boxes: solid boxes.
        balls: ellipsoids.
        tubes: elliptic cylinders along their local y axis, with caps.
        rooms: boxes seen from inside; face (2 · axis + side) shows material `material + face`.
        ground: rolling ground below everything.
    """

    boxes: Solids
    balls: Solids
    tubes: Solids
    rooms: Solids
    ground: Ground

    def map(self, function: Callable[[Tensor], Tensor]) -> "Geometry":
        """Apply `function` to every tensor."""
        return Geometry(*(getattr(self, field.name).map(function) for field in fields(self)))


@dataclass(frozen=True)
class Hits:
    """The first thing that each ray meets.

    Attributes:
        t: position along the ray; FAR where nothing is met.
        local: the point in the coordinates of what was met, in metres.
        face: axis of the local normal that is nearest, for textures on faces.
        normal: unit normal in the world, on the side that rays come from.
        material: row of the material table, -1 for nothing.
        moving: 1 where the surface moves.
    """

    t: Float[Tensor, "frames rays"]
    local: Float[Tensor, "frames rays 3"]
    face: Int[Tensor, "frames rays"]
    normal: Float[Tensor, "frames rays 3"]
    material: Int[Tensor, "frames rays"]
    moving: Int[Tensor, "frames rays"]


def to_local(
    solids: Solids,
    origin: Float[Tensor, "frames 1 3"],
    direction: Float[Tensor, "frames rays 3"],
) -> tuple[list[Tensor], list[Tensor]]:
    """Ray origins and directions in the frame of each solid, as x, y, z of [frames, solids, rays].

    What does not depend on the ray or the solid keeps an axis of length 1.
    """
    c, s = solids.turn[..., :1], solids.turn[..., 1:]
    x, y, z = (origin - solids.centre).unbind(-1)
    dx, dy, dz = direction[:, None].unbind(-1)
    start = [c * x[..., None] - s * z[..., None], y[..., None], s * x[..., None] + c * z[..., None]]
    return start, [c * dx - s * dz, dy, s * dx + c * dz]


def to_world(
    vector: Float[Tensor, "frames rays 3"], turn: Float[Tensor, "frames rays 2"]
) -> Float[Tensor, "frames rays 3"]:
    """Turn local vectors into the world."""
    (x, y, z), (c, s) = vector.unbind(-1), turn.unbind(-1)
    return torch.stack((c * x + s * z, y, c * z - s * x), -1)


def meet_boxes(
    solids: Solids, start: list[Tensor], step: list[Tensor], *, inside: bool
) -> Float[Tensor, "frames solids rays"]:
    """Distance to boxes from outside, or to the walls of rooms from inside."""
    enter, leave = _between(solids, start, step, 0)
    for axis in (1, 2):
        near, far = _between(solids, start, step, axis)
        enter, leave = torch.maximum(enter, near), torch.minimum(leave, far)
    if inside:
        hit = (leave > torch.maximum(enter, enter.new_tensor(NEAR))) & (enter < NEAR)
        return torch.where(hit, leave, FAR)
    return torch.where((leave > enter) & (enter > NEAR), enter, FAR)


def _between(
    solids: Solids, start: list[Tensor], step: list[Tensor], axis: int
) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the space between two opposite faces."""
    inverse = 1 / torch.where(step[axis].abs() < 1e-9, 1e-9, step[axis])
    middle, reach = -start[axis] * inverse, solids.half[..., axis, None] * inverse.abs()
    return middle - reach, middle + reach


def meet_balls(
    solids: Solids, start: list[Tensor], step: list[Tensor]
) -> Float[Tensor, "frames solids rays"]:
    """Distance to ellipsoids from outside."""
    scale = 1 / solids.half.clamp(min=1e-6)
    s = [v * scale[..., axis, None] for axis, v in enumerate(start)]
    d = [v * scale[..., axis, None] for axis, v in enumerate(step)]
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = s[0] * d[0] + s[1] * d[1] + s[2] * d[2]
    c = s[0] * s[0] + s[1] * s[1] + s[2] * s[2] - 1
    discriminant = b * b - a * c
    t = (-b - discriminant.clamp(min=0).sqrt()) / a
    exists = solids.half[..., :1] > 0
    return torch.where((discriminant > 0) & (t > NEAR) & exists, t, FAR)


def meet_tubes(
    solids: Solids, start: list[Tensor], step: list[Tensor]
) -> Float[Tensor, "frames solids rays"]:
    """Distance to cylinders from outside: the later of entering the slab and the round side."""
    half = solids.half
    near, far = _between(solids, start, step, 1)
    rx, rz = (1 / half[..., axis, None].clamp(min=1e-6) for axis in (0, 2))
    sx, sz, dx, dz = start[0] * rx, start[2] * rz, step[0] * rx, step[2] * rz
    a = (dx * dx + dz * dz).clamp(min=1e-12)
    b = sx * dx + sz * dz
    discriminant = b * b - a * (sx * sx + sz * sz - 1)
    root = discriminant.clamp(min=0).sqrt()
    enter = torch.maximum(near, (-b - root) / a)
    leave = torch.minimum(far, (-b + root) / a)
    exists = half[..., :1] > 0
    hit = (discriminant > 0) & (leave > enter) & (enter > NEAR) & exists
    return torch.where(hit, enter, FAR)


def height(ground: Ground, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Height of the ground over (x, z) of [frames, rays], and its slopes along x and z."""
    total, slope_x, slope_z = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for i in range(ground.wave.shape[1]):
        kx, kz = ground.wave[:, i, 0, None], ground.wave[:, i, 1, None]
        amplitude = ground.amplitude[:, i, None]
        angle = kx * x + kz * z + ground.phase[:, i, None]
        total = total + amplitude * angle.sin()
        slope = amplitude * angle.cos()
        slope_x, slope_z = slope_x + slope * kx, slope_z + slope * kz
    return total, slope_x, slope_z


def meet_ground(
    ground: Ground,
    origin: Float[Tensor, "frames 1 3"],
    direction: Float[Tensor, "frames rays 3"],
) -> Float[Tensor, "frames rays"]:
    """Distance to the ground, which lies at y = -height: safe steps, then Newton's method."""
    ox, oy, oz = origin.unbind(-1)
    dx, dy, dz = direction.unbind(-1)
    steepest = (ground.amplitude * torch.linalg.vector_norm(ground.wave, dim=-1)).sum(1)[:, None]
    top = ground.amplitude.abs().sum(1)[:, None]
    flat = torch.sqrt(dx * dx + dz * dz)
    speed = (dy + steepest * flat).clamp(min=1e-6)
    falls = (ground.material[:, None] >= 0) & (speed > 1e-5)
    t = ((-top - oy) / dy.clamp(min=1e-6)).clamp(min=0)
    waves = bool((ground.amplitude != 0).any())
    for _ in range(48 if waves else 0):
        above = -(oy + t * dy) - height(ground, ox + t * dx, oz + t * dz)[0]
        t = t + (above / speed).clamp(min=0)
    for _ in range(6 if waves else 0):
        level, slope_x, slope_z = height(ground, ox + t * dx, oz + t * dz)
        above = -(oy + t * dy) - level
        rate = -dy - slope_x * dx - slope_z * dz
        t = t - above / torch.where(rate.abs() < 1e-6, -1e-6, rate)
    level = height(ground, ox + t * dx, oz + t * dz)[0]
    close = (-(oy + t * dy) - level).abs() < 1e-3 + 1e-4 * t
    return torch.where(falls & (t > NEAR) & (t < 1e4) & close, t, FAR)


def nearest(
    geometry: Geometry,
    origin: Float[Tensor, "frames 1 3"],
    direction: Float[Tensor, "frames rays 3"],
) -> tuple[Float[Tensor, "frames rays"], Int[Tensor, "frames rays"]]:
    """Distance to the first surface, and which it is: an index over all solids in order.

    The order is boxes, balls, tubes, rooms, ground.
    """
    t = torch.full_like(direction[..., 0], FAR)
    index = torch.zeros_like(t, dtype=torch.int64)
    offset = 0
    for solids, kind in _kinds(geometry):
        if solids.half.shape[1]:
            found = _meet(kind, solids, *to_local(solids, origin, direction)).min(dim=1)
            closer = found.values < t
            t = torch.where(closer, found.values, t)
            index = torch.where(closer, found.indices + offset, index)
        offset += solids.half.shape[1]
    if geometry.ground.exists:
        found = meet_ground(geometry.ground, origin, direction)
        index = torch.where(found < t, offset, index)
        t = torch.minimum(found, t)
    return t, index


def blocked(
    geometry: Geometry,
    light: Float[Tensor, "frames 1 3"],
    point: Float[Tensor, "frames rays 3"],
) -> Bool[Tensor, "frames rays"]:
    """Whether a solid stands between a light and each point; rooms cast no shadow."""
    direction = point - light
    shadow = torch.zeros_like(direction[..., 0], dtype=torch.bool)
    for solids, kind in _kinds(geometry):
        if kind != "room" and solids.half.shape[1]:
            met = _meet(kind, solids, *to_local(solids, light, direction))
            shadow |= met.amin(dim=1) < 1
    return shadow


def _kinds(geometry: Geometry) -> tuple[tuple[Solids, str], ...]:
    return (
        (geometry.boxes, "box"),
        (geometry.balls, "ball"),
        (geometry.tubes, "tube"),
        (geometry.rooms, "room"),
    )


def _meet(kind: str, solids: Solids, start: list[Tensor], step: list[Tensor]) -> Tensor:
    if kind == "ball":
        return meet_balls(solids, start, step)
    if kind == "tube":
        return meet_tubes(solids, start, step)
    return meet_boxes(solids, start, step, inside=kind == "room")


def trace(
    geometry: Geometry,
    origin: Float[Tensor, "frames 1 3"],
    direction: Float[Tensor, "frames rays 3"],
) -> Hits:
    """Follow rays to the first surface and describe it."""
    groups = [solids for solids, _ in _kinds(geometry)]
    if not any(solids.half.shape[1] for solids in groups):  # one of no extent, to choose from
        padding = geometry.boxes.map(lambda x: x.new_zeros(len(x), 1, *x.shape[2:]))
        return trace(replace(geometry, boxes=padding), origin, direction)
    t, index = nearest(geometry, origin, direction)
    counts = [solids.half.shape[1] for solids in groups]
    total = sum(counts)
    is_ground = index >= total
    pick = index.clamp(max=total - 1)
    joined = Solids(
        *(torch.cat([getattr(s, f.name) for s in groups], 1) for f in fields(Solids))
    ).map(lambda x: _gather(x, pick))
    point = origin + t[..., None] * direction
    back = joined.turn * joined.turn.new_tensor((1.0, -1.0))
    local = to_world(point - joined.centre, back)
    relative = local / joined.half.clamp(min=1e-6)
    first_ball, first_tube, first_room = counts[0], counts[0] + counts[1], total - counts[3]
    is_ball = (pick >= first_ball) & (pick < first_tube)
    is_tube = (pick >= first_tube) & (pick < first_room)
    is_room = (pick >= first_room) & ~is_ground
    axis = relative.abs().argmax(-1)
    flat = torch.nn.functional.one_hot(axis, 3) * relative.sign()
    slant = relative / joined.half.clamp(min=1e-6)
    round_side = slant * slant.new_tensor((1.0, 0.0, 1.0))
    on_cap = (relative[..., 1].abs() > 1 - 1e-4)[..., None]
    cap = relative.sign() * relative.new_tensor((0.0, 1.0, 0.0))
    normal = torch.where(is_ball[..., None], slant, flat)
    normal = torch.where(is_tube[..., None], torch.where(on_cap, cap, round_side), normal)
    normal = torch.where(is_room[..., None], -flat, normal)
    normal = to_world(normal, joined.turn)
    if geometry.ground.exists:
        _, slope_x, slope_z = height(geometry.ground, point[..., 0], point[..., 2])
        upwards = torch.stack((-slope_x, -torch.ones_like(slope_x), -slope_z), -1)
        normal = torch.where(is_ground[..., None], upwards, normal)
    face_of_room = 2 * axis + (relative.gather(-1, axis[..., None])[..., 0] > 0)
    material = joined.material + torch.where(is_room, face_of_room, 0)
    material = torch.where(is_ground, geometry.ground.material[:, None], material)
    return Hits(
        t=t,
        local=torch.where(is_ground[..., None], point, local),
        face=torch.where(is_ground, 1, axis),
        normal=torch.nn.functional.normalize(normal, dim=-1),
        material=torch.where(t < FAR / 2, material, -1),
        moving=torch.where(is_ground | (t > FAR / 2), 0, joined.moving),
    )


def _gather(values: Tensor, index: Int[Tensor, "frames rays"]) -> Tensor:
    """Rows of `values` [frames, solids, ...] chosen by `index`."""
    frames = torch.arange(len(values), device=values.device)[:, None]
    return values[frames, index]
