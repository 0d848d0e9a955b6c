"""Turns geometry, materials and lights into linear light and exact depth."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.geometry.camera import unproject
from ttt3r.scenes.solids import FAR, Geometry, Hits, Solids, blocked, trace
from ttt3r.scenes.textures import Materials, albedo

CPU_RAYS = 4096
GPU_RAYS = 65536
SMALL = 0.06  # half the extent, metres, up to which a solid casts no shadow


@dataclass(frozen=True)
class Lighting:
    """Lights of a scene.

    Attributes:
        lights: positions in the world; the first casts shadows, the others only fill.
        colour: of the lights.
        direct: strength of the lights together.
        ambient: strength of light from everywhere.
        sky: what a ray sees that meets nothing.
        falloff: how fast light fades with distance, 1 / metre.
    """

    lights: Float[Tensor, "lights 3"]
    colour: Float[Tensor, "3"]
    direct: float
    ambient: float
    sky: Float[Tensor, "3"]
    falloff: float

    def to(self, device: torch.device | str) -> "Lighting":
        """Move to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("lights", "colour", "sky")}
        return replace(self, **moved)


def pixel_rays(
    intrinsics: Float[Tensor, "3 3"], size: tuple[int, int]
) -> Float[Tensor, "pixels 3"]:
    """Camera rays through pixel centres, with z = 1."""
    return unproject(torch.ones(size, device=intrinsics.device), intrinsics).flatten(0, 1)


def keep(solids: Solids, wanted: Bool[Tensor, "frames solids"]) -> Solids:
    """Only the wanted solids of each frame, padded to the largest count."""
    count = int(wanted.sum(1).max()) if wanted.numel() else 0
    order = wanted.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    frames = torch.arange(len(order), device=order.device)[:, None]
    kept = solids.map(lambda x: x[frames, order])
    return replace(kept, half=kept.half * wanted[frames, order][..., None])


def in_view(
    solids: Solids, poses: Float[Tensor, "frames 4 4"], spread: float
) -> Bool[Tensor, "frames solids"]:
    """Whether a solid's bounding ball reaches into the cone of tangent `spread` around the view."""
    radius = torch.linalg.vector_norm(solids.half, dim=-1)
    offset = solids.centre - poses[:, None, :3, 3]
    along = (offset * poses[:, None, :3, 2]).sum(-1)
    across = (offset.square().sum(-1) - along.square()).clamp(min=0).sqrt()
    margin = radius * (1 + spread * spread) ** 0.5
    return (across <= along.clamp(min=0) * spread + margin) & (along > -radius) & (radius > 0)


def _culled(
    geometry: Geometry, choose: Callable[[Solids], Bool[Tensor, "frames solids"]]
) -> Geometry:
    """Only the solids that `choose` wants; rooms and ground stay."""
    return replace(
        geometry,
        boxes=keep(geometry.boxes, choose(geometry.boxes)),
        balls=keep(geometry.balls, choose(geometry.balls)),
        tubes=keep(geometry.tubes, choose(geometry.tubes)),
    )


def shade(
    hits: Hits,
    point: Float[Tensor, "frames rays 3"],
    view: Float[Tensor, "frames rays 3"],
    colour: Float[Tensor, "frames rays 3"],
    casters: Geometry,
    lighting: Lighting,
) -> Float[Tensor, "frames rays 3"]:
    """Diffuse light: of every lamp, with shadows of the first, and from all around.

    Args:
        hits: what the rays met.
        point: where.
        view: unit directions of the rays.
        colour: of the surfaces.
        casters: solids that cast shadows.
        lighting: the lights.
    """
    facing = (hits.normal * view).sum(-1, keepdim=True) > 0
    normal = torch.where(facing, -hits.normal, hits.normal)
    total = lighting.ambient * (0.75 - 0.25 * normal[..., 1:2]) * colour
    share = lighting.direct / len(lighting.lights)
    for number, light in enumerate(lighting.lights):
        towards = light - point
        distance = torch.linalg.vector_norm(towards, dim=-1, keepdim=True)
        cosine = ((normal * towards).sum(-1, keepdim=True) / distance).clamp(min=0)
        bright = share * 1.6 * cosine / (1 + (lighting.falloff * distance).square() * 0.3)
        if number == 0:
            dark = blocked(casters, light.expand(len(point), 1, 3), point + 3e-3 * normal)
            bright = bright * (1 - 0.85 * dark[..., None].float())
        total = total + bright * colour * lighting.colour
    return total


@dataclass(frozen=True)
class Rendering:
    """What the pixels of some frames see.

    Attributes:
        light: linear RGB.
        depth: z in the camera's frame, metres; 0 where there is nothing.
        moving: whether it moves in the world.
    """

    light: Float[Tensor, "frames 3 h w"]
    depth: Float[Tensor, "frames h w"]
    moving: Bool[Tensor, "frames h w"]


def render(
    geometry: Geometry,
    materials: Materials,
    lighting: Lighting,
    volume: Float[Tensor, "cells cells cells"],
    poses: Float[Tensor, "frames 4 4"],
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
    *,
    frames_at_once: int | None = None,
    rays_at_once: int | None = None,
) -> Rendering:
    """Follow one ray through each pixel's centre.

    Args:
        geometry: solids of each frame.
        materials: materials of each frame.
        lighting: lights of all frames.
        volume: a periodic cube of random numbers in [0, 1], for textures.
        poses: world from camera.
        intrinsics: of all frames.
        size: (height, width).
        frames_at_once: how many are computed together; by default one on a CPU, all on a GPU.
        rays_at_once: how many per frame are; by default as many as are fast.
    """
    cpu = poses.device.type == "cpu"
    frame_step = frames_at_once or (1 if cpu else len(poses))
    ray_step = rays_at_once or (CPU_RAYS if cpu else GPU_RAYS)
    rays = pixel_rays(intrinsics, size)
    spread = float(torch.linalg.vector_norm(rays[:, :2], dim=-1).max())
    pixel = float(1 / intrinsics[0, 0])
    outputs: list[_Seen] = []
    for first in range(0, len(poses), frame_step):
        some = slice(first, first + frame_step)
        pose, table = poses[some], materials.map(lambda x, some=some: x[some])
        here = geometry.map(lambda x, some=some: x[some])
        casters = _culled(here, lambda solids: solids.half.amax(-1) > SMALL)
        here = _culled(here, lambda solids, pose=pose: in_view(solids, pose, spread))
        row = [
            _look(here, casters, table, lighting, volume, pose, part, pixel)
            for part in rays.split(ray_step)
        ]
        outputs.append(_joined(row, 1))
    light, depth, moving = _joined(outputs, 0)
    return Rendering(
        light.movedim(-1, 1).unflatten(2, size),
        depth.unflatten(1, size),
        moving.unflatten(1, size),
    )


class _Seen(NamedTuple):
    """Light [frames, rays, 3], depth and motion [frames, rays]."""

    light: Tensor
    depth: Tensor
    moving: Tensor


def _joined(parts: list[_Seen], dim: int) -> _Seen:
    light, depth, moving = (torch.cat(column, dim) for column in zip(*parts, strict=True))
    return _Seen(light, depth, moving)


def _look(
    geometry: Geometry,
    casters: Geometry,
    materials: Materials,
    lighting: Lighting,
    volume: Float[Tensor, "cells cells cells"],
    pose: Float[Tensor, "frames 4 4"],
    rays: Float[Tensor, "rays 3"],
    pixel: float,
) -> _Seen:
    """Follow some of the camera's rays; `pixel` is the width of one at distance 1."""
    direction = rays @ pose[:, :3, :3].transpose(1, 2)
    hits = trace(geometry, pose[:, None, :3, 3], direction)
    length = torch.linalg.vector_norm(direction, dim=-1)
    view = direction / length[..., None]
    slant = (hits.normal * view).sum(-1).abs().clamp(min=0.15)
    footprint = hits.t.clamp(max=1e3) * pixel / slant
    colour, glow = albedo(materials, hits.material, hits.local, hits.face, footprint, volume)
    point = pose[:, None, :3, 3] + hits.t.clamp(max=1e3)[..., None] * direction
    light = shade(hits, point, view, colour, casters, lighting)
    light = light + glow[..., None] * colour
    nothing = hits.t > FAR / 2
    high = (1.1 + 0.5 * view[..., 1:2]).clamp(0.5, 1.1)
    light = torch.where(nothing[..., None], lighting.sky * high, light)
    return _Seen(light, torch.where(nothing, 0.0, hits.t), hits.moving > 0)
