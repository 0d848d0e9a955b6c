"""What differs from one family of networks to another when its weights are read."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ttt3r.checkpoints.reading import Checkpoint
from ttt3r.checkpoints.shapes import Shapes, refuse_contradictions
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.config import NetworkConfig
from ttt3r.models.network import SetNetwork, StreamNetwork

# Raw value that the published activations turn into 2 units: expm1(1.1).
RAW_DEPTH = 1.1
logger = logging.getLogger("ttt3r.weights")
Fields = Mapping[str, Any]


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


@dataclass(frozen=True)
class Tiny:
    """A small network that is filled with random numbers.

    Attributes:
        name: what `load` calls it.
        title: one line about it.
        config: its configuration.
    """

    name: str
    title: str
    config: NetworkConfig


def _as_it_is(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Family:
    """A family of networks, and how its weight files are understood.

    Attributes:
        name: what descriptions, the catalogue and the command line call it.
        title: as its authors write it.
        config: class of its configurations, which also say how images are prepared.
        network: class of its networks.
        marks: how names of tensors begin that no other network has.
        found: fields of the configuration that the tensors decide; None where they are not there.
        needed: fields without which tensors are not a network of this family.
        stated: fields that the publisher states beside the tensors, completed by what was found;
            None where nothing is stated.
        untold: fields that a file without any statement has, besides those found.
        tiny: networks with random weights, for tests.
        outputs: last layers of its heads, for random weights.
        complete: adds tensors that old files lack.
        constructor: how the publisher's constructor call begins; empty if that tells nothing.
        has_config_file: whether it is published with a ``config.json``.
    """

    name: str
    title: str
    config: type[NetworkConfig]
    network: type[StreamNetwork | SetNetwork]
    marks: tuple[str, ...]
    found: Callable[[Shapes], Fields]
    needed: tuple[str, ...]
    tiny: tuple[Tiny, ...]
    stated: Callable[[Checkpoint, Fields], Fields | None] = _nothing
    untold: Callable[[Shapes, Fields], Fields | None] = _nothing
    outputs: tuple[OutputLayer, ...] = ()
    complete: Callable[[dict[str, Tensor]], dict[str, Tensor]] = _as_it_is
    constructor: str = ""
    has_config_file: bool = False

    def sizes(self, shapes: Shapes) -> dict[str, Any]:
        """Return the fields of the configuration that tensors of these shapes decide."""
        return {name: value for name, value in self.found(shapes).items() if value is not None}

    def check(self, config: NetworkConfig, shapes: Shapes) -> None:
        """Refuse a configuration that contradicts the tensors' shapes.

        Raises:
            WeightsError: naming both values of everything that differs.
        """
        found = self.sizes(shapes)
        said = {name: getattr(config, name) for name in found}
        refuse_contradictions(said, found, "configuration")

    def configure(self, shapes: Shapes, published: Checkpoint) -> NetworkConfig:
        """Make a configuration of the tensors' shapes and of what else a file says.

        What neither tells, such as numbers of heads, is that of the released network; a warning
        says so wherever the network is another one.

        Args:
            shapes: of the tensors, by their clean names.
            published: the file.

        Raises:
            WeightsError: if the tensors are not a network of this family, a statement cannot be
                read or contradicts them, or sizes do not fit each other.
        """
        found = self.sizes(shapes)
        said = self.stated(published, found)
        if said is not None:
            by_call = published.model_string is not None
            source = "constructor call" if by_call else "configuration"
            refuse_contradictions(said, found, source)
        elif missing := [name for name in self.needed if name not in found]:
            raise WeightsError(
                f"these tensors are not a {self.title} network: nothing in them tells "
                f"{', '.join(missing)}. Check that this is the right file."
            )
        values = said or {**found, **(self.untold(shapes, found) or {})}
        released = self.config()
        if said is None and any(getattr(released, name) != values[name] for name in values):
            logger.warning(
                "the weights do not state their configuration; sizes were read from the tensors, "
                "and what these cannot tell, such as numbers of heads, is that of the released %s "
                "network",
                self.title,
            )
        try:
            return self.config(**values)
        except SettingError as error:
            raise WeightsError(
                f"the sizes of this {self.title} network do not fit together: {error}. The file is "
                "incomplete, or not of the published form; get it again."
            ) from error
