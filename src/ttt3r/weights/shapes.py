"""What the shapes of a network's tensors say about its configuration, that of CUT3R above all."""

import re
from collections.abc import Mapping
from typing import Any

from ttt3r.errors import WeightsError
from ttt3r.models.cut3r_config import Cut3rConfig, DptSizes

Shapes = Mapping[str, tuple[int, ...]]

# Limits far above any real network; they keep a damaged configuration from filling the memory.
WIDEST, DEEPEST = 65_536, 256
INTEGERS = {
    **dict.fromkeys(("image_size", "patch_size", "encoder_dim", "decoder_dim"), WIDEST),
    **dict.fromkeys(("encoder_heads", "ray_encoder_heads", "decoder_heads"), WIDEST),
    **dict.fromkeys(("state_heads", "state_size", "memory_size", "mlp_ratio"), WIDEST),
    **dict.fromkeys(("encoder_depth", "ray_encoder_depth", "decoder_depth"), DEEPEST),
    "memory_depth": DEEPEST,
}
CHOICES = {
    "state_positions": ("1d", "2d"),
    "head": ("dpt", "linear"),
    "points_mode": ("exp", "square", "linear"),
    "pose_mode": ("exp", "square"),
    "confidence_mode": ("exp", "sigmoid"),
    "rgb_head": (True, False),
    "half_rope_in_encoder": (True, False),
    "absolute_positions": (True, False),
}


def sizes_from_shapes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `Cut3rConfig` that the tensors decide; absent tensors decide nothing.

    Head counts, position kinds and activation modes leave no trace in shapes.
    """

    hidden = side(shapes, "enc_blocks.0.mlp.fc1.weight", 0, 2)
    width = side(shapes, "enc_blocks.0.mlp.fc1.weight", 1, 2)
    heads = {key.split(".")[1] for key in shapes if key.startswith("downstream_head.")}
    found: dict[str, Any] = {
        "patch_size": side(shapes, "patch_embed_ray_map.proj.weight", 3, 4),
        "stem": _stem(shapes),
        "encoder_dim": side(shapes, "decoder_embed.weight", 1, 2),
        "encoder_depth": count_blocks(shapes, "enc_blocks"),
        "ray_encoder_depth": count_blocks(shapes, "enc_blocks_ray_map"),
        "decoder_dim": side(shapes, "decoder_embed.weight", 0, 2),
        "decoder_depth": count_blocks(shapes, "dec_blocks"),
        "state_size": side(shapes, "register_tokens.weight", 0, 2),
        "memory_size": side(shapes, "pose_retriever.mem", 1, 3),
        "memory_depth": count_blocks(shapes, "pose_retriever.write_blocks"),
        "mlp_ratio": hidden // width if hidden and width else None,
    }
    for head, own in (("dpt", "dpt_self"), ("linear", "proj")):
        if own in heads:
            found["head"] = head
            found["rgb_head"] = bool(heads & {"dpt_rgb", "rgb_proj"})
    found["dpt"] = dpt_sizes(shapes, "downstream_head.dpt_self")
    return {field: value for field, value in found.items() if value is not None}


def _stem(shapes: Shapes) -> tuple[int, ...] | None:
    """Channels of the convolutions before the patches; None without any trace of patches."""
    if "patch_embed.proj.weight" not in shapes:
        return None
    widths = []
    while (shape := shapes.get(f"patch_embed.stem{len(widths)}.weight")) is not None:
        widths.append(shape[0])
    return tuple(widths)


def side(shapes: Shapes, key: str, axis: int, rank: int) -> int | None:
    """Length of an axis of a tensor; None if there is no such tensor of this rank."""
    shape = shapes.get(key, ())
    return shape[axis] if len(shape) == rank else None


def count_blocks(shapes: Shapes, prefix: str) -> int | None:
    """Number of blocks under `prefix`; None if there are none."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    indices = {match[1] for key in shapes if (match := pattern.match(key))}
    return len(indices) or None


def dpt_sizes(shapes: Shapes, prefix: str) -> DptSizes | None:
    """Widths of the dense head under `prefix`; None if it is not there, or not whole."""
    sizes = (
        *(side(shapes, f"{prefix}.act_postprocess.{level}.0.weight", 0, 4) for level in range(4)),
        side(shapes, f"{prefix}.scratch.layer1_rn.weight", 0, 4),
        side(shapes, f"{prefix}.head.0.weight", 0, 4),
    )
    match sizes:
        case (int(a), int(b), int(c), int(d), int(feature), int(last)):
            return DptSizes((a, b, c, d), feature, last)
    return None


def check_config(config: Cut3rConfig, shapes: Shapes) -> None:
    """Check that a network of this configuration can be built and can have tensors of `shapes`.

    Raises:
        WeightsError: if a value makes no sense, or contradicts the tensors.
    """
    problems = _bad_values(config) or _bad_heads(config)
    if problems:
        raise WeightsError(
            f"the configuration of these weights cannot be used: {'; '.join(problems)}"
        )
    said = {field: getattr(config, field) for field in sizes_from_shapes(shapes)}
    check_agreement(said, shapes, "configuration")


def check_agreement(said: Mapping[str, Any], shapes: Shapes, source: str) -> None:
    """Check that values stated by `source` agree with what the tensors show.

    Raises:
        WeightsError: naming both values of everything that differs.
    """
    refuse_contradictions(said, sizes_from_shapes(shapes), source)


def refuse_contradictions(said: Mapping[str, Any], found: Mapping[str, Any], source: str) -> None:
    """Check that values stated by `source` agree with those that the tensors show.

    Raises:
        WeightsError: naming both values of everything that differs.
    """
    problems = [
        f"{field} is {said[field]} by the {source} but {found[field]} by the tensors"
        for field in said
        if field in found and said[field] != found[field]
    ]
    if problems:
        raise WeightsError(
            f"the {source} and the tensors contradict each other: {'; '.join(problems)}. "
            "They come from different files, or one was edited; get both from one place."
        )


def _bad_values(config: Cut3rConfig) -> list[str]:
    numbers = {field: (getattr(config, field), limit) for field, limit in INTEGERS.items()}
    widths = (*config.dpt.layers, config.dpt.feature, config.dpt.last)
    numbers |= {f"width {i} of dpt": (width, WIDEST) for i, width in enumerate(widths)}
    numbers |= {f"width {i} of stem": (width, WIDEST) for i, width in enumerate(config.stem)}
    problems = [
        f"{field} is {value!r}, not an integer from 1 to {limit}"
        for field, (value, limit) in numbers.items()
        if type(value) is not int or not 1 <= value <= limit
    ]
    if len(config.dpt.layers) != 4:
        problems.append("dpt has not four layers")
    problems += [
        f"{field} is {value!r}, not one of {', '.join(map(repr, choices))}"
        for field, choices in CHOICES.items()
        if (value := getattr(config, field)) not in choices
    ]
    low, high = config.confidence_range
    if not low < high or (config.confidence_mode == "sigmoid" and high - low == float("inf")):
        problems.append(f"confidence_range is {config.confidence_range}, which is no usable range")
    if not isinstance(config.rope_base, float | int) or not config.rope_base > 0:
        problems.append(f"rope_base is {config.rope_base!r}, not a positive number")
    return problems


def _bad_heads(config: Cut3rConfig) -> list[str]:
    """Head sizes must be whole, and multiples of 4 where positions are embedded."""
    problems = [
        f"{width} channels cannot be split into {heads} {name} with a multiple of 4 channels each"
        for name, width, heads in (
            ("encoder heads", config.encoder_dim, config.encoder_heads),
            ("ray encoder heads", config.encoder_dim, config.ray_encoder_heads),
            ("decoder heads", config.decoder_dim, config.decoder_heads),
            ("state heads", config.decoder_dim, config.state_heads),
        )
        if width % (4 * heads)
    ]
    if config.decoder_depth < 2:
        problems.append("the heads read two decoder layers, so decoder_depth must be 2 or more")
    if config.head == "dpt" and config.patch_size != 16:
        problems.append("the DPT head needs patch_size 16")
    if config.patch_size % 2 ** min(len(config.stem), 16):
        problems.append("each convolution of the stem halves the patch, which must stay whole")
    if config.image_size < config.patch_size:
        problems.append("image_size is smaller than a patch")
    return problems
