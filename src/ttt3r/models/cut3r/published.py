"""Read a CUT3R network's configuration from a published checkpoint: its call and its shapes."""

import math
from collections.abc import Mapping
from typing import Any

from ttt3r.checkpoints.constructor import (
    UNBOUNDED,
    largest_side,
    parse_call,
    positive,
    rope_base,
    unreadable,
    unsupported,
)
from ttt3r.checkpoints.reading import Checkpoint
from ttt3r.checkpoints.shapes import Shapes, count_blocks, side
from ttt3r.errors import WeightsError
from ttt3r.models.config import dpt_sizes, mlp_ratio

NETWORK_CLASS = "ARCroco3DStereo"
CONFIG_CLASS = "ARCroco3DStereoConfig"

# Upstream's names of sizes, ours, and the value that holds where a constructor call is silent.
SIZES = {
    "patch_size": ("patch_size", 16),
    "enc_embed_dim": ("encoder_dim", 768),
    "enc_depth": ("encoder_depth", 12),
    "enc_num_heads": ("encoder_heads", 12),
    "ray_enc_depth": ("ray_encoder_depth", 2),
    "dec_embed_dim": ("decoder_dim", 512),
    "dec_depth": ("decoder_depth", 8),
    "dec_num_heads": ("decoder_heads", 16),
    "state_dec_num_heads": ("state_heads", 16),
    "state_size": ("state_size", 324),
    "local_mem_size": ("memory_size", 256),
    "mlp_ratio": ("mlp_ratio", 4),
}
# What else may be said: the accepted values, and the value that holds where nothing is said.
FIXED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "output_mode": (("pts3d+pose",), "pts3d"),
    "patch_embed_cls": (("PatchEmbedDust3R", "ManyAR_PatchEmbed"), "PatchEmbedDust3R"),
    "norm_im2_in_dec": ((True,), True),
    "pose_head": ((True,), False),
    "depth_head": ((False,), False),
    "pose_conf_head": ((False,), False),
}
TRAINING_ONLY = frozenset({"freeze", "landscape_only", "mask_ratio", "model_update_type"})
STATED_CHOICES = {
    "head_type": ("head", ("dpt", "linear"), "linear"),
    "state_pe": ("state_positions", ("1d", "2d"), "2d"),
    "rgb_head": ("rgb_head", (True, False), False),
}
OTHERS = frozenset({"img_size", "pos_embed", "depth_mode", "pose_mode", "conf_mode"})


def parse_constructor(text: str) -> dict[str, Any]:
    """Return the keyword arguments of CUT3R's constructor call.

    Args:
        text: ``ARCroco3DStereo(ARCroco3DStereoConfig(name=value, ...))``.

    Raises:
        WeightsError: if the text is anything else than such a call with constant arguments.
    """
    outer, inner, arguments = parse_call(text)
    if (outer, inner) != (NETWORK_CLASS, CONFIG_CLASS):
        raise unreadable(text, f"not a call {NETWORK_CLASS}({CONFIG_CLASS}(...)) with keywords")
    return arguments


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    """Return the fields of `Cut3rConfig` that the tensors decide; None where they are not there.

    Head counts, position kinds and activation modes leave no trace in shapes.
    """
    heads = {key.split(".")[1] for key in shapes if key.startswith("downstream_head.")}
    stem, patch = _stem(shapes), side(shapes, "patch_embed.proj.weight", 3, 4)
    if patch is not None and stem is not None:
        patch *= 2 ** len(stem)
    found: dict[str, Any] = {
        "patch_size": patch,
        "stem": stem,
        "stem_blocks": _stem_blocks(shapes),
        "encoder_dim": side(shapes, "decoder_embed.weight", 1, 2),
        "encoder_depth": count_blocks(shapes, "enc_blocks"),
        "ray_encoder_depth": count_blocks(shapes, "enc_blocks_ray_map"),
        "decoder_dim": side(shapes, "decoder_embed.weight", 0, 2),
        "decoder_depth": count_blocks(shapes, "dec_blocks"),
        "state_size": side(shapes, "register_tokens.weight", 0, 2),
        "memory_size": side(shapes, "pose_retriever.mem", 1, 3),
        "memory_depth": count_blocks(shapes, "pose_retriever.write_blocks"),
        "mlp_ratio": mlp_ratio(shapes, "enc_blocks.0.mlp"),
        "dpt": dpt_sizes(shapes, "downstream_head.dpt_self"),
    }
    for head, own in (("dpt", "dpt_self"), ("linear", "proj")):
        if own in heads:
            found["head"] = head
            found["rgb_head"] = bool(heads & {"dpt_rgb", "rgb_proj"})
    return found


def _stem(shapes: Shapes) -> tuple[int, ...] | None:
    """Channels of the convolutions before the patches; None without any trace of patches."""
    if "patch_embed.proj.weight" not in shapes:
        return None
    widths = []
    while (shape := shapes.get(f"patch_embed.stem{len(widths)}.weight")) is not None:
        widths.append(shape[0])
    return tuple(widths)


def _stem_blocks(shapes: Shapes) -> int | None:
    """Blocks after each convolution of the stem but the first."""
    if "patch_embed.proj.weight" not in shapes:
        return None
    return count_blocks(shapes, "patch_embed.res1") or 0


def stated_sizes(published: Checkpoint, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a checkpoint's constructor call, completed by the tensors.

    Where both are silent, the publisher's defaults hold.

    Raises:
        WeightsError: if the call cannot be read, or asks for something unsupported.
    """
    if published.model_string is None:
        return None
    defaults = {field: default for field, default in SIZES.values()}
    defaults |= {field: default for field, _, default in STATED_CHOICES.values()}
    stated = _stated(parse_constructor(published.model_string))
    return {**defaults, "image_size": 224, **found, **stated}


def untold_sizes(shapes: Shapes, found: Mapping[str, Any]) -> dict[str, Any]:
    """The image size of the released network that has these heads."""
    return {"image_size": 512 if found["head"] == "dpt" else 224}


def _stated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the arguments to fields of `Cut3rConfig`, refusing what is not supported."""
    known = {*SIZES, *FIXED, *STATED_CHOICES, *OTHERS, *TRAINING_ONLY}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise WeightsError(
            f"the checkpoint's constructor has unknown arguments: {', '.join(unknown)}. "
            "They may change what the network computes, so it was not loaded."
        )
    for name, (accepted, default) in FIXED.items():
        value = arguments.get(name, default)
        if value not in accepted:
            raise unsupported(name, value, " or ".join(map(repr, accepted)))
    stated: dict[str, Any] = {}
    for name, (field, _) in SIZES.items():
        if name in arguments:
            stated[field] = positive(name, arguments[name])
    for name, (field, accepted, _) in STATED_CHOICES.items():
        if name in arguments:
            if arguments[name] not in accepted:
                raise unsupported(name, arguments[name], " or ".join(map(repr, accepted)))
            stated[field] = arguments[name]
    if "img_size" in arguments:
        stated["image_size"] = largest_side(arguments["img_size"])
    stated["rope_base"] = rope_base(arguments.get("pos_embed", "cosine"))
    return stated | _modes(arguments)


def _modes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    points, *bounds = _mode("depth_mode", arguments, ("exp", *UNBOUNDED))
    if points not in ("exp", "square", "linear") or tuple(bounds) != UNBOUNDED:
        raise unsupported("depth_mode", arguments["depth_mode"], "a mode without bounds")
    pose, *bounds = _mode("pose_mode", arguments, ("exp", *UNBOUNDED))
    if pose not in ("exp", "square") or tuple(bounds) != UNBOUNDED:
        raise unsupported("pose_mode", arguments["pose_mode"], "'exp' or 'square' without bounds")
    confidence, low, high = _mode("conf_mode", arguments, ("exp", 1, math.inf))
    if confidence not in ("exp", "sigmoid"):
        raise unsupported("conf_mode", arguments["conf_mode"], "'exp' or 'sigmoid' with bounds")
    return {
        "points_mode": points,
        "pose_mode": pose,
        "confidence_mode": confidence,
        "confidence_range": (float(low), float(high)),
    }


def _mode(name: str, arguments: Mapping[str, Any], default: tuple[Any, ...]) -> tuple[Any, ...]:
    match arguments.get(name, default):
        case (str() as mode, int() | float() as low, int() | float() as high):
            return mode, low, high
    raise unsupported(name, arguments[name], "a mode and two bounds")
