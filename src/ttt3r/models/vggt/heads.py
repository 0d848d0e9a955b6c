"""What VGGT reads out of its tokens: cameras, depth and points (arXiv 2503.11651, section 3.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.geometry import fov_pose, se3
from ttt3r.geometry.camera import unproject
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.nn.attention import Projected, attend
from ttt3r.nn.blocks import Block
from ttt3r.nn.layers import LayerNorm, Linear, Mlp

POSE, FIELDS_OF_VIEW = 7, 2
ADAPTIVE_EPS = 1e-6

# How camera tokens of different frames mix: (iteration, number of the block, projected tokens).
CameraMix = Callable[[int, int, Projected], Float[Tensor, "batch frames channels"]]


@dataclass(frozen=True)
class VggtReading:
    """What the heads say of the frames of a batch; None where not asked for.

    Attributes:
        cameras: encoded cameras (see `geometry.fov_pose`) after each iteration of the camera head;
            the last one counts.
        depth: distance along the optical axis.
        depth_confidence: of `depth`, above 1.
        world_points: point of each pixel in the frame of the first camera.
        world_confidence: of `world_points`, above 1.
    """

    cameras: Float[Tensor, "iterations batch frames 9"]
    depth: Float[Tensor, "batch frames height width"] | None = None
    depth_confidence: Float[Tensor, "batch frames height width"] | None = None
    world_points: Float[Tensor, "batch frames height width 3"] | None = None
    world_confidence: Float[Tensor, "batch frames height width"] | None = None

    def cameras_of(
        self, size: tuple[int, int]
    ) -> tuple[Float[Tensor, "batch frames 4 4"], Float[Tensor, "batch frames 3 3"]]:
        """Return ``world_from_camera`` and pinhole matrices for images of `size`."""
        camera_from_world, intrinsics = fov_pose.decode(self.cameras[-1], size)
        return se3.invert(camera_from_world), intrinsics

    def unprojected(
        self, intrinsics: Float[Tensor, "batch frames 3 3"]
    ) -> Float[Tensor, "batch frames height width 3"] | None:
        """Return the points of `depth` in the frames of their own cameras."""
        return None if self.depth is None else unproject(self.depth, intrinsics)


def mix_cameras(
    iteration: int, block: int, projected: Projected
) -> Float[Tensor, "batch frames channels"]:
    """Let the camera token of every frame read those of all frames."""
    return attend(*projected)


class CameraHead(nn.Module):
    """Refines all cameras together, a few times; attributes carry the published names."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        dim = 2 * config.dim
        self.iterations = config.camera_iterations
        self.token_norm = LayerNorm(dim, eps=1e-5)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE + FIELDS_OF_VIEW))
        self.embed_pose = Linear(POSE + FIELDS_OF_VIEW, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 3 * dim))
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads, config.mlp_ratio, eps=1e-5, scaled=True)
            for _ in range(config.camera_depth)
        )
        self.trunk_norm = LayerNorm(dim, eps=1e-5)
        self.pose_branch = Mlp(dim, dim // 2, POSE + FIELDS_OF_VIEW)

    def forward(
        self, tokens: Float[Tensor, "batch frames channels"], mix: CameraMix = mix_cameras
    ) -> Float[Tensor, "iterations batch frames 9"]:
        """Return the raw encodings after each iteration; the field of view may be negative.

        Args:
            tokens: camera token of each frame, after the last pair of blocks.
            mix: how tokens of different frames mix.
        """
        tokens = self.token_norm(tokens)
        plain = F.layer_norm(tokens, tokens.shape[-1:], eps=ADAPTIVE_EPS)
        raw: list[Tensor] = []
        for iteration in range(self.iterations):
            known = raw[-1] if raw else self.empty_pose_tokens.expand(*tokens.shape[:2], -1)
            modulation = self.poseLN_modulation(self.embed_pose(known))
            shift, scale, gate = modulation.chunk(3, dim=-1)
            x = tokens + gate * (plain * (1 + scale) + shift)
            for index, block in enumerate(self.trunk):
                x = block(x, None, partial(mix, iteration, index))
            change = self.pose_branch(self.trunk_norm(x))
            raw.append(raw[-1] + change if raw else change)
        return torch.stack(raw)


def cameras_from_raw(
    raw: Float[Tensor, "*batch 9"],
) -> Float[Tensor, "*batch 9"]:
    """Return encoded cameras; fields of view are cut off at zero."""
    pose, fov = raw.split((POSE, FIELDS_OF_VIEW), dim=-1)
    return torch.cat((pose, fov.relu()), dim=-1)


def depth_from_raw(
    raw: Float[Tensor, "*batch 2 height width"],
) -> tuple[Float[Tensor, "*batch height width"], Float[Tensor, "*batch height width"]]:
    """Return depth exp(x) and confidence 1 + exp(c)."""
    depth, confidence = raw.unbind(-3)
    return depth.exp(), 1 + confidence.exp()


def points_from_raw(
    raw: Float[Tensor, "*batch 4 height width"],
) -> tuple[Float[Tensor, "*batch height width 3"], Float[Tensor, "*batch height width"]]:
    """Return points sign(x) (exp|x| − 1), coordinate by coordinate, and confidence 1 + exp(c)."""
    points, confidence = raw[..., :3, :, :].movedim(-3, -1), raw[..., 3, :, :]
    return (points.sign() * points.abs().expm1()).contiguous(), 1 + confidence.exp()
