"""Sizes and options of a CUT3R network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ttt3r.models.config import NetworkConfig


@dataclass(frozen=True)
class DptSizes:
    """Channel widths of a dense prediction head."""

    layers: tuple[int, int, int, int] = (96, 192, 384, 768)
    feature: int = 256
    last: int = 128

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DptSizes":
        """Rebuild sizes from JSON; may raise what `tuple` and a missing key raise."""
        return cls(**{**values, "layers": tuple(values["layers"])})


@dataclass(frozen=True)
class Cut3rConfig(NetworkConfig):
    """Everything that decides the shapes and the arithmetic of a CUT3R network.

    The defaults are the released 512-pixel network. Ranges of `confidence_range` are those of the
    published activations: `low + exp(x)`, capped at `high`. `stem` (see `nn.layers.PatchEmbed`) and
    `absolute_positions` (see `nn.rope.absolute_positions`) are for small networks; no released
    network has them.
    """

    image_size: int = 512
    patch_size: int = 16
    stem: tuple[int, ...] = ()
    encoder_dim: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    ray_encoder_depth: int = 2
    ray_encoder_heads: int = 16
    decoder_dim: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    state_heads: int = 16
    state_size: int = 768
    state_positions: Literal["1d", "2d"] = "2d"
    memory_size: int = 256
    memory_depth: int = 2
    mlp_ratio: int = 4
    rope_base: float = 100.0
    head: Literal["dpt", "linear"] = "dpt"
    dpt: DptSizes = DptSizes()
    points_mode: Literal["exp", "square", "linear"] = "exp"
    pose_mode: Literal["exp", "square"] = "exp"
    confidence_mode: Literal["exp", "sigmoid"] = "exp"
    confidence_range: tuple[float, float] = (1.0, float("inf"))
    rgb_head: bool = True
    half_rope_in_encoder: bool = False
    absolute_positions: bool = False

    @classmethod
    def _typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "dpt" in values:
            values["dpt"] = DptSizes.from_json(values["dpt"])
        if "stem" in values:
            values["stem"] = tuple(int(width) for width in values["stem"])
        if "confidence_range" in values:
            low, high = values["confidence_range"]
            values["confidence_range"] = (float(low), float(high))
        return values
