"""What a network must offer, and the values that cross its boundary.

Every streaming family answers the same two verbs (`encode`, then `step`) over a state that is
passed in and handed back; nothing is kept inside the module between calls.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SessionError, SettingError
from ttt3r.geometry import se3
from ttt3r.types import ImagePolicy

# `typing.Self` cannot be checked by beartype on single methods, hence the variable.
AnyState = TypeVar("AnyState", bound="State")

OUTPUTS = ("points", "pose", "world", "rgb")


def check_outputs(outputs: Collection[str]) -> frozenset[str]:
    """Return `outputs` as a set, reading "self" as "points".

    Raises:
        SettingError: if a name is not one of "points", "pose", "world", "rgb".
    """
    names = frozenset("points" if name == "self" else name for name in outputs)
    unknown = sorted(names.difference(OUTPUTS))
    if unknown:
        raise SettingError(
            f"unknown output {', '.join(map(repr, unknown))}; choose from {', '.join(OUTPUTS)}"
        )
    return names


@dataclass(frozen=True)
class Capabilities:
    """What a family can give; commands report what is missing instead of inventing it."""

    metric_scale: bool = False
    pose: bool = False
    world_points: bool = False
    rgb: bool = False
    constant_memory: bool = False

    def check(self, outputs: Collection[str]) -> None:
        """Refuse outputs that the family cannot give.

        Raises:
            SettingError: if there are any.
        """
        given = {"points": True, "pose": self.pose, "world": self.world_points, "rgb": self.rgb}
        lacking = sorted(name for name in outputs if not given.get(name, False))
        if lacking:
            names = ", ".join(name for name, there in given.items() if there)
            raise SettingError(
                f"this family of networks cannot give {', '.join(lacking)}, only {names}"
            )


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


@dataclass(frozen=True)
class State:
    """Base of what a model carries from frame to frame.

    Subclasses are frozen dataclasses whose fields are tensors or mappings of names to tensors; the
    first axis of every tensor is the batch of independent streams.

    Attributes:
        grows: names of the fields whose tensors get larger with the stream, in any axis but the
            first.
    """

    grows: ClassVar[frozenset[str]] = frozenset()

    def to_tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; those of a mapping are named ``field.key``."""
        named: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                named.update({f"{field.name}.{key}": item for key, item in value.items()})
            else:
                named[field.name] = value
        return named

    def with_tensors(self: AnyState, named: Mapping[str, Tensor]) -> AnyState:
        """Return a state of this form filled with `named`, on this state's device.

        Raises:
            SessionError: if names, shapes or dtypes differ from this state's; of fields that grow,
                the first axis and the number of axes count.
        """
        own = self.to_tensors()
        for name in sorted(own.keys() | named.keys()):
            forms = [
                self._form(name, group[name]) if name in group else "absent"
                for group in (own, named)
            ]
            if forms[0] != forms[1]:
                raise SessionError(
                    f"the saved state does not fit this model and rule: {name} is {forms[1]}, "
                    f"expected {forms[0]}. Use the model and the rule it was saved with."
                )
        values = {
            field.name: {
                key: named[f"{field.name}.{key}"].to(item.device) for key, item in value.items()
            }
            if isinstance(value := getattr(self, field.name), Mapping)
            else named[field.name].to(value.device)
            for field in fields(self)
        }
        return replace(self, **values)

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
        """Move to a device."""
        return self.map(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class Tokens:
    """What an encoder makes of a batch of views. Does not depend on the state.

    Attributes:
        features: one token per patch, row by row.
        size: (height, width) of the views in pixels.
        has_image: samples that hold an image; only those may change the state.
    """

    features: Float[Tensor, "batch patches channels"]
    size: tuple[int, int]
    has_image: Bool[Tensor, " batch"]


@dataclass(frozen=True)
class StepOutput:
    """What one step reads out of the network; None where not asked for. See `types.Prediction`."""

    points: Float[Tensor, "batch height width 3"] | None = None
    confidence: Float[Tensor, "batch height width"] | None = None
    world_points: Float[Tensor, "batch height width 3"] | None = None
    world_confidence: Float[Tensor, "batch height width"] | None = None
    rgb: Float[Tensor, "batch height width 3"] | None = None
    pose_encoding: Float[Tensor, "batch 7"] | None = None
    gate: Float[Tensor, "batch tokens"] | None = None
    intrinsics: Float[Tensor, "batch 3 3"] | None = None


@dataclass(frozen=True)
class SetOutput:
    """What a network says of a whole set of views; None where not asked for, or not to be had.

    Attributes:
        points: 3D point of each pixel in the frame of its own camera.
        confidence: of `points`.
        world_points: 3D point of each pixel in the frame of the first camera.
        world_confidence: of `world_points`.
        world_from_camera: poses; the world is the first camera's frame.
        intrinsics: pinhole matrices in pixels, where the network predicts them or its poses were
            found with them.
    """

    points: Float[Tensor, "batch views height width 3"] | None = None
    confidence: Float[Tensor, "batch views height width"] | None = None
    world_points: Float[Tensor, "batch views height width 3"] | None = None
    world_confidence: Float[Tensor, "batch views height width"] | None = None
    world_from_camera: Float[Tensor, "batch views 4 4"] | None = None
    intrinsics: Float[Tensor, "batch views 3 3"] | None = None

    def view(self, index: int) -> StepOutput:
        """Return what was said of one view, in memory of its own."""

        def of_view(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[:, index].clone()

        pose = of_view(self.world_from_camera)
        return StepOutput(
            points=of_view(self.points),
            confidence=of_view(self.confidence),
            world_points=of_view(self.world_points),
            world_confidence=of_view(self.world_confidence),
            pose_encoding=None if pose is None else se3.encoding_from_pose(pose),
            intrinsics=of_view(self.intrinsics),
        )


@dataclass(frozen=True)
class WeightsInfo:
    """Where a model's weights come from.

    Attributes:
        name: catalogue name or file stem.
        licence: SPDX identifier or a short text.
        origin: who published them.
        sha256: of the weight file, or of the tensors when there is no file.
        trained: False for random weights, whose output means nothing.
    """

    name: str
    licence: str
    origin: str
    sha256: str
    trained: bool = True


@runtime_checkable
class StreamModel(Protocol):
    """A network that carries a state from frame to frame.

    `State` is a frozen dataclass of tensors whose first axis is the batch of independent streams.
    """

    capabilities: Capabilities
    image_policy: ImagePolicy
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
        """Return `state` with the samples of `which` as before their first frame."""
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
    ) -> tuple[Any, StepOutput]:
        """Read the state with one frame per stream and hand back the next state."""
        ...


@runtime_checkable
class SetModel(Protocol):
    """A network that looks at all views at once."""

    capabilities: Capabilities
    image_policy: ImagePolicy
    weights: WeightsInfo

    @property
    def device(self) -> torch.device:
        """Where the weights are, and images are to be."""
        ...

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
    ) -> SetOutput:
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
    ) -> StepOutput:
        """Read the state through a view that holds a ray map; nothing changes."""
        ...
