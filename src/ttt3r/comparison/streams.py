"""Streams of one input under several rules, which share all that does not depend on the state."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ttt3r.models.base import StreamModel, Tokens, Views
from ttt3r.rules import Rule
from ttt3r.rules.several import Several
from ttt3r.stream.placing import PushedImage, needed_for, place, read_image
from ttt3r.types import Prediction


@dataclass
class _Group:
    """Streams that step together."""

    rule: Any
    size: int
    state: Any


class Streams:
    """Pushes each frame into one stream per rule; there are no resets.

    A frame is encoded once. Where the rules are those of `ttt3r.rules`, the streams then go through
    the decoders as one batch; rules of other families step one after the other.

    Args:
        model: the network.
        rules: as `StreamModel.parse_rule` takes them.
        batched: whether to step as one batch where that is possible.

    Raises:
        SettingError: if a rule is none of this family.
    """

    def __init__(self, model: StreamModel, rules: Sequence[Any], *, batched: bool = True) -> None:
        self.model = model
        self.rules = [model.parse_rule(rule) for rule in rules]
        self.index = 0
        with torch.no_grad():
            self._groups = [
                _Group(rule, size, model.initial_state(rule, size))
                for rule, size in self._grouped(batched)
            ]

    def _grouped(self, batched: bool) -> list[tuple[Any, int]]:
        own = [rule for rule in self.rules if isinstance(rule, Rule)]
        if batched and len(own) == len(self.rules) > 1:
            return [(Several(tuple(own)), len(own))]
        return [(rule, 1) for rule in self.rules]

    @torch.no_grad()
    def push(
        self, image: PushedImage, outputs: Collection[str] = ("points", "pose")
    ) -> list[Prediction]:
        """Take in the next frame, and say for each rule what it shows.

        Args:
            image: as `Session.push` takes it.
            outputs: what to compute; may differ from frame to frame.

        Raises:
            InputError: if the image has the wrong form.
            SettingError: if the image's size does not fit the model, or it cannot give an output.
        """
        wanted = self.model.capabilities.check(outputs)
        shown = read_image(image, self.index)
        needed = wanted | needed_for(wanted, [shown], self.model.capabilities)
        tokens = self.model.encode(Views(image=shown.pixels[None].to(self.model.device)))
        said: list[Prediction] = []
        here = torch.eye(4, dtype=torch.float64)
        for group in self._groups:
            group.state, output = self.model.step(
                group.state, _repeated(tokens, group.size), group.rule, needed
            )
            for sample in range(group.size):
                own = output.map(lambda tensor, s=sample: tensor[s : s + 1])
                said.append(place(own, shown, self.index, wanted, 0, here, 0.0).to("cpu"))
        self.index += 1
        return said


def _repeated(tokens: Tokens, count: int) -> Tokens:
    """The tokens of one frame for a batch of streams, without copies."""
    return replace(
        tokens,
        features=tokens.features.expand(count, -1, -1),
        has_image=tokens.has_image.expand(count),
    )
