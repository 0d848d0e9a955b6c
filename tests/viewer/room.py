"""A furnished room that is quick to look at: exact predictions of a camera that walks round in it.

The room is a box with coloured tiles and four coloured blocks on its floor; the camera walks a
circle and looks inwards, so that every frame differs and the points close a shape one knows.
"""

from collections.abc import Iterator

import numpy as np
import torch

from ttt3r.types import ImageTransform, Prediction

ROOM = np.array([[-3.0, -2.0, -4.0], [3.0, 0.6, 4.0]])  # metres; y is down
BLOCKS = [
    ([-1.0, -0.4, -1.2], [0.0, 0.6, -0.4], (214, 69, 65)),
    ([0.6, -0.1, 0.2], [1.3, 0.6, 1.0], (38, 128, 182)),
    ([-1.5, 0.1, 1.2], [-0.6, 0.6, 1.9], (240, 180, 41)),
    ([0.4, -0.9, -2.2], [0.9, 0.6, -1.7], (67, 160, 71)),
]
WALLS = {0: (205, 196, 180), 1: (150, 120, 95), 2: (176, 190, 197)}  # by axis


def _hits(origin: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray, inside: bool):
    """Distance along each ray to a box, inf if it is missed; and the axis of the side."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - origin) / rays, (high - origin) / rays
    near, far = np.minimum(first, second), np.maximum(first, second)
    if inside:
        return far.min(-1), far.argmin(-1)
    enter, leave = near.max(-1), far.min(-1)
    return np.where((enter > 0) & (enter < leave), enter, np.inf), near.argmax(-1)


def camera(share: float) -> np.ndarray:
    """World from camera after a share of the walk; the first one is the identity."""
    angle = 2 * np.pi * share

    def at(a: float) -> np.ndarray:
        position = np.array([1.8 * np.sin(a), -0.6 + 0.15 * np.sin(3 * a), -2.8 * np.cos(a)])
        forward = np.array([-0.25 * np.sin(a), 0.2, 0.0]) - position * [1, 0, 1]
        z = forward / np.linalg.norm(forward)
        x = np.cross([0.0, 1.0, 0.0], z)
        x /= np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack([x, np.cross(z, x), z], 1), position
        return pose

    return at(angle)


def look(pose: np.ndarray, width: int, height: int, focal: float):
    """Depth and colour of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    local = np.stack(
        [(columns - width / 2) / focal, (rows - height / 2) / focal, np.ones((height, width))], -1
    )
    rays = local @ pose[:3, :3].T
    origin = pose[:3, 3]
    depth, axis = _hits(origin, rays, *ROOM, inside=True)
    place = origin + rays * depth[..., None]
    tiles = (np.floor(place * 2 + 1e-6).astype(int).sum(-1) % 2)[..., None]
    colour = np.select([axis[..., None] == a for a in WALLS], [np.array(c) for c in WALLS.values()])
    colour = colour * (0.86 + 0.14 * tiles)
    for low, high, paint in BLOCKS:
        hit, side = _hits(origin, rays, np.array(low), np.array(high), inside=False)
        nearer = hit < depth
        depth = np.where(nearer, hit, depth)
        shade = np.array([0.8, 1.0, 0.65])[side][..., None]
        colour = np.where(nearer[..., None], np.array(paint) * shade, colour)
    return depth.astype(np.float32), colour.astype(np.uint8), local.astype(np.float32)


def walk(
    frames: int,
    width: int = 64,
    height: int = 48,
    *,
    segment: int = 100,
    tokens: int = 96,
    rate: float = 10.0,
) -> Iterator[Prediction]:
    """Predictions of a walk once round the room; every `segment` frames a state is fresh."""
    generator = np.random.default_rng(0)
    focal = 0.75 * width
    first = np.linalg.inv(camera(0.0))
    for index in range(frames):
        pose = camera(index / max(frames, 2))
        depth, colour, local = look(pose, width, height, focal)
        noise = generator.random((height, width), np.float32)
        wave = 3 * np.sin(np.arange(tokens) / 9 + index / 7) + generator.normal(size=tokens) - 1
        yield Prediction(
            index=index,
            timestamp=index / rate,
            image=torch.from_numpy(colour),
            points=torch.from_numpy(local * depth[..., None]),
            confidence=torch.from_numpy(1 + 6 * np.exp(-depth / 3) * (0.8 + 0.2 * noise)),
            world_from_camera=torch.from_numpy(first @ pose).float(),
            intrinsics=torch.tensor(
                [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32
            ),
            segment=index // segment,
            gate=None
            if index % segment == 0
            else torch.from_numpy(1 / (1 + np.exp(-wave))).float(),
            transform=ImageTransform.identity(width, height),
        )
