"""Sizes and options of a Point3R network."""

from dataclasses import dataclass, field, fields
from typing import Any

from ttt3r.errors import SettingError
from ttt3r.models.config import NetworkConfig
from ttt3r.models.cut3r_config import Cut3rConfig, DptSizes

PATCH_SIZE = 16  # the dense heads upsample by it


@dataclass(frozen=True)
class Point3rConfig(NetworkConfig):
    """Everything that decides the shapes and the arithmetic of a Point3R network.

    The defaults are the released network (arXiv 2507.02863).

    Attributes:
        image_size: longer side of the images it was trained with, in pixels.
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
        SettingError: if a number is not positive, or heads do not divide their channels.
    """

    image_size: int = 512
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

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type in (int, float) and not value > 0:
                raise SettingError(f"{item.name} must be positive, not {value}")
        if self.decoder_depth < 2:
            raise SettingError("decoder_depth must be at least 2: the dense heads read its middle")
        for heads, channels, multiple in (
            ("encoder_heads", "encoder_dim", 4),
            ("value_heads", "encoder_dim", 4),
            ("decoder_heads", "decoder_dim", 4),
            ("pointer_heads", "decoder_dim", 1),
        ):
            count, width = getattr(self, heads), getattr(self, channels)
            if width % (count * multiple) or width // count < 3:
                raise SettingError(
                    f"{channels}={width} cannot be shared by {heads}={count}: each head needs "
                    f"the same number of channels, at least 3 and a multiple of {multiple}"
                )

    @property
    def heads(self) -> Cut3rConfig:
        """The output heads, which are CUT3R's without colour."""
        return Cut3rConfig(
            encoder_dim=self.encoder_dim,
            decoder_dim=self.decoder_dim,
            decoder_heads=self.decoder_heads,
            mlp_ratio=self.mlp_ratio,
            dpt=self.dpt,
            rgb_head=False,
        )

    @classmethod
    def _typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "dpt" in values:
            values["dpt"] = DptSizes.from_json(values["dpt"])
        return values
