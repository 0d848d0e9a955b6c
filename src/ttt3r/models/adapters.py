"""Networks that look at all views at once as streams, and streams as such networks.

A stream of looks looks again at all frames with every new one: that is what an answer per frame
costs with such a network. Where a clip is there as a whole, `SetModel.predict` looks once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.models.base import (
    SetModel,
    SetOutput,
    State,
    StepOutput,
    StreamModel,
    Tokens,
    Views,
)
from ttt3r.models.streamvggt_policies import KeepAll, Window


@dataclass(frozen=True)
class Once:
    """Look once at a whole clip, when it has ended: for `stream.clips`, not for single frames."""

    name: ClassVar[str] = "once"


POLICIES: dict[str, type] = {"once": Once, "keep_all": KeepAll, "window": Window}


def parse_policy(rule: Any = None) -> Once | KeepAll | Window:
    """Return how a network that looks at all views at once is shown a stream; None means "once".

    Raises:
        SettingError: if a text names no policy.
    """
    if rule is None:
        return Once()
    return values.from_text(rule, POLICIES, "policy") if isinstance(rule, str) else rule


@dataclass(frozen=True)
class SetState(State):
    """The images so far.

    Attributes:
        age: frames remembered by each stream, of which a window may have dropped some.
        images: RGB in [-1, 1], oldest first.
    """

    grows: ClassVar[frozenset[str]] = frozenset({"images"})

    age: Int[Tensor, " batch"]
    images: Float[Tensor, "batch frames 3 height width"]


class _Adapter:
    """What an adapter has from the network behind it."""

    def __init__(self, model: StreamModel | SetModel) -> None:
        self.model = model
        self.capabilities = model.capabilities
        self.image_policy = model.image_policy
        self.weights = model.weights

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device


class SetStream(_Adapter):
    """Offers a `SetModel` as a `StreamModel`.

    A step appends the frame, looks at all frames, and answers for the last one. Time per frame
    and memory grow with the stream. The world is the first frame's camera, but the unit of length
    may differ from step to step, because every step is a new look.

    Args:
        model: the network.
    """

    model: SetModel

    def parse_rule(self, rule: Any = None) -> KeepAll | Window:
        """Return which frames are kept: "keep_all" (None), or "window(32)" with the first frame.

        Raises:
            SettingError: if the text names neither.
        """
        policy = KeepAll() if rule is None else parse_policy(rule)
        if isinstance(policy, Once):
            raise SettingError(
                '"once" answers when a clip has ended, as ttt3r.reconstruct and the commands do; a '
                'session that answers for each frame takes "keep_all" or "window(FRAMES)"'
            )
        return policy

    def initial_state(self, rule: KeepAll | Window, batch: int = 1) -> SetState:
        """State of `batch` streams before their first frame."""
        return SetState(
            age=torch.zeros(batch, dtype=torch.int64, device=self.device),
            images=torch.zeros(batch, 0, 3, 0, 0, device=self.device),
        )

    def reset(
        self, state: SetState, rule: KeepAll | Window, which: Bool[Tensor, " batch"]
    ) -> SetState:
        """Return `state` with the samples of `which` as before their first frame.

        Raises:
            SettingError: if `which` picks some streams and not others, whose frames then differ in
                number.
        """
        if not bool(which.any()):
            return state
        self._all_or_none(which, "reset")
        return self.initial_state(rule, len(state.age))

    def encode(self, views: Views) -> Tokens:
        """Take images as they are: a token per pixel.

        Raises:
            SettingError: if there are none, or ray maps.
        """
        if views.image is None or views.ray_map is not None:
            raise SettingError("this family takes images only")
        size = views.image.shape[-2], views.image.shape[-1]
        here = views.has_image
        if here is None:
            here = torch.ones(len(views.image), dtype=torch.bool, device=views.image.device)
        self._all_or_none(here, "have an image")
        return Tokens(views.image.flatten(2).mT, size, here)

    def step(
        self,
        state: SetState,
        tokens: Tokens,
        rule: KeepAll | Window,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[SetState, StepOutput]:
        """Look at all frames that are kept and the new one, and answer for that.

        Raises:
            SettingError: if the images change their size, or the streams of a batch do not update
                together.
        """
        image = tokens.features.mT.unflatten(2, tokens.size)[:, None]
        kept = state.images
        if kept.shape[1] and kept.shape[-2:] != image.shape[-2:]:
            raise SettingError(
                f"this stream has images of {kept.shape[-1]}x{kept.shape[-2]} pixels, and now one "
                f"of {image.shape[-1]}x{image.shape[-2]}; begin another stream"
            )
        seen = torch.cat([kept, image], dim=1) if kept.shape[1] else image
        output = self.model.predict(seen, outputs).view(-1)
        if update is not None:
            self._all_or_none(update, "update")
            if not bool(update.any()):
                return state, output
        if rule.frames is not None and seen.shape[1] > rule.frames:
            seen = torch.cat([seen[:, :1], seen[:, seen.shape[1] - rule.frames + 1 :]], dim=1)
        return SetState(age=state.age + 1, images=seen), output

    @staticmethod
    def _all_or_none(which: Bool[Tensor, " batch"], what: str) -> None:
        if bool(which.any()) and not bool(which.all()):
            raise SettingError(f"all streams of a batch must {what} together in this family")


class StreamSet(_Adapter):
    """Offers a `StreamModel` as a `SetModel`: each look is a stream of its own, in the order given.

    Args:
        model: the network.
        rule: how the state is updated; None takes the family's own.
    """

    model: StreamModel

    def __init__(self, model: StreamModel, rule: Any = None) -> None:
        super().__init__(model)
        self.rule = model.parse_rule(rule)

    def predict(
        self,
        images: Float[Tensor, "batch views 3 height width"],
        outputs: Collection[str] = ("points", "pose"),
    ) -> SetOutput:
        """Show the views one after the other; what is said of one knows those before it.

        Raises:
            SettingError: if an output is unknown, an image does not suit the network, or there is
                none.
        """
        if not images.shape[1]:
            raise SettingError("a set needs at least one view")
        state = self.model.initial_state(self.rule, len(images))
        said: list[StepOutput] = []
        for image in images.unbind(1):
            tokens = self.model.encode(Views(image=image))
            state, output = self.model.step(state, tokens, self.rule, outputs)
            said.append(output)
        encodings = _stacked([output.pose_encoding for output in said])
        return SetOutput(
            points=_stacked([output.points for output in said]),
            confidence=_stacked([output.confidence for output in said]),
            world_points=_stacked([output.world_points for output in said]),
            world_confidence=_stacked([output.world_confidence for output in said]),
            world_from_camera=None if encodings is None else se3.pose_from_encoding(encodings),
            intrinsics=_stacked([output.intrinsics for output in said]),
        )


def as_stream(model: StreamModel | SetModel) -> StreamModel:
    """Return a model that streams: the model itself if it can, else a `SetStream` of it."""
    return model if isinstance(model, StreamModel) else SetStream(model)


def as_set(model: StreamModel | SetModel, rule: Any = None) -> SetModel:
    """Return a model that looks at sets: the model itself if it does, else a `StreamSet` of it.

    Args:
        model: the network.
        rule: how a streaming model's state is updated.

    Raises:
        SettingError: if the rule is unknown, or is given for a model that has none.
    """
    if isinstance(model, StreamModel):
        return StreamSet(model, rule)
    if rule is not None:
        raise SettingError("this model looks at all views at once and takes no rule")
    return model


def _stacked(items: Sequence[Tensor | None]) -> Tensor | None:
    """Stack what was said of each view, if it was said of all."""
    there = [item for item in items if item is not None]
    return torch.stack(there, 1) if len(there) == len(items) else None
