"""Sizes and options of VGGT and StreamVGGT networks."""

from dataclasses import dataclass, field
from typing import Any

from ttt3r.models.config import NetworkConfig, heads_rule
from ttt3r.models.vggt.track import TrackSizes
from ttt3r.types import Preparation


@dataclass(frozen=True)
class VggtConfig(NetworkConfig):
    """Everything that decides the shapes and the arithmetic of a VGGT network.

    The defaults are the released network of 1.2 billion parameters.

    Attributes:
        image_size: side in pixels of the square that the position embedding was learned on.
        patch_size: side of a patch in pixels.
        dim: channels of a token; the heads see twice as many.
        encoder_depth: blocks of the image encoder.
        encoder_heads: attention heads of the image encoder.
        depth: pairs of a block inside frames and a block across them.
        heads: attention heads of those blocks.
        registers: register tokens, of the encoder and of each frame.
        mlp_ratio: hidden width of all MLPs over their input width.
        rope_base: frequency base of the rotary embedding.
        levels: pairs whose outputs the dense heads read, from 0.
        camera_depth: blocks of the camera head.
        camera_heads: attention heads of the camera head.
        camera_iterations: times the camera head refines its answer.
        dpt_widths: channels of the four levels of a dense head.
        dpt_features: channels of a dense head after projection.
        track: sizes of the head that follows points; None for a network without it.

    Raises:
        SettingError: if a value cannot be used, or values do not fit each other.
    """

    image_size: int = 518
    patch_size: int = 14
    dim: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    depth: int = 24
    heads: int = 16
    registers: int = 4
    mlp_ratio: int = 4
    rope_base: float = 100.0
    levels: tuple[int, int, int, int] = (4, 11, 17, 23)
    camera_depth: int = 4
    camera_heads: int = 16
    camera_iterations: int = 4
    dpt_widths: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    dpt_features: int = 256
    track: TrackSizes | None = field(default_factory=TrackSizes)

    @property
    def preparation(self) -> Preparation:
        """How images are prepared: by their width, as VGGT was trained."""
        return Preparation(self.image_size, self.patch_size, by_width=True)

    def rules(self) -> list[tuple[Any, str]]:
        """See `Sizes.rules`."""
        return [
            (self.image_size % self.patch_size, "image_size must be a multiple of patch_size"),
            heads_rule(self.dim, self.encoder_heads, "encoder heads", 1),
            heads_rule(self.dim, self.heads, "heads"),
            heads_rule(2 * self.dim, self.camera_heads, "camera heads", 1),
            (any(width % 4 for width in self.dpt_widths), "dpt_widths must be multiples of 4"),
            (self.dpt_features % 8, "dpt_features must be a multiple of 8"),
            (
                self.levels != tuple(sorted(set(self.levels))) or self.levels[-1] >= self.depth,
                f"levels must rise and stay below depth ({self.depth})",
            ),
        ]


TINY = VggtConfig(
    image_size=70,
    dim=32,
    encoder_depth=2,
    encoder_heads=2,
    depth=4,
    heads=2,
    levels=(0, 1, 2, 3),
    camera_depth=1,
    camera_heads=4,
    dpt_widths=(8, 12, 16, 24),
    dpt_features=16,
    track=TrackSizes(
        layers=(8, 12, 16, 24),
        features=16,
        levels=4,
        radius=2,
        hidden=32,
        heads=2,
        rounds=2,
        virtual_tracks=8,
    ),
)
