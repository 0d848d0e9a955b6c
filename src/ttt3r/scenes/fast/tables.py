"""A scene as plain arrays, which is what compiled code can read."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ttt3r.scenes.render import SMALL, Lighting
from ttt3r.scenes.solids import Geometry, Solids
from ttt3r.scenes.textures import PATTERNS, Materials

BOX, BALL, TUBE, ROOM = range(4)  # in the order in which `solids.nearest` looks at them
# Columns of `Tables.solids`; centre and half extents come first, three each.
COS, SIN, RADIUS = 6, 7, 8
# Columns of `Tables.tags`.
KIND, MATERIAL, MOVING, CASTS = range(4)
# Columns of `Tables.materials` after the two colours.
SCALE, CONTRAST, STAIN, GLOW, DETAIL = range(6, 11)
# Entries of `Tables.light` after the colours of lamps and sky.
DIRECT, AMBIENT, FALLOFF = range(6, 9)


class Tables(NamedTuple):
    """What the kernels read; float32 where nothing else is said.

    Attributes:
        solids: [frames, solids, 9] centre, half extents, cosine and sine of the turn, radius of
            the ball around it, which is 0 for padding.
        tags: [frames, solids, 4], int64: kind, material, whether it moves, whether it casts shadow.
        ground: [frames, waves, 4] wave vector, amplitude, phase.
        floor: [frames], int64: material of the ground, -1 for none.
        patterns: [frames, materials], int64: index into `textures.PATTERNS`.
        materials: [frames, materials, 11] two colours, scale, contrast, stain, glow, and the finest
            detail of the pattern.
        lamps: [lamps, 3] positions.
        light: [9] colour of the lamps, of the sky, direct, ambient, falloff.
        volume: [cells, cells, cells] random numbers.
        poses: [frames, 4, 4] world from camera.
        camera: [4] fx, fy, cx, cy.
    """

    solids: np.ndarray
    tags: np.ndarray
    ground: np.ndarray
    floor: np.ndarray
    patterns: np.ndarray
    materials: np.ndarray
    lamps: np.ndarray
    light: np.ndarray
    volume: np.ndarray
    poses: np.ndarray
    camera: np.ndarray


def pack(
    geometry: Geometry,
    materials: Materials,
    lighting: Lighting,
    volume: Tensor,
    poses: Tensor,
    intrinsics: Tensor,
) -> Tables:
    """Gather the arguments of `render.render` into tables."""
    kinds = (geometry.boxes, geometry.balls, geometry.tubes, geometry.rooms)
    rows = [_solids(solids, kind) for kind, solids in enumerate(kinds)]
    ground = geometry.ground
    waves = torch.cat((ground.wave, ground.amplitude[..., None], ground.phase[..., None]), 2)
    details = torch.tensor([detail for _, detail in PATTERNS])
    one = ("scale", "contrast", "stain", "glow")
    numbers = [getattr(materials, name)[..., None] for name in one]
    numbers = [materials.first, materials.second, *numbers, details[materials.pattern][..., None]]
    scalars = torch.tensor([lighting.direct, lighting.ambient, lighting.falloff])
    return Tables(
        solids=_array(torch.cat([solids for solids, _ in rows], 1)),
        tags=_array(torch.cat([tags for _, tags in rows], 1), np.int64),
        ground=_array(waves),
        floor=_array(ground.material, np.int64),
        patterns=_array(materials.pattern, np.int64),
        materials=_array(torch.cat(numbers, 2)),
        lamps=_array(lighting.lights),
        light=_array(torch.cat((lighting.colour, lighting.sky, scalars))),
        volume=_array(volume),
        poses=_array(poses),
        camera=_array(intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]),
    )


def _solids(solids: Solids, kind: int) -> tuple[Tensor, Tensor]:
    """Rows of `Tables.solids` and `Tables.tags` for solids of one kind."""
    radius = torch.linalg.vector_norm(solids.half, dim=-1, keepdim=True)
    casts = (solids.half > SMALL).any(-1) & (kind != ROOM)
    same = torch.full_like(solids.material, kind)
    tags = torch.stack((same, solids.material, (solids.moving > 0).long(), casts.long()), -1)
    return torch.cat((solids.centre, solids.half, solids.turn, radius), -1), tags


def _array(values: Tensor, kind: type = np.float32) -> np.ndarray:
    return np.ascontiguousarray(values.numpy(), dtype=kind)
