"""A round room with a pattern on its wall: exact images and depth from any place inside."""

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics, pixel_grid

RADIUS, FOCAL = 4.0, 56.0
CENTRE = torch.tensor([0.7, -0.4, 1.1]).double()  # of the room; cameras are near the origin
WAVES = 12


def pattern(points: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any"]:
    """Brightness in [0, 1] of points in the world: waves of several lengths and directions."""
    generator = torch.Generator().manual_seed(0)
    directions = 2.0 * torch.randn(WAVES, 3, generator=generator, dtype=torch.float64)
    phases = 6.3 * torch.rand(WAVES, generator=generator, dtype=torch.float64)
    waves = torch.sin(points @ directions.mT + phases)
    return 0.5 + 0.4 * torch.tanh(waves.mean(-1) * 2)


def seen_from(
    pose: Float[Tensor, "4 4"], size: tuple[int, int] = (48, 64), focal: float = FOCAL
) -> tuple[Tensor, Tensor, Tensor]:
    """Return brightness, depth and intrinsics of a camera, float32."""
    intrinsics = default_intrinsics(size, torch.tensor(focal).double())
    pixels = pixel_grid(size, intrinsics)
    centre = intrinsics[:2, 2]
    rays = torch.cat([(pixels - centre) / focal, torch.ones(*size, 1).double()], -1)
    turned = rays @ pose[:3, :3].mT
    start = pose[:3, 3] - CENTRE
    # |start + depth · ray| = RADIUS
    a, b = turned.square().sum(-1), (turned * start).sum(-1)
    depth = (-b + (b * b - a * (start.square().sum() - RADIUS**2)).sqrt()) / a
    grey = pattern(se3.apply(pose, rays * depth[..., None]))
    return grey.float(), depth.float(), intrinsics.float()
