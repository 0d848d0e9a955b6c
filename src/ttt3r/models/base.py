"""What a network must offer, and the values that cross its boundary.

Every streaming family answers the same two verbs (`encode`, then `step`) over a state that is
passed in and handed back; nothing is kept inside the module between calls.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SessionError, SettingError
from ttt3r.geometry import se3
from ttt3r.types import OUTPUTS, Preparation, Reading

# `typing.Self` cannot be checked by beartype on single methods, hence the variable.
AnyState = TypeVar("AnyState", bound="State")


@dataclass(frozen=True)
class Capabilities:
    """What a network can give; commands report what is missing instead of inventing it.

    Attributes:
        outputs: names of outputs, see `ttt3r.types.Reading`.
        metric_scale: whether lengths are metres.
        constant_memory: whether the state stays as large as it is.
    """

    outputs: tuple[str, ...] = ("points", "pose", "world")
    metric_scale: bool = False
    constant_memory: bool = False

    def check(self, outputs: Collection[str]) -> frozenset[str]:
        """Return `outputs` as a set, reading "self" as "points".

        Raises:
            SettingError: if a name is unknown, or the network cannot give an output.
        """
        names = frozenset("points" if name == "self" else name for name in outputs)
        unknown = sorted(names.difference(OUTPUTS))
        if unknown:
            raise SettingError(
                f"unknown output {', '.join(map(repr, unknown))}; choose from {', '.join(OUTPUTS)}"
            )
        lacking = sorted(names.difference(self.outputs))
        if lacking:
            raise SettingError(
                f"this network cannot give {', '.join(lacking)}, only {', '.join(self.outputs)}; "
                "leave the former out, or load other weights"
            )
        return names


@dataclass(frozen=True)
class Views:
    """A batch of network inputs of one size: images, ray maps, or both.

    Attributes:
        image: RGB in [-1, 1].
        ray_map: camera position and direction per pixel, see `geometry.camera.ray_map`.
        has_image: which samples use `image`; None means all of them.
        has_ray_map: which samples use `ray_map`; None means all of them.
    """

    image: Float[Tensor, "batch 3 height width"] | None = None
    ray_map: Float[Tensor, "batch height width 6"] | None = None
    has_image: Bool[Tensor, " batch"] | None = None
    has_ray_map: Bool[Tensor, " batch"] | None = None


def only_images(views: Views) -> Float[Tensor, "batch 3 height width"]:
    """Return the images of views, for networks that read nothing else.

    Raises:
        SettingError: if there is no image, or there are ray maps.
    """
    if views.image is None or views.ray_map is not None:
        raise SettingError(
            "this network reads images only: give images and no ray maps, or use CUT3R"
        )
    return views.image


@dataclass(frozen=True)
class State:
    """Base of what a model carries from frame to frame.

    Subclasses are frozen dataclasses whose fields are tensors or mappings of names to tensors; the
    first axis of every tensor is the batch of independent streams.

    Attributes:
        grows: names of the fields whose tensors get larger with the stream, in any axis but the
            first.
        begins_empty: names of the fields that are mappings, empty before the first frame.
        on_host: names of the fields that say what to compute, such as ages; they stay on the CPU
            (see `ttt3r.masks`).
        traced: fields whose change from frame to frame means something, by what a trace calls
            them: "state", "pose_memory".
    """

    grows: ClassVar[frozenset[str]] = frozenset()
    begins_empty: ClassVar[frozenset[str]] = frozenset()
    on_host: ClassVar[frozenset[str]] = frozenset()
    traced: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def memories(self) -> dict[str, Tensor]:
        """Return the fields that are traced, by what a trace calls them."""
        return {name: getattr(self, field) for name, field in self.traced.items()}

    def to_tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; those of a mapping are named ``field.key``."""
        named: dict[str, Tensor] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Mapping):
                named |= {f"{item.name}.{key}": tensor for key, tensor in value.items()}
            else:
                named[item.name] = value
        return named

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: about what a saved session holds."""
        values: list[Any] = [getattr(self, field.name) for field in fields(self)]
        return sum(
            value.nbytes
            if hasattr(value, "nbytes")
            else sum(item.nbytes for item in value.values())
            for value in values
        )

    def with_tensors(self: AnyState, named: Mapping[str, Tensor]) -> AnyState:
        """Return a state of this form filled with `named`, on this state's device.

        Raises:
            SessionError: if names, shapes or dtypes differ from this state's; of fields that grow,
                the first axis and the number of axes count. Fields that begin empty take any
                names and shapes; only the first axis counts.
        """
        free = tuple(f"{name}." for name in self.begins_empty)
        own = {name: item for name, item in self.to_tensors().items() if not name.startswith(free)}
        late = {name: item for name, item in named.items() if free and name.startswith(free)}
        batch = {item.shape[:1] for item in (*own.values(), *late.values())}
        if len(batch) > 1:
            raise SessionError("the saved state does not fit this model: its batches differ")
        for name in sorted(own.keys() | named.keys() - late.keys()):
            forms = [
                self._form(name, group[name]) if name in group else "absent"
                for group in (own, named)
            ]
            if forms[0] != forms[1]:
                raise SessionError(
                    f"the saved state does not fit this model and rule: {name} is {forms[1]}, "
                    f"expected {forms[0]}. Use the model and the rule it was saved with."
                )
        values: dict[str, Any] = {
            field.name: {
                name.removeprefix(f"{field.name}."): item
                for name, item in named.items()
                if name.startswith(f"{field.name}.")
            }
            if isinstance(getattr(self, field.name), Mapping)
            else named[field.name]
            for field in fields(self)
        }
        devices = (item.device for name, item in own.items() if name not in self.on_host)
        return replace(self, **values).to(next(devices, torch.device("cpu")))

    def _form(self, name: str, tensor: Tensor) -> tuple[tuple[int | None, ...], torch.dtype]:
        """What a saved tensor of this name must have in common with this state's."""
        shape: tuple[int | None, ...] = tuple(tensor.shape)
        if name.partition(".")[0] in self.grows:
            shape = (shape[0], *(None for _ in shape[1:]))
        return shape, tensor.dtype

    def map(self: AnyState, function: Callable[..., Tensor], *others: AnyState) -> AnyState:
        """Apply `function` to each tensor, together with the same tensor of `others`."""
        rest = [other.to_tensors() for other in others]
        return replace(
            self,
            **{
                field.name: {
                    key: function(item, *(other[f"{field.name}.{key}"] for other in rest))
                    for key, item in value.items()
                }
                if isinstance(value := getattr(self, field.name), Mapping)
                else function(value, *(other[field.name] for other in rest))
                for field in fields(self)
            },
        )

    def to(self: AnyState, device: torch.device | str) -> AnyState:
        """Move to a device, but for what stays on the CPU."""
        moved = self.map(lambda tensor: tensor.to(device))
        return replace(moved, **{name: getattr(self, name).cpu() for name in self.on_host})


@dataclass(frozen=True)
class Tokens:
    """What an encoder makes of a batch of views. Does not depend on the state.

    Attributes:
        features: one token per patch, row by row.
        size: (height, width) of the views in pixels.
        has_image: samples that hold an image, on the CPU; only those may change the state.
    """

    features: Float[Tensor, "batch patches channels"]
    size: tuple[int, int]
    has_image: Bool[Tensor, " batch"]

    def written(self, update: Bool[Tensor, " batch"] | None = None) -> Bool[Tensor, " batch"]:
        """Return which streams' state the frame may change, on the CPU.

        Args:
            update: streams whose state may change; None means all.
        """
        here = self.has_image.cpu()
        return here if update is None else here & update.cpu()


def poses_of(reading: Reading) -> Float[Tensor, "*batch 4 4"] | None:
    """Return camera poses as matrices, in whichever form the network gave them."""
    if reading.world_from_camera is not None or reading.pose_encoding is None:
        return reading.world_from_camera
    return se3.pose_from_encoding(reading.pose_encoding)


@dataclass(frozen=True)
class WeightsInfo:
    """What a set of weights is; converted files carry this as their ``config.json``.

    Attributes:
        name: catalogue name, or name of the file or the download.
        licence: SPDX identifier, a short text, or "unknown".
        origin: who published them, or "unknown".
        sha256: of the weight file, or of the tensors when there is no file.
        trained: False for random weights, whose output means nothing.
        config: the network's configuration; its class tells the family.
        preparation: how images are prepared for the network.
        filename: name of the weight file; empty if there is none.
        pose_from: where poses come from unless a session says otherwise, see
            `ttt3r.stream.posing`; None for the pose head.
    """

    name: str
    licence: str
    origin: str
    sha256: str
    trained: bool = True
    config: Any = None
    preparation: Preparation | None = None
    filename: str = field(default="", compare=False)
    pose_from: str | None = None


@runtime_checkable
class StreamModel(Protocol):
    """A network that carries a state from frame to frame.

    `State` is a frozen dataclass of tensors whose first axis is the batch of independent streams.
    """

    capabilities: Capabilities
    preparation: Preparation
    weights: WeightsInfo

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images are to be."""
        ...

    def parse_rule(self, rule: Any = None) -> Any:
        """Return how the state is updated: from its text, as it is, or the family's own if None.

        Families have rules of different kinds: `ttt3r.rules` for recurrent states, cache policies,
        memory rules. All are frozen dataclasses that `ttt3r.values` can write as text.

        Raises:
            SettingError: if a text names no rule of this family.
        """
        ...

    def initial_state(self, rule: Any, batch: int = 1) -> Any:
        """State of `batch` streams before their first frame."""
        ...

    def reset(self, state: Any, rule: Any, which: Bool[Tensor, " batch"]) -> Any:
        """Return `state` with the samples of `which` as before their first frame.

        Masks lie on the CPU, see `ttt3r.masks`; so does `update` of `step`.
        """
        ...

    def encode(self, views: Views) -> Tokens:
        """Turn views into tokens; stateless, so time or streams may be batched."""
        ...

    def step(
        self,
        state: Any,
        tokens: Tokens,
        rule: Any,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[Any, Reading]:
        """Read the state with one frame per stream and hand back the next state."""
        ...


@runtime_checkable
class SetModel(Protocol):
    """A network that looks at all views at once."""

    capabilities: Capabilities
    preparation: Preparation
    weights: WeightsInfo

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images are to be."""
        ...

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
    ) -> Reading:
        """Look at sets of views, RGB in [-1, 1]; the first view is the world."""
        ...


@runtime_checkable
class QueryModel(StreamModel, Protocol):
    """A streaming model that can also say what a camera would see."""

    def encode(self, views: Views, absent: Literal["zero", "token"] = "zero") -> Tokens:
        """Turn views into tokens; `absent` stands for an image or ray map that is not there."""
        ...

    def query(
        self, state: Any, tokens: Tokens, outputs: Collection[str] = ("points", "rgb")
    ) -> Reading:
        """Read the state through a view that holds a ray map; nothing changes."""
        ...
