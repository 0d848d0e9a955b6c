"""What CUT3R carries from frame to frame, and what passes between its parts within one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.models.base import State


@dataclass(frozen=True)
class Cut3rState(State):
    """All that CUT3R remembers of a stream.

    Attributes:
        tokens: the state proper, float32.
        pose_memory: slots of the pose memory, float32.
        age: frames seen since the segment began.
        rule_memory: what the update rule remembers.
    """

    tokens: Float[Tensor, "batch tokens channels"]
    pose_memory: Float[Tensor, "batch slots wide"]
    age: Int[Tensor, " batch"]
    rule_memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """What the two decoders make of a frame and a state.

    Attributes:
        levels: patch tokens of the encoder, and of the decoder at one half, three quarters and end.
        pose_token: refined pose token.
        candidate: state that the decoder proposes.
        global_feature: mean of the frame's encoder tokens.
        projected: the decoder's input projection of the patch tokens.
    """

    levels: tuple[Tensor, Tensor, Tensor, Tensor]
    pose_token: Float[Tensor, "batch 1 channels"]
    candidate: Float[Tensor, "batch tokens channels"]
    global_feature: Float[Tensor, "batch 1 encoder_channels"]
    projected: Float[Tensor, "batch patches channels"]


def state_positions(count: int, kind: Literal["1d", "2d"] = "2d") -> Int[Tensor, "count 2"]:
    """(row, column) of each state token: on a grid of even width, or (i, i) for "1d"."""
    index = torch.arange(count)
    if kind == "1d":
        return torch.stack((index, index), dim=1)
    width = isqrt(count)
    width += width % 2
    return torch.stack((index // width, index % width), dim=1)
