"""What differs from one family of networks to another when its weights are read."""

import logging
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from torch import Tensor

from ttt3r.errors import WeightsError
from ttt3r.models.cut3r import Cut3r
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.models.fast3r import Fast3r
from ttt3r.models.fast3r_config import Fast3rConfig
from ttt3r.models.point3r import Point3r
from ttt3r.models.point3r_config import Point3rConfig
from ttt3r.models.streamvggt import StreamVggt
from ttt3r.models.vggt import Vggt
from ttt3r.models.vggt_config import VggtConfig
from ttt3r.types import ImagePolicy
from ttt3r.weights.shapes import DEEPEST, WIDEST, Shapes, refuse_contradictions

Config = Cut3rConfig | VggtConfig | Point3rConfig | Fast3rConfig
Network = Cut3r | Vggt | StreamVggt | Point3r | Fast3r

# Raw value that the published activations turn into 2 units: expm1(1.1).
RAW_DEPTH = 1.1
MAY_BE_ZERO = frozenset({"levels", "registers"})
COUNTED = frozenset({"camera_iterations", "iterations", "rounds"})
logger = logging.getLogger("ttt3r.weights")


@dataclass(frozen=True)
class Published:
    """What a published file says of its network besides the tensors.

    Attributes:
        model_string: the constructor call that upstream would evaluate, if the file has one.
        config: content of the ``config.json`` beside the file, if it is not one of ours.
    """

    model_string: str | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OutputLayer:
    """A last layer of a head, whose random weights are chosen so that output can be looked at.

    Attributes:
        pattern: matches the layer's name.
        channels: values per pixel, the slowest axis of its bias.
        spread: factor on the random weights.
        bias: of some channels; that of the others is 0.
    """

    pattern: re.Pattern[str]
    channels: int
    spread: float
    bias: Mapping[int, float]


def points_output(pattern: str) -> OutputLayer:
    """Points about two units in front of the camera, and a confidence."""
    return OutputLayer(re.compile(pattern), 4, 0.1, {2: RAW_DEPTH})


def pose_output(pattern: str) -> OutputLayer:
    """A translation and a quaternion, real part first, that hardly move the camera."""
    return OutputLayer(re.compile(pattern), 7, 0.02, {3: 1.0})


def _as_it_is(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


@dataclass(frozen=True)
class Family:
    """A family of networks, and how its weight files are understood.

    Attributes:
        name: what descriptions, the catalogue and the command line call it.
        title: as its authors write it.
        config: class of its configurations.
        network: class of its networks.
        marks: how names of tensors begin that no other network has.
        configure: makes a configuration of the tensors' shapes and what else a file says; may
            raise `SettingError` where sizes do not fit each other.
        check: refuses a configuration that makes no sense or contradicts the tensors' shapes.
        policy: how images are prepared for a network of a configuration.
        outputs: last layers of its heads, for random weights.
        complete: adds tensors that old files lack.
        has_config_file: whether it is published with a ``config.json``.
    """

    name: str
    title: str
    config: type
    network: type
    marks: tuple[str, ...]
    configure: Callable[[Shapes, Published], Any]
    check: Callable[[Any, Shapes], None]
    policy: Callable[[Any], ImagePolicy]
    outputs: tuple[OutputLayer, ...] = ()
    complete: Callable[[dict[str, Tensor]], dict[str, Tensor]] = field(default=_as_it_is)
    has_config_file: bool = False


def released_config(
    family: str, kind: type, found: Mapping[str, Any], needed: Collection[str]
) -> Any:
    """Make a configuration of the sizes that the tensors tell.

    What they cannot tell, such as numbers of heads, is that of the released network; a warning says
    so wherever the network is another one.

    Args:
        family: its title.
        kind: class of the configuration.
        found: fields that the tensors decide.
        needed: fields without which they are no network of the family.

    Raises:
        WeightsError: if a needed field is not there.
        SettingError: if the sizes do not fit each other.
    """
    missing = [name for name in needed if name not in found]
    if missing:
        raise WeightsError(
            f"these tensors are not a {family} network: nothing in them tells "
            f"{', '.join(missing)}. Check that this is the right file."
        )
    config = kind(**found)
    if config != kind():
        logger.warning(
            "the weights do not state their configuration; sizes were read from the tensors, and "
            "what these cannot tell, such as numbers of heads, is that of the released %s network",
            family,
        )
    return config


def check_sizes(config: Any, shapes: Shapes, found: Mapping[str, Any]) -> None:
    """Check that a network of a configuration can be built and can have tensors of `shapes`.

    Args:
        config: of any family but CUT3R, whose own check is older.
        shapes: of the tensors.
        found: fields that the tensors decide.

    Raises:
        WeightsError: if a value makes no sense, or contradicts the tensors.
    """
    problems = _bad_values(config, type(config)())
    if problems:
        raise WeightsError(
            f"the configuration of these weights cannot be used: {'; '.join(problems)}"
        )
    said = {name: getattr(config, name) for name in found}
    refuse_contradictions(said, found, "configuration")


def _bad_values(config: Any, released: Any, prefix: str = "") -> list[str]:
    """Say which values are not of the kind and the order of magnitude of the released ones."""
    problems: list[str] = []
    for item in fields(config):
        value, example = getattr(config, item.name), getattr(released, item.name)
        name = prefix + item.name
        if is_dataclass(example):
            if is_dataclass(value):
                problems += _bad_values(value, example, f"{name}.")
            elif value is not None or name != "track":
                problems.append(f"{name} is {value!r}")
            continue
        examples = example if isinstance(example, tuple) else (example,)
        values = value if isinstance(value, tuple) else (value,)
        if len(values) != len(examples):
            problems.append(f"{name} has not {len(examples)} numbers")
        deep = item.name in COUNTED or item.name.endswith("depth")
        low, high = int(item.name not in MAY_BE_ZERO), DEEPEST if deep else WIDEST
        problems += [
            f"{name} is {one!r}, not {_wanted(examples[0], low, high)}"
            for one in values
            if not _is_usable(one, examples[0], low, high)
        ]
    return problems


def _is_usable(value: Any, example: Any, low: int, high: int) -> bool:
    if isinstance(example, float):
        return type(value) in (int, float) and math.isfinite(value) and value > 0
    if type(value) is not type(example):
        return False
    return type(value) is not int or low <= value <= high


def _wanted(example: Any, low: int, high: int) -> str:
    kinds = {int: f"an integer from {low} to {high}", float: "a positive number"}
    return kinds.get(type(example), f"of the kind of {example!r}")
