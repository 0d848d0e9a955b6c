"""A network that looks once at a sequence, and says the same again to every later session."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ttt3r.models.base import State, StreamModel, Tokens, Views
from ttt3r.stream.placing import read_image
from ttt3r.types import Frame, Reading

OUTPUTS = ("points", "pose", "world")


@dataclass(frozen=True)
class Counted(State):
    """How many frames were seen."""

    age: Int[Tensor, " batch"]


class Replayed:
    """What a network says of some frames under its own rule, without resets.

    Args:
        model: the network.
        frames: prepared ones; sessions are shown just these, in order.
    """

    @torch.no_grad()
    def __init__(self, model: StreamModel, frames: Sequence[Frame]) -> None:
        self.capabilities, self.preparation = model.capabilities, model.preparation
        self.weights, self.device = model.weights, model.device
        self.parse_rule = model.parse_rule
        self._said: list[Reading] = []
        rule = model.parse_rule()
        state = model.initial_state(rule)
        for index, frame in enumerate(frames):
            image = read_image(frame, index).pixels[None].to(model.device)
            state, output = model.step(state, model.encode(Views(image=image)), rule, OUTPUTS)
            self._said.append(output)

    def initial_state(self, rule: Any, batch: int = 1) -> Counted:
        """Before the first frame."""
        return Counted(torch.zeros(batch, dtype=torch.int64))

    def reset(self, state: Counted, rule: Any, which: Bool[Tensor, " batch"]) -> Counted:
        """Not possible: what a fresh state says was not asked."""
        raise NotImplementedError("answers are replayed without resets")

    def encode(self, views: Views) -> Tokens:
        """Say how large the image is."""
        assert views.image is not None
        height, width = views.image.shape[-2:]
        return Tokens(torch.zeros(1, 1, 1), (height, width), torch.tensor([True]))

    def step(
        self,
        state: Counted,
        tokens: Tokens,
        rule: Any,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[Counted, Reading]:
        """Say what was said of this frame."""
        return Counted(state.age + 1), self._said[int(state.age)].only(outputs)
