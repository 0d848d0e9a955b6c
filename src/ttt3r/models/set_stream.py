"""A network that looks at all views at once, as a stream: with every frame it looks again at all.

That is what such a network costs where answers are wanted while frames arrive. Where they are not,
`SetModel.predict` looks once.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

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

POLICIES: dict[str, type] = {"keep_all": KeepAll, "window": Window}


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


class SetStream:
    """Offers a `SetModel` as a `StreamModel`.

    A step appends the frame, looks at all frames, and answers for the last one. Time per frame
    and memory grow with the stream. The world is the first frame's camera, but the unit of length
    may differ from step to step, because every step is a new look.

    Args:
        model: the network.
    """

    def __init__(self, model: SetModel) -> None:
        self.model = model
        self.capabilities = model.capabilities
        self.image_policy = model.image_policy
        self.weights = model.weights

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device  # pyright: ignore[reportAttributeAccessIssue]

    def parse_rule(self, rule: str | KeepAll | Window | None = None) -> KeepAll | Window:
        """Return which frames are kept: "keep_all" (None), or "window(32)" with the first frame.

        Raises:
            SettingError: if the text names neither.
        """
        if rule is None:
            return KeepAll()
        return values.from_text(rule, POLICIES, "policy") if isinstance(rule, str) else rule

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
        output = _last(self.model.predict(seen, outputs))
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


def as_stream(model: StreamModel | SetModel) -> StreamModel:
    """Return a model that streams: the model itself if it can, else a `SetStream` of it."""
    return model if isinstance(model, StreamModel) else SetStream(model)


def _last(output: SetOutput) -> StepOutput:
    """Return what was said of the last view."""

    def last(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:, -1]

    pose = last(output.world_from_camera)
    return StepOutput(
        points=last(output.points),
        confidence=last(output.confidence),
        world_points=last(output.world_points),
        world_confidence=last(output.world_confidence),
        pose_encoding=None if pose is None else se3.encoding_from_pose(pose),
        intrinsics=last(output.intrinsics),
    )
