"""Sizes and options of a Point3R network."""

from dataclasses import dataclass, field
from typing import Any

from ttt3r.models.config import DptSizes, NetworkConfig, dpt_rules, heads_rule
from ttt3r.models.cut3r.config import Cut3rConfig


@dataclass(frozen=True)
class Point3rConfig(NetworkConfig):
    """Everything that decides the shapes and the arithmetic of a Point3R network.

    The defaults are the released network (arXiv 2507.02863).

    Attributes:
        image_size: longer side of the images it was trained with, in pixels.
        patch_size: side of a patch in pixels; 16, by which the dense heads upsample.
        encoder_dim: channels of the image encoder and of the encoder of pointmaps.
        encoder_depth: blocks of the image encoder.
        encoder_heads: attention heads of the image encoder.
        decoder_dim: channels of both decoders and of a pointer's feature.
        decoder_depth: blocks of each decoder.
        decoder_heads: attention heads of the image decoder, the pose memory and the heads.
        pointer_heads: attention heads of the decoder of pointers.
        value_depth: blocks of the encoder of pointmaps.
        value_heads: attention heads of the encoder of pointmaps.
        memory_size: slots of the pose memory.
        memory_depth: blocks that read the pose memory, and blocks that write it.
        mlp_ratio: hidden width of the MLPs over their input width.
        rope_base: frequency base of the position embedding on the grid of patches.
        dpt: widths of the dense heads.
        half_rope_in_encoder: turn the image encoder's queries and keys in float16, as published.

    Raises:
        SettingError: if a value cannot be used, or values do not fit each other.
    """

    image_size: int = 512
    patch_size: int = 16
    encoder_dim: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_dim: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    pointer_heads: int = 16
    value_depth: int = 6
    value_heads: int = 16
    memory_size: int = 256
    memory_depth: int = 2
    mlp_ratio: int = 4
    rope_base: float = 100.0
    dpt: DptSizes = field(default_factory=DptSizes)
    half_rope_in_encoder: bool = False

    def rules(self) -> list[tuple[Any, str]]:
        """See `Sizes.rules`."""
        return [
            *dpt_rules(self.decoder_depth, self.patch_size),
            heads_rule(self.encoder_dim, self.encoder_heads, "encoder heads"),
            heads_rule(self.encoder_dim, self.value_heads, "value heads"),
            heads_rule(self.decoder_dim, self.decoder_heads, "decoder heads"),
            heads_rule(self.decoder_dim, self.pointer_heads, "pointer heads", 1),
            (
                self.decoder_dim // self.pointer_heads < 3,
                f"{self.pointer_heads} pointer heads share {self.decoder_dim} channels; each needs "
                "at least 3, for x, y and z",
            ),
        ]

    @property
    def heads(self) -> Cut3rConfig:
        """The output heads, which are CUT3R's without colour."""
        return Cut3rConfig(
            encoder_dim=self.encoder_dim,
            encoder_heads=self.encoder_heads,
            ray_encoder_heads=self.encoder_heads,
            decoder_dim=self.decoder_dim,
            decoder_heads=self.decoder_heads,
            state_heads=self.decoder_heads,
            mlp_ratio=self.mlp_ratio,
            dpt=self.dpt,
            rgb_head=False,
        )


TINY = Point3rConfig(
    image_size=64,
    encoder_dim=64,
    encoder_depth=2,
    encoder_heads=4,
    decoder_dim=48,
    decoder_depth=4,
    decoder_heads=3,
    pointer_heads=4,
    value_depth=2,
    value_heads=4,
    memory_size=16,
    dpt=DptSizes((8, 12, 16, 24), 16, 8),
)
