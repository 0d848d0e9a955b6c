"""What CUT3R carries from frame to frame, and what passes between its parts within one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.models.base import State
from ttt3r.nn.rope import Rotary, rotary
from ttt3r.nn.tables import table


@dataclass(frozen=True)
class Cut3rState(State):
    """All that CUT3R remembers of a stream.

    Attributes:
        tokens: the state proper, float32.
        pose_memory: slots of the pose memory, float32.
        age: frames seen since the segment began.
        rule_memory: what the update rule remembers; empty before the first frame.
        pose_rule_memory: the same of the rule that writes the pose memory.
    """

    begins_empty: ClassVar[frozenset[str]] = frozenset({"rule_memory", "pose_rule_memory"})
    on_host: ClassVar[frozenset[str]] = frozenset({"age"})
    traced: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"state": "tokens", "pose_memory": "pose_memory"}
    )

    tokens: Float[Tensor, "batch tokens channels"]
    pose_memory: Float[Tensor, "batch slots wide"]
    age: Int[Tensor, " batch"]
    rule_memory: Mapping[str, Tensor] = field(default_factory=dict)
    pose_rule_memory: Mapping[str, Tensor] = field(default_factory=dict)


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


def state_positions(
    count: int, kind: Literal["1d", "2d"] = "2d", width: int = 0
) -> Int[Tensor, "count 2"]:
    """(row, column) of each state token: on a grid, or (i, i) for "1d".

    Without a `width` the grid is about as wide as high, and its width even.
    """
    index = torch.arange(count)
    if kind == "1d":
        return torch.stack((index, index), dim=1)
    if not width:
        width = isqrt(count)
        width += width % 2
    return torch.stack((index // width, index % width), dim=1)


@table
def state_rotary(
    count: int,
    kind: Literal["1d", "2d"],
    width: int,
    head_dim: int,
    base: float,
    dtype: torch.dtype,
    device: torch.device,
) -> Rotary:
    """Rotations of the state's tokens; see `state_positions` and `nn.rope.rotary`."""
    return rotary(state_positions(count, kind, width).to(device), head_dim, base, dtype)
