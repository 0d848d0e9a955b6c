"""Sizes and options of a Fast3R network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ttt3r.errors import WeightsError
from ttt3r.models.config import DptSizes, NetworkConfig, dpt_rules, heads_rule


@dataclass(frozen=True)
class Fast3rConfig(NetworkConfig):
    """Everything that decides the shapes and the arithmetic of a Fast3R network.

    The defaults are the released 512-pixel network. The two options with published names are
    those of the released configuration:

    * `random_image_idx_embedding`: views after the first are told apart by indices drawn from the
      whole table, in inference too (arXiv 2501.13928, section 3); if False, they are counted.
    * `attn_bias_for_inference_enabled`: attention of the fusion transformer is sharpened for more
      views than there were in training. Off in the released network; the published code has it
      on where a configuration says nothing, so that an incomplete one changes results.

    Raises:
        SettingError: if a value cannot be used, or values do not fit each other.
    """

    image_size: int = 512
    patch_size: int = 16
    encoder_dim: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_dim: int = 1024
    decoder_depth: int = 24
    decoder_heads: int = 16
    mlp_ratio: int = 4
    rope_base: float = 100.0
    dpt: DptSizes = field(default_factory=DptSizes)
    random_image_idx_embedding: bool = True
    attn_bias_for_inference_enabled: bool = False

    def rules(self) -> list[tuple[Any, str]]:
        """See `Sizes.rules`."""
        return [
            *dpt_rules(self.decoder_depth, self.patch_size),
            heads_rule(self.encoder_dim, self.encoder_heads, "encoder heads"),
            heads_rule(self.decoder_dim, self.decoder_heads, "decoder heads", 1),
            (
                self.decoder_dim % 2,
                f"decoder_dim is {self.decoder_dim} and must be even: half of the index embedding "
                "is sines, half cosines",
            ),
        ]


TINY = Fast3rConfig(
    image_size=64,
    encoder_dim=64,
    encoder_depth=2,
    encoder_heads=4,
    decoder_dim=48,
    decoder_depth=4,
    decoder_heads=3,
    dpt=DptSizes((8, 12, 16, 24), 16, 8),
)

# Published names of sizes and ours.
_ENCODER = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dim": "encoder_dim",
    "depth": "encoder_depth",
    "num_heads": "encoder_heads",
}
_DECODER = {
    "embed_dim": "decoder_dim",
    "depth": "decoder_depth",
    "num_heads": "decoder_heads",
    "random_image_idx_embedding": "random_image_idx_embedding",
    "attn_bias_for_inference_enabled": "attn_bias_for_inference_enabled",
}
# What else changes the arithmetic, and the only value that is supported.
_FIXED: dict[tuple[str, str], Any] = {
    ("encoder_args", "encoder_type"): "croco",
    ("encoder_args", "patch_embed_cls"): "PatchEmbedDust3R",
    ("decoder_args", "decoder_type"): "fast3r",
    ("decoder_args", "qkv_bias"): True,
    ("head_args", "head_type"): "dpt",
    ("head_args", "output_mode"): "pts3d",
    ("head_args", "landscape_only"): False,
    ("head_args", "depth_mode"): ("exp", -math.inf, math.inf),
    ("head_args", "conf_mode"): ("exp", 1.0, math.inf),
    ("head_args", "with_local_head"): True,
}


def config_from_published(values: Mapping[str, Any]) -> Fast3rConfig:
    """Translate the published ``config.json`` to a configuration.

    Args:
        values: the file's content, with "encoder_args", "decoder_args" and "head_args". Widths of
            the DPT heads are not in it; they are those of the released network.

    Raises:
        WeightsError: if a part is missing, or asks for something unsupported.
    """
    parts: dict[str, Mapping[str, Any]] = {}
    for name in ("encoder_args", "decoder_args", "head_args"):
        part = values.get(name)
        if not isinstance(part, Mapping):
            raise WeightsError(
                f"the configuration has no {name}, so it is not that of a Fast3R network; "
                "use the config.json that was published with the weights"
            )
        parts[name] = part
    for (name, key), wanted in _FIXED.items():
        found = _plain(parts[name].get(key))
        if found != wanted:
            raise _unsupported(f"{name}.{key}", parts[name].get(key), wanted)
    ratios = {parts[name].get("mlp_ratio") for name in ("encoder_args", "decoder_args")}
    ratio = ratios.pop()
    if ratios or not isinstance(ratio, int | float) or not float(ratio).is_integer():
        raise WeightsError("encoder and decoder must state one mlp_ratio, a whole number")
    positions = str(parts["encoder_args"].get("pos_embed"))
    base = positions.removeprefix("RoPE")
    if base == positions or not base.isdecimal():
        raise _unsupported("encoder_args.pos_embed", positions, "'RoPE' and a number")
    encoder, decoder = parts["encoder_args"], parts["decoder_args"]
    missing = [key for key in _ENCODER if key not in encoder]
    missing += [key for key in _DECODER if key not in decoder]
    if missing:
        raise WeightsError(
            f"the configuration does not state {', '.join(missing)}; use the config.json that was "
            "published with the weights"
        )
    sizes = {ours: encoder[key] for key, ours in _ENCODER.items()}
    sizes |= {ours: decoder[key] for key, ours in _DECODER.items()}
    return Fast3rConfig.from_dict(sizes | {"mlp_ratio": int(ratio), "rope_base": float(base)})


def _plain(value: Any) -> Any:
    """Read "inf", "Infinity" and lists of numbers as what they stand for."""
    if isinstance(value, list | tuple):
        kind, *bounds = value or (None,)
        try:
            return (kind, *(float(bound) for bound in bounds))
        except (TypeError, ValueError):
            return value
    return value


def _unsupported(name: str, value: Any, wanted: Any) -> WeightsError:
    return WeightsError(
        f"the configuration says {name}={value!r}, which is not supported; it must be {wanted!r}"
    )
