"""The two families of output heads of CUT3R, under the published names."""

from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.nn.activations import (
    confidence_from_raw,
    points_from_raw,
    pose_from_raw,
    rgb_from_raw,
)
from ttt3r.nn.blocks import LinearHead, ModulatedBlock, PoseHead, smoothed
from ttt3r.nn.dpt import Dpt, Levels
from ttt3r.nn.rope import Positions


class Heads(nn.Module):
    """What both families share: pose, and the move of tokens into the world's frame.

    Subclasses turn four levels of patch tokens into raw maps [batch, channels, height, width].
    """

    positive_depth = False

    def __init__(self, config: Cut3rConfig) -> None:
        super().__init__()
        self.config = config
        self.pose_head = PoseHead(config.decoder_dim)
        self.final_transform = nn.ModuleList(
            ModulatedBlock(config.decoder_dim, config.decoder_heads, config.mlp_ratio)
            for _ in range(2)
        )

    def raw_self(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw points and confidence in the camera's frame, 4 channels."""
        raise NotImplementedError

    def raw_world(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw points and confidence in the world's frame, 4 channels."""
        raise NotImplementedError

    def raw_rgb(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw colour, 3 channels."""
        raise NotImplementedError

    def pose(self, pose_token: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch 7"]:
        """Camera pose as [tx, ty, tz, qw, qx, qy, qz]."""
        return pose_from_raw(self.pose_head(pose_token), self.config.pose_mode)

    def points(self, levels: Levels, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Points in the camera's frame [b, h, w, 3] and their confidence [b, h, w]."""
        return self._points_and_confidence(self.raw_self(levels, grid), self.positive_depth)

    def world(
        self,
        levels: Levels,
        pose_token: Float[Tensor, "batch channels"],
        positions: Positions,
        grid: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Points in the frame of the segment's first camera, and their confidence."""
        tokens = levels[3]
        for block in self.final_transform:
            tokens = block(tokens, pose_token, positions)
        raw = self.raw_world([*levels[:3], tokens], grid)
        return self._points_and_confidence(raw, False)

    def rgb(self, levels: Levels, grid: tuple[int, int]) -> Float[Tensor, "batch h w 3"]:
        """Colour in (−1, 1)."""
        return rgb_from_raw(self.raw_rgb(levels, grid).movedim(1, -1))

    def _points_and_confidence(self, raw: Tensor, positive_depth: bool) -> tuple[Tensor, Tensor]:
        raw = raw.movedim(1, -1)
        points = points_from_raw(
            raw[..., :3], self.config.points_mode, positive_depth=positive_depth
        )
        low, high = self.config.confidence_range
        confidence = confidence_from_raw(raw[..., 3], self.config.confidence_mode, low, high)
        return points.contiguous(), confidence.contiguous()


class DptHeads(Heads):
    """One DPT per map, on tokens from four depths."""

    def __init__(self, config: Cut3rConfig) -> None:
        super().__init__(config)
        self.dpt_self = self._dpt(4)
        self.dpt_cross = self._dpt(4)
        if config.rgb_head:
            self.dpt_rgb = self._dpt(3)

    def _dpt(self, channels: int) -> Dpt:
        dims = (self.config.encoder_dim, *(self.config.decoder_dim,) * 3)
        sizes = self.config.dpt
        return Dpt(dims, sizes.layers, sizes.feature, sizes.last, channels)

    def raw_self(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw points and confidence in the camera's frame, 4 channels."""
        return self.dpt_self(levels, grid)

    def raw_world(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw points and confidence in the world's frame, 4 channels."""
        return self.dpt_cross(levels, grid)

    def raw_rgb(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw colour, 3 channels."""
        return self.dpt_rgb(levels, grid)


class LinearHeads(Heads):
    """One MLP per map, on the last tokens; in small networks the maps are then smoothed."""

    positive_depth = True

    def __init__(self, config: Cut3rConfig) -> None:
        super().__init__(config)
        self.proj = LinearHead(config.decoder_dim, 4, config.patch_size)
        self.cross_proj = LinearHead(config.decoder_dim, 4, config.patch_size)
        if config.rgb_head:
            self.rgb_proj = LinearHead(config.decoder_dim, 3, config.patch_size)

    def raw_self(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw points and confidence in the camera's frame, 4 channels."""
        return self._raw(self.proj, levels, grid)

    def raw_world(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw points and confidence in the world's frame, 4 channels."""
        return self._raw(self.cross_proj, levels, grid)

    def raw_rgb(self, levels: Levels, grid: tuple[int, int]) -> Tensor:
        """Raw colour, 3 channels."""
        return self._raw(self.rgb_proj, levels, grid)

    def _raw(self, head: LinearHead, levels: Levels, grid: tuple[int, int]) -> Tensor:
        return smoothed(head(levels[3], grid), self.config.smoothing)
