"""Slow, readable twins: solids as predicates, and rays that feel their way in small steps.

Everything is float64 numpy, for one frame. `inside` is true of points that a ray cannot pass:
within a box, ball or tube, beyond the walls of a room, below the ground.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ttt3r.scenes.layout import turned
from ttt3r.scenes.solids import FAR, Geometry, Ground, Solids

Inside = Callable[[np.ndarray], np.ndarray]
SHAPES: dict[str, Inside] = {
    "boxes": lambda p: (np.abs(p) < 1).all(-1),
    "balls": lambda p: (p**2).sum(-1) < 1,
    "tubes": lambda p: (np.abs(p[..., 1]) < 1) & ((p[..., [0, 2]] ** 2).sum(-1) < 1),
    "rooms": lambda p: (np.abs(p) > 1).any(-1),
}


@dataclass(frozen=True)
class Thing:
    """One solid or the ground, with what a hit on it should report."""

    kind: str
    inside: Inside
    material: int
    moving: bool


def things(geometry: Geometry, frame: int = 0) -> list[Thing]:
    """Everything in one frame."""
    found = []
    for kind, shape in SHAPES.items():
        solids: Solids = getattr(geometry, kind)
        for i in range(solids.half.shape[1]):
            centre, half, turn = (
                getattr(solids, name)[frame, i].double().numpy()
                for name in ("centre", "half", "turn")
            )
            if half.max() == 0:
                continue
            rotation = turned(np.arctan2(turn[1], turn[0]))  # world from local

            def inside(p, shape=shape, centre=centre, half=half, rotation=rotation):
                return shape((p - centre) @ rotation / half)

            material, moving = int(solids.material[frame, i]), bool(solids.moving[frame, i])
            found.append(Thing(kind, inside, material, moving))
    if geometry.ground.exists and geometry.ground.material[frame] >= 0:
        material = int(geometry.ground.material[frame])
        ground = geometry.ground

        def below(p):
            return -p[..., 1] < height(ground, p[..., 0], p[..., 2], frame)

        found.append(Thing("ground", below, material, False))
    return found


def height(ground: Ground, x: np.ndarray, z: np.ndarray, frame: int = 0) -> np.ndarray:
    wave, amplitude, phase = (
        getattr(ground, name)[frame].double().numpy() for name in ("wave", "amplitude", "phase")
    )
    angle = x[..., None] * wave[:, 0] + z[..., None] * wave[:, 1] + phase
    return (amplitude * np.sin(angle)).sum(-1)


def first_inside(
    inside: Inside, origin: np.ndarray, direction: np.ndarray, reach: float, steps: int = 6000
) -> np.ndarray:
    """Where rays [n, 3] first get inside, by small steps and then by halving; FAR if never."""
    t = np.linspace(0, reach, steps + 1)
    found = np.full(len(direction), FAR)
    for i, ray in enumerate(direction):
        felt = inside(origin + t[:, None] * ray)
        if felt.any() and not felt[0]:
            high = t[felt.argmax()]
            low = high - t[1]
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (low, middle) if inside(origin + middle * ray) else (middle, high)
            found[i] = high
    return found


def solids_of(items: Sequence[tuple], frames: int = 1) -> Solids:
    """Solids of (centre, half, yaw) or (centre, half, yaw, material, moving), in each frame."""
    rows = [(*item, 0, 0)[:5] if len(item) == 3 else item for item in items]
    shape = (frames, len(rows))
    yaw = torch.tensor([row[2] for row in rows], dtype=torch.float64)
    return Solids(
        torch.tensor([row[0] for row in rows]).float().expand(*shape, 3),
        torch.tensor([row[1] for row in rows]).float().expand(*shape, 3),
        torch.stack((yaw.cos(), yaw.sin()), -1).float().expand(*shape, 2),
        torch.tensor([row[3] for row in rows]).expand(shape),
        torch.tensor([row[4] for row in rows]).expand(shape),
    )


def nothing(frames: int = 1) -> Solids:
    """No solids at all."""
    empty = torch.zeros(frames, 0)
    return Solids(
        empty[..., None].expand(frames, 0, 3),
        empty[..., None].expand(frames, 0, 3),
        empty[..., None].expand(frames, 0, 2),
        empty.long(),
        empty.long(),
    )


def no_ground(frames: int = 1) -> Ground:
    return Ground(
        torch.zeros(frames, 1, 2),
        torch.zeros(frames, 1),
        torch.zeros(frames, 1),
        torch.full((frames,), -1),
    )


def geometry_of(ground: Ground | None = None, frames: int = 1, **kinds: Solids) -> Geometry:
    """A scene of the given solids; it needs at least one, for padding a box of no extent."""
    padding = solids_of([((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)], frames)
    default = {"boxes": padding} | {kind: nothing(frames) for kind in SHAPES if kind != "boxes"}
    return Geometry(**(default | kinds), ground=ground or no_ground(frames))


def rays(random: np.random.Generator, count: int, width: float = 1.0) -> np.ndarray:
    """Directions [count, 3] of various lengths, roughly along +z."""
    direction = np.stack((*random.uniform(-width, width, (2, count)), np.ones(count)), 1)
    return direction * random.uniform(0.5, 2, (count, 1))


def tensor(values: np.ndarray) -> torch.Tensor:
    """As float32 with a batch axis."""
    return torch.from_numpy(np.asarray(values)).float()[None]
