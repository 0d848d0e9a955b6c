"""Networks that look at all views at once as streams, and streams as such networks.

A stream of looks looks again at all frames with every new one: that is what an answer per frame
costs with such a network. Where a clip is there as a whole, `SetModel.predict` looks once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.models.base import (
    SetModel,
    State,
    StreamModel,
    Tokens,
    Views,
    only_images,
    poses_of,
)
from ttt3r.models.growing import Entries
from ttt3r.models.streamvggt.policies import KeepAll, Window
from ttt3r.types import Reading


@dataclass(frozen=True)
class Once(values.Value):
    """Look once at a whole clip, when it has ended: for `stream.clips`, not for single frames."""

    name: ClassVar[str] = "once"


POLICIES = values.Registry("policy", [Once, KeepAll, Window], default=Once())


@dataclass(frozen=True)
class SetState(State):
    """The images so far.

    Attributes:
        age: frames remembered by each stream, of which a window may have dropped some; on the CPU.
        images: RGB in [-1, 1], oldest first, [batch, frames, 3, height, width] by the name "rgb".
    """

    grows: ClassVar[frozenset[str]] = frozenset({"images"})
    on_host: ClassVar[frozenset[str]] = frozenset({"age"})

    age: Int[Tensor, " batch"]
    images: Mapping[str, Tensor]


class _Adapter:
    """What an adapter has from the network behind it."""

    def __init__(self, model: StreamModel | SetModel) -> None:
        self.model = model
        self.capabilities = model.capabilities
        self.preparation = model.preparation
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
        policy = KeepAll() if rule is None else POLICIES.parse(rule)
        if isinstance(policy, Once):
            raise SettingError(
                '"once" answers when a clip has ended, as ttt3r.reconstruct and the commands do; a '
                'session that answers for each frame takes "keep_all" or "window(FRAMES)"'
            )
        return policy

    def initial_state(self, rule: KeepAll | Window, batch: int = 1) -> SetState:
        """State of `batch` streams before their first frame."""
        return SetState(
            age=torch.zeros(batch, dtype=torch.int64),
            images={"rgb": torch.zeros(batch, 0, 3, 0, 0, device=self.device)},
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
        image, here = only_images(views), views.has_image
        if here is None:
            here = torch.ones(len(image), dtype=torch.bool)
        self._all_or_none(here, "have an image")
        return Tokens(image.flatten(2).mT, (image.shape[-2], image.shape[-1]), here)

    def step(
        self,
        state: SetState,
        tokens: Tokens,
        rule: KeepAll | Window,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[SetState, Reading]:
        """Look at all frames that are kept and the new one, and answer for that.

        Raises:
            SettingError: if the images change their size, or the streams of a batch do not update
                together.
        """
        image = tokens.features.mT.unflatten(2, tokens.size)
        if update is not None:
            self._all_or_none(update, "update")
        past = Entries.of(state.images, 1)
        kept = past.buffer("rgb")
        if past.count and kept.shape[-2:] != image.shape[-2:]:
            raise SettingError(
                f"this stream has images of {kept.shape[-1]}x{kept.shape[-2]} pixels, and now one "
                f"of {image.shape[-1]}x{image.shape[-2]}; begin another stream"
            )
        seen = past.take() if past.count else None
        if seen is None:
            rows = [list(range(past.count))] * len(image)
            seen = past.moved(rows, rule.frames, {"rgb": image.shape[1:]}).take()
            assert seen is not None  # what was just moved has room
        seen.buffer("rgb")[:, seen.slots[-1]] = image
        output = self.model.predict(seen.read("rgb"), outputs).view(-1)
        if update is not None and not bool(update.any()):
            return state, output
        if rule.frames is not None and seen.count > rule.frames:
            seen = seen.keep([0, *range(seen.count - rule.frames + 1, seen.count)])
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
    ) -> Reading:
        """Show the views one after the other; what is said of one knows those before it.

        Raises:
            SettingError: if an output is unknown, an image does not suit the network, or there is
                none.
        """
        if not images.shape[1]:
            raise SettingError("a set needs at least one view")
        state = self.model.initial_state(self.rule, len(images))
        said: list[Reading] = []
        for image in images.unbind(1):
            tokens = self.model.encode(Views(image=image))
            state, output = self.model.step(state, tokens, self.rule, outputs)
            said.append(output)
        output = Reading.stack(said)
        return replace(output, world_from_camera=poses_of(output))


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
