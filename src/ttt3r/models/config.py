"""What the configurations of all networks have in common: they check themselves; JSON and back."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ttt3r.checkpoints.shapes import DEEPEST, WIDEST, Shapes, side
from ttt3r.errors import SettingError, WeightsError
from ttt3r.types import Preparation

AnyConfig = TypeVar("AnyConfig", bound="NetworkConfig")
MAY_BE_ZERO = frozenset(
    {
        "content_channels",
        "levels",
        "ray_encoder_depth",
        "registers",
        "smoothing",
        "state_width",
        "stem_blocks",
    }
)
# Numbers of repetitions; they have the limit of depths.
COUNTED = frozenset({"camera_iterations", "iterations", "rounds", "stem_blocks"})


class Sizes:
    """Base of frozen dataclasses of sizes and options, which check themselves when they are made.

    Raises:
        SettingError: if a value does not suit its annotation, is far larger than in any real
            network, or does not fit the others.
    """

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        problems = [
            problem
            for item in fields(self)  # pyright: ignore[reportArgumentType]
            for problem in _problems(item.name, getattr(self, item.name), hints[item.name])
        ]
        problems = problems or [text for is_broken, text in self.rules() if is_broken]
        if problems:
            raise SettingError(f"the configuration cannot be used: {'; '.join(problems)}")

    def rules(self) -> Iterable[tuple[Any, str]]:
        """Return how values must fit each other: whether a rule is broken, and its text."""
        return ()


def _problems(name: str, value: Any, hint: Any) -> list[str]:
    """Say what is wrong with a value."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return [] if value is None else _problems(name, value, choices[0])
    if origin is tuple and isinstance(value, tuple):
        if Ellipsis not in choices and len(value) != len(choices):
            return [f"{name} is {value!r}, not {len(choices)} numbers"]
        if choices[0] is float:  # a range, whose ends may be infinite
            return [] if all(type(one) in (int, float) for one in value) else [f"{name} is {value}"]
        return [problem for one in value for problem in _problems(name, one, choices[0])]
    low, high = int(name not in MAY_BE_ZERO), WIDEST
    if name in COUNTED or name.endswith("depth"):
        high = DEEPEST
    if hint is int:
        is_good, wanted = (
            type(value) is int and low <= value <= high,
            f"an integer from {low} to {high}",
        )
    elif hint is float:
        is_number = type(value) in (int, float)
        is_good, wanted = is_number and 0 < value < math.inf, "a positive number"
    elif origin is Literal:
        is_good, wanted = value in choices, f"one of {', '.join(map(repr, choices))}"
    else:
        is_good, wanted = (
            isinstance(value, origin or hint),
            f"of type {getattr(hint, '__name__', hint)}",
        )
    return [] if is_good else [f"{name} is {value!r}, not {wanted}"]


class NetworkConfig(Sizes):
    """Base of the frozen dataclasses that decide shapes and arithmetic of a network.

    Attributes:
        image_size: side in pixels of the images that the network was trained with.
        patch_size: side of a patch in pixels.
    """

    image_size: int
    patch_size: int

    @property
    def preparation(self) -> Preparation:
        """How images are prepared for the network."""
        return Preparation(self.image_size, self.patch_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; infinities become the string "inf"."""
        return _plain(asdict(self))  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_dict(cls: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
        """Rebuild a configuration from `to_dict`.

        Raises:
            WeightsError: if a field is unknown, or a value cannot be used.
        """
        known = {field.name for field in fields(cls)}  # pyright: ignore[reportArgumentType]
        unknown = sorted(set(values).difference(known))
        if unknown:
            raise WeightsError(
                f"the configuration has unknown fields: {', '.join(unknown)}. "
                "It may come from a newer version of ttt3r; upgrade, or convert the weights again."
            )
        try:
            return _from_json(values, cls)
        except SettingError as error:
            raise WeightsError(str(error)) from error
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(f"the configuration cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return "inf" if value == math.inf else value


def _from_json(value: Any, hint: Any) -> Any:
    """Turn JSON values into what `hint` says; may raise TypeError, ValueError or KeyError."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else _from_json(value, arguments[0])
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{key: _from_json(item, hints[key]) for key, item in dict(value).items()})
    if origin is tuple:
        return tuple(_from_json(item, arguments[0]) for item in value)
    return float(value) if hint is float else value


def heads_rule(width: int, heads: int, name: str, multiple: int = 4) -> tuple[bool, str]:
    """The rule that attention heads share channels evenly.

    Args:
        width: channels.
        heads: how many heads share them.
        name: what the heads are called in messages.
        multiple: what the channels of a head must be a multiple of; 4 where positions are rotated.
    """
    each = "" if multiple == 1 else f" with a multiple of {multiple} channels each"
    text = f"{width} channels cannot be split into {heads} {name}{each}"
    return bool(width % (multiple * heads)), text


def dpt_rules(decoder_depth: int, patch_size: int) -> list[tuple[bool, str]]:
    """The rules of dense heads that read the middle of a decoder."""
    return [
        (
            decoder_depth < 2,
            "the heads read the middle of the decoder, so decoder_depth must be 2 or more",
        ),
        (
            patch_size != 16,
            f"the DPT heads upsample by 16 and need patch_size 16, not {patch_size}",
        ),
    ]


@dataclass(frozen=True)
class DptSizes(Sizes):
    """Channel widths of a dense prediction head."""

    layers: tuple[int, int, int, int] = (96, 192, 384, 768)
    feature: int = 256
    last: int = 128


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


def mlp_ratio(shapes: Shapes, mlp: str) -> int | None:
    """Hidden width of an MLP over its input width."""
    hidden, width = (side(shapes, f"{mlp}.fc1.weight", axis, 2) for axis in (0, 1))
    return hidden // width if hidden and width else None
