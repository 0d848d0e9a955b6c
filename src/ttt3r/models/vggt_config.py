"""Sizes and options of VGGT and StreamVGGT networks."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ttt3r.errors import SettingError
from ttt3r.models.config import NetworkConfig
from ttt3r.models.vggt_track import TrackSizes


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
        SettingError: if sizes do not fit each other.
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

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or isinstance(value, str | TrackSizes):
                continue
            counts = value if isinstance(value, tuple) else (value,)
            least = 0 if item.name in ("levels", "registers") else 1
            if min(counts) < least:
                raise SettingError(f"{item.name} must be at least {least}, not {value}")
        rules = [
            (self.image_size % self.patch_size, "image_size must be a multiple of patch_size"),
            (self.dim % self.encoder_heads, "dim must be a multiple of encoder_heads"),
            (self.dim % (4 * self.heads), "dim must be a multiple of 4 · heads"),
            (2 * self.dim % self.camera_heads, "2 · dim must be a multiple of camera_heads"),
            (any(width % 4 for width in self.dpt_widths), "dpt_widths must be multiples of 4"),
            (self.dpt_features % 8, "dpt_features must be a multiple of 8"),
            (
                self.levels != tuple(sorted(set(self.levels))) or self.levels[-1] >= self.depth,
                f"levels must rise and stay below depth ({self.depth})",
            ),
        ]
        broken = [text for violated, text in rules if violated]
        if broken:
            raise SettingError(f"the sizes of the network do not fit: {'; '.join(broken)}")

    @classmethod
    def _typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        for key in {"levels", "dpt_widths"} & values.keys():
            values[key] = _four(values[key])
        if values.get("track") is not None:
            sizes = dict(values["track"])
            if "layers" in sizes:
                sizes["layers"] = _four(sizes["layers"])
            values["track"] = TrackSizes(**sizes)
        return values


def _four(numbers: Any) -> tuple[int, int, int, int]:
    first, second, third, fourth = (int(number) for number in numbers)
    return first, second, third, fourth


CameraCache = Literal["consistent", "released"]


@dataclass(frozen=True)
class StreamVggtConfig(VggtConfig):
    """Everything that decides the shapes and the arithmetic of a StreamVGGT network.

    Attributes:
        camera_cache: what the camera head reads of past frames at each of its iterations.

            "consistent" (the default): what they wrote at the same iteration. A stream then gives
            the poses of the causal pass over all frames that the network was trained with, and the
            poses do not depend on how the frames arrive.

            "released": what they wrote at every iteration, and what this frame wrote at earlier
            ones, as the published streaming code does. Training never saw such a mixture, and
            poses differ from those of the causal pass from the first frame on; use it to reproduce
            published figures.

    Raises:
        SettingError: if sizes do not fit each other, or `camera_cache` is neither.
    """

    camera_cache: CameraCache = "consistent"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.camera_cache not in ("consistent", "released"):
            raise SettingError(
                f"camera_cache is 'consistent' or 'released', not {self.camera_cache!r}"
            )
