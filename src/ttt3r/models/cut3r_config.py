"""Sizes and options of a CUT3R network."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ttt3r.errors import WeightsError


@dataclass(frozen=True)
class DptSizes:
    """Channel widths of a dense prediction head."""

    layers: tuple[int, int, int, int] = (96, 192, 384, 768)
    feature: int = 256
    last: int = 128


@dataclass(frozen=True)
class Cut3rConfig:
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; infinities become the string "inf"."""
        values = asdict(self)
        values["confidence_range"] = [
            "inf" if bound == float("inf") else bound for bound in self.confidence_range
        ]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Cut3rConfig":
        """Rebuild a configuration from `to_dict`.

        Raises:
            WeightsError: if a field is unknown or has the wrong form.
        """
        values = dict(values)
        unknown = sorted(set(values).difference(field.name for field in fields(cls)))
        if unknown:
            raise WeightsError(
                f"the configuration has unknown fields: {', '.join(unknown)}. "
                "It may come from a newer version of ttt3r; upgrade, or convert the weights again."
            )
        try:
            if "dpt" in values:
                sizes = dict(values["dpt"])
                sizes["layers"] = tuple(sizes["layers"])
                values["dpt"] = DptSizes(**sizes)
            if "stem" in values:
                values["stem"] = tuple(int(width) for width in values["stem"])
            if "confidence_range" in values:
                low, high = values["confidence_range"]
                values["confidence_range"] = (float(low), float(high))
            return cls(**values)
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(f"the configuration cannot be read: {error}") from error
