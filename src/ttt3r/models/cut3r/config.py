"""Sizes and options of a CUT3R network."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ttt3r.models.config import DptSizes, NetworkConfig, dpt_rules, heads_rule


@dataclass(frozen=True)
class Cut3rConfig(NetworkConfig):
    """Everything that decides the shapes and the arithmetic of a CUT3R network.

    The defaults are the released 512-pixel network. Ranges of `confidence_range` are those of the
    published activations: `low + exp(x)`, capped at `high`. A new option is one more field here,
    with its rule in `rules`. Some are for small networks, and no released network has them: `stem`
    and `stem_blocks` (see `nn.layers.PatchEmbed`), `absolute_positions` (see
    `nn.rope.absolute_positions`), of which the first `content_channels` channels are left out, and
    `state_width`, the columns of the grid of state tokens (0: see `state.state_positions`), and
    `smoothing`, the sigma of a Gaussian in pixels over the raw maps of linear heads, in which their
    patches would show. Without blocks in its ray encoder a network takes no ray maps.

    Raises:
        SettingError: if a value cannot be used, or values do not fit each other.
    """

    image_size: int = 512
    patch_size: int = 16
    stem: tuple[int, ...] = ()
    stem_blocks: int = 0
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
    state_width: int = 0
    memory_size: int = 256
    memory_depth: int = 2
    mlp_ratio: int = 4
    rope_base: float = 100.0
    head: Literal["dpt", "linear"] = "dpt"
    smoothing: int = 0
    dpt: DptSizes = field(default_factory=DptSizes)
    points_mode: Literal["exp", "square", "linear"] = "exp"
    pose_mode: Literal["exp", "square"] = "exp"
    confidence_mode: Literal["exp", "sigmoid"] = "exp"
    confidence_range: tuple[float, float] = (1.0, float("inf"))
    rgb_head: bool = True
    half_rope_in_encoder: bool = False
    absolute_positions: bool = False
    content_channels: int = 0

    def rules(self) -> list[tuple[Any, str]]:
        """See `Sizes.rules`."""
        low, high = self.confidence_range
        endless = self.confidence_mode == "sigmoid" and high - low == float("inf")
        heads_read = dpt_rules(self.decoder_depth, self.patch_size if self.head == "dpt" else 16)
        halvings = min(len(self.stem), 16)
        return [
            heads_rule(self.encoder_dim, self.encoder_heads, "encoder heads"),
            heads_rule(self.encoder_dim, self.ray_encoder_heads, "ray encoder heads"),
            heads_rule(self.decoder_dim, self.decoder_heads, "decoder heads"),
            heads_rule(self.decoder_dim, self.state_heads, "state heads"),
            *heads_read,
            (
                self.patch_size % 2**halvings,
                "each convolution of the stem halves the patch, which must stay whole",
            ),
            (
                self.content_channels > self.encoder_dim,
                f"content_channels is {self.content_channels}, more than encoder_dim",
            ),
            (self.image_size < self.patch_size, "image_size is smaller than a patch"),
            (
                self.smoothing and self.head != "linear",
                "only linear heads are smoothed",
            ),
            (self.smoothing > self.patch_size, "smoothing has a sigma of more than a patch"),
            (
                not low < high or endless,
                f"confidence_range is {self.confidence_range}, not a usable range",
            ),
        ]


TINY_DPT = Cut3rConfig(
    image_size=64,
    encoder_dim=64,
    encoder_depth=2,
    encoder_heads=4,
    decoder_dim=32,
    decoder_depth=4,
    decoder_heads=2,
    state_heads=4,
    state_size=27,
    memory_size=16,
    dpt=DptSizes((8, 12, 16, 24), 16, 8),
)
TINY_LINEAR = replace(TINY_DPT, head="linear", state_size=20, dpt=DptSizes())
