"""Read the constructor call that upstream checkpoints carry, and make a configuration of it.

Upstream evaluates that text. Here it is parsed: two known class names, keyword arguments, and
values that are constants or tuples of them.
"""

import ast
import logging
import math
from collections.abc import Mapping
from typing import Any

from ttt3r.errors import WeightsError
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.weights.shapes import Shapes, check_agreement, check_config, sizes_from_shapes

NETWORK_CLASS = "ARCroco3DStereo"
CONFIG_CLASS = "ARCroco3DStereoConfig"
LONGEST = 20_000
logger = logging.getLogger("ttt3r.weights")

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
CHOICES = {
    "head_type": ("head", ("dpt", "linear"), "linear"),
    "state_pe": ("state_positions", ("1d", "2d"), "2d"),
    "rgb_head": ("rgb_head", (True, False), False),
}
OTHERS = frozenset({"img_size", "pos_embed", "depth_mode", "pose_mode", "conf_mode"})
UNBOUNDED = (-math.inf, math.inf)


def parse_constructor(text: str) -> dict[str, Any]:
    """Return the keyword arguments of CUT3R's constructor call.

    Args:
        text: ``ARCroco3DStereo(ARCroco3DStereoConfig(name=value, ...))``.

    Raises:
        WeightsError: if the text is anything else than such a call with constant arguments.
    """
    outer, inner, arguments = parse_call(text)
    if (outer, inner) != (NETWORK_CLASS, CONFIG_CLASS):
        raise _unreadable(text, f"not a call {NETWORK_CLASS}({CONFIG_CLASS}(...)) with keywords")
    return arguments


def parse_call(text: str) -> tuple[str, str, dict[str, Any]]:
    """Take a constructor call of the form ``Network(Config(name=value, ...))`` apart.

    Returns:
        Both names and the keyword arguments: constants, or tuples of them.

    Raises:
        WeightsError: if the text is anything else.
    """
    if len(text) > LONGEST or "\\" in text:
        raise _unreadable(text, "too long, or with escapes in a string")
    try:
        # The brackets let line breaks stand anywhere between tokens.
        tree = ast.parse(f"({text.strip()}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unreadable(text, "not an expression") from None
    match tree:
        case ast.Call(
            func=ast.Name(id=outer),
            args=[ast.Call(func=ast.Name(id=inner), args=[], keywords=keywords)],
            keywords=[],
        ):
            arguments: dict[str, Any] = {}
            for item in keywords:
                if item.arg is None or item.arg in arguments:
                    raise _unreadable(text, "a repeated or starred argument")
                arguments[item.arg] = _value(item.value, text)
            return outer, inner, arguments
    raise _unreadable(text, "not a call of the form Network(Config(...)) with keywords")


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None):
            return node.value
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant() | ast.Name()):
            number = _value(node.operand, text)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number if isinstance(node.op, ast.USub) else number
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            if all(not isinstance(element, ast.Tuple | ast.List) for element in elements):
                return tuple(_value(element, text) for element in elements)
    raise _unreadable(text, "a value that is no constant")


def _unreadable(text: str, reason: str) -> WeightsError:
    shown = text if len(text) <= 200 else f"{text[:200]}…"
    return WeightsError(
        f"the constructor call in this checkpoint cannot be read ({reason}): {shown!r}. "
        "Get the checkpoint again from its publisher."
    )


def config_from_checkpoint(shapes: Shapes, model_string: str | None) -> Cut3rConfig:
    """Combine a checkpoint's constructor call with its tensors into a configuration.

    Sizes that the call does not state are read from the shapes. Without a call, what shapes cannot
    tell (head counts, kinds of positions and activations) is that of the released networks.

    Args:
        shapes: shape of each tensor, by its clean name.
        model_string: the constructor call, if the checkpoint has one.

    Raises:
        WeightsError: if the call cannot be read, asks for something unsupported, or contradicts the
            shapes; or if the shapes are no CUT3R network's.
    """
    found = sizes_from_shapes(shapes)
    if model_string is None:
        config = _released_config(found)
    else:
        arguments = parse_constructor(model_string)
        stated = _stated(arguments)
        check_agreement(stated, shapes, "constructor call")
        defaults = {field: default for field, default in SIZES.values()}
        defaults |= {field: default for field, _, default in CHOICES.values()}
        config = Cut3rConfig(**{**defaults, "image_size": 224, **found, **stated})
    check_config(config, shapes)
    return config


def _released_config(found: Mapping[str, Any]) -> Cut3rConfig:
    needed = ("encoder_dim", "encoder_depth", "decoder_dim", "decoder_depth", "state_size", "head")
    missing = [field for field in needed if field not in found]
    if missing:
        raise WeightsError(
            "these tensors are not a CUT3R network: nothing in them tells "
            f"{', '.join(missing)}. Check that this is the right file."
        )
    config = Cut3rConfig(**found, image_size=512 if found["head"] == "dpt" else 224)
    logger.warning(
        "the weights do not state their configuration; sizes were read from the tensors, and image "
        "size %d and %d, %d, %d heads (encoder, decoder, state) are those of the released network",
        config.image_size,
        config.encoder_heads,
        config.decoder_heads,
        config.state_heads,
    )
    return config


def _stated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the arguments to fields of `Cut3rConfig`, refusing what is not supported."""
    known = {*SIZES, *FIXED, *CHOICES, *OTHERS, *TRAINING_ONLY}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise WeightsError(
            f"the checkpoint's constructor has unknown arguments: {', '.join(unknown)}. "
            "They may change what the network computes, so it was not loaded."
        )
    for name, (accepted, default) in FIXED.items():
        value = arguments.get(name, default)
        if value not in accepted:
            raise _unsupported(name, value, " or ".join(map(repr, accepted)))
    stated: dict[str, Any] = {}
    for name, (field, _) in SIZES.items():
        if name in arguments:
            stated[field] = positive(name, arguments[name])
    for name, (field, accepted, _) in CHOICES.items():
        if name in arguments:
            if arguments[name] not in accepted:
                raise _unsupported(name, arguments[name], " or ".join(map(repr, accepted)))
            stated[field] = arguments[name]
    if "img_size" in arguments:
        stated["image_size"] = largest_side(arguments["img_size"])
    stated["rope_base"] = rope_base(arguments.get("pos_embed", "cosine"))
    return stated | _modes(arguments)


def positive(name: str, value: Any) -> int:
    """Read an argument that must be a positive integer.

    Raises:
        WeightsError: if it is not.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 1:
        raise _unsupported(name, value, "a positive integer")
    return value


def largest_side(value: Any) -> int:
    """Read ``img_size``, one side or several.

    Raises:
        WeightsError: if one is no positive integer.
    """
    sides = value if isinstance(value, tuple) and value else (value,)
    return max(positive("img_size", side) for side in sides)


def rope_base(value: Any) -> float:
    """Read ``pos_embed``, such as "RoPE100".

    Raises:
        WeightsError: if it is of another form.
    """
    digits = value.removeprefix("RoPE") if isinstance(value, str) else ""
    if value != f"RoPE{digits}" or not digits.isdecimal() or len(digits) > 9 or not int(digits):
        raise _unsupported("pos_embed", value, "'RoPE' and a number, as in 'RoPE100'")
    return float(digits)


def _modes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    points, *bounds = _mode("depth_mode", arguments, ("exp", *UNBOUNDED))
    if points not in ("exp", "square", "linear") or tuple(bounds) != UNBOUNDED:
        raise _unsupported("depth_mode", arguments["depth_mode"], "a mode without bounds")
    pose, *bounds = _mode("pose_mode", arguments, ("exp", *UNBOUNDED))
    if pose not in ("exp", "square") or tuple(bounds) != UNBOUNDED:
        raise _unsupported("pose_mode", arguments["pose_mode"], "'exp' or 'square' without bounds")
    confidence, low, high = _mode("conf_mode", arguments, ("exp", 1, math.inf))
    if confidence not in ("exp", "sigmoid"):
        raise _unsupported("conf_mode", arguments["conf_mode"], "'exp' or 'sigmoid' with bounds")
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
    raise _unsupported(name, arguments[name], "a mode and two bounds")


def _unsupported(name: str, value: Any, wanted: str) -> WeightsError:
    return WeightsError(
        f"the checkpoint's constructor says {name}={value!r}, which is not supported; "
        f"it must be {wanted}"
    )
