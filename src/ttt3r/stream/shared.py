"""Frames that two segments share: what is kept of them until the older segment ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from ttt3r.models.base import Tokens
from ttt3r.stream.placing import first, pose_of
from ttt3r.stream.stitching import Seen
from ttt3r.types import Reading


@dataclass(frozen=True)
class Shared:
    """A frame that is to be shown again to a fresh state.

    Attributes:
        tokens: what the encoder made of it.
        seen: as the older segment saw it.
        update: whether it is remembered, on the CPU.
    """

    tokens: Tokens
    seen: Seen
    update: Bool[Tensor, "1"]


def seen_of(output: Reading) -> Seen:
    """What stitching takes of a step's output, of the first sample of its batch."""
    return Seen(pose_of(output), first(output.points), first(output.confidence))


def to_tensors(frames: Sequence[Shared]) -> dict[str, Tensor]:
    """Write frames as tensors by name, such as ``0.features``."""
    named: dict[str, Tensor] = {}
    for number, frame in enumerate(frames):
        parts = {
            "features": frame.tokens.features,
            "size": torch.tensor(frame.tokens.size),
            "has_image": frame.tokens.has_image,
            "update": frame.update,
            "pose": frame.seen.segment_from_camera,
            "points": frame.seen.points,
            "confidence": frame.seen.confidence,
        }
        named |= {f"{number}.{name}": item for name, item in parts.items() if item is not None}
    return named


def from_tensors(named: Mapping[str, Tensor], device: torch.device) -> tuple[Shared, ...]:
    """Read what `to_tensors` wrote.

    Args:
        named: the tensors.
        device: where the model computes.

    Raises:
        ValueError: if a tensor is missing.
    """
    frames = []
    for number in range(len({name.partition(".")[0] for name in named})):
        here = {
            name.removeprefix(f"{number}."): item
            for name, item in named.items()
            if name.startswith(f"{number}.")
        }
        moved = {
            name: here[name].to(device)
            for name in ("features", "points", "confidence")
            if name in here
        }
        try:
            height, width = here["size"].tolist()
            tokens = Tokens(moved["features"], (height, width), here["has_image"])
            seen = Seen(here["pose"], moved.get("points"), moved.get("confidence"))
            frames.append(Shared(tokens, seen, here["update"]))
        except KeyError as error:
            raise ValueError(f"a shared frame lacks {error}") from error
    return tuple(frames)
