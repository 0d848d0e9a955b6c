"""Resets that look at what the stream shows, and end a segment where it calls for it.

A policy keeps a small memory of its segment, a mapping of names to tensors, which begins empty with
every segment and is saved with the session. The frames that two segments share are the first that
a new segment's memory sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics, project
from ttt3r.geometry.focal import focal_from_points
from ttt3r.models.base import State
from ttt3r.stream.placing import pose_of
from ttt3r.types import Reading

Memory = Mapping[str, Tensor]


class Look(NamedTuple):
    """A frame that was remembered, in its segment's own units.

    Attributes:
        output: what the network said, a batch of one; `gate` is None of a segment's first frame.
        state: what is remembered after it.
    """

    output: Reading
    state: Any


class Verdict(NamedTuple):
    """What a policy makes of a frame.

    Attributes:
        ends: whether the frame is the last of its segment.
        memory: what the policy remembers after it.
    """

    ends: bool
    memory: Memory


@runtime_checkable
class Watching(Protocol):
    """Decides by what was seen where segments end. Implementations are frozen dataclasses.

    Attributes:
        outputs: what it must be told of each frame.
        remembers: names of the tensors of its memory, once it has one.
    """

    name: ClassVar[str]
    outputs: ClassVar[frozenset[str]]
    remembers: ClassVar[frozenset[str]]

    @property
    def overlap(self) -> int:
        """How many frames two segments share."""
        ...

    def watch(self, look: Look, memory: Memory) -> Verdict:
        """Look at a frame. `memory` is empty where nothing of the segment was seen yet."""
        ...


def check_overlap(overlap: int, frames: int) -> None:
    """Check how many frames two segments are to share.

    Raises:
        SettingError: if there is none, or a segment of so few frames has not as many.
    """
    if not 1 <= overlap <= frames:
        raise SettingError(
            f"the overlap must be from 1 to {frames}, the frames of a segment, not {overlap}"
        )


@dataclass(frozen=True)
class Keyframes(values.Value):
    """A segment ends where the camera sees little of what the segment began with.

    What counts is the share of the points of the segment's first frame that still project into the
    image. Points that something else hides count as seen; so a camera that backs away sees all.

    Args:
        share: of the points, above 0 and below 1; a segment ends where fewer are seen.
        at_least: frames that a segment has at least, those it shares with the one before included.
        overlap: how many frames two segments share; fewer where a segment has not as many of its
            own.

    Raises:
        SettingError: if a value is out of range.
    """

    share: float = 0.5
    at_least: int = 10
    overlap: int = 1

    name: ClassVar[str] = "keyframes"
    outputs: ClassVar[frozenset[str]] = frozenset({"points", "pose"})
    remembers: ClassVar[frozenset[str]] = frozenset({"frames", "points", "intrinsics"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.share < 1.0:
            raise SettingError(f"the share must lie between 0 and 1, not {self.share}")
        if self.at_least < 2:
            raise SettingError(f"a segment needs at least 2 frames, not {self.at_least}")
        check_overlap(self.overlap, self.at_least - 1)

    def watch(self, look: Look, memory: Memory) -> Verdict:
        """Compare with the first frame that has a pose and a focal length."""
        assert look.output.points is not None
        points = look.output.points[0].double().cpu()
        pose = pose_of(look.output)
        if not memory:
            return Verdict(False, _first_view(look.output, points, pose))
        memory = {**memory, "frames": memory["frames"] + 1}
        if int(memory["frames"]) < self.at_least or not bool(pose.isfinite().all()):
            return Verdict(False, memory)
        height, width = points.shape[:2]
        seen = share_in_view(memory["points"], pose, memory["intrinsics"], (height, width))
        return Verdict(seen < self.share, memory)


def share_in_view(
    points: Float[Tensor, "points 3"],
    segment_from_camera: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
) -> float:
    """Share of points that project into an image of `size` (height, width)."""
    local = se3.apply(se3.invert(segment_from_camera), points)
    pixels = project(local, intrinsics)
    limits = torch.tensor([size[1], size[0]], dtype=pixels.dtype)
    # Pixel centres are at integers, so an image reaches from -½ to its side less ½.
    inside = ((pixels >= -0.5) & (pixels < limits - 0.5)).all(1) & (local[:, 2] > 0)
    return float(inside.double().mean())


SAMPLES = 32  # points of a segment's first frame that are kept, along each side


def _first_view(output: Reading, points: Tensor, pose: Tensor) -> Memory:
    """What is kept of a segment's first frame; nothing if it cannot serve as one."""
    height, width = points.shape[:2]
    if output.intrinsics is None:
        intrinsics = default_intrinsics((height, width), focal_from_points(points))
    else:
        intrinsics = output.intrinsics[0].double().cpu()
    rows, columns = (
        ((torch.arange(SAMPLES) + 0.5) * side / SAMPLES).long() for side in (height, width)
    )
    kept = points[rows[:, None], columns].reshape(-1, 3)
    kept = kept[kept.isfinite().all(1)]
    if not len(kept) or not bool(pose.isfinite().all() & intrinsics.isfinite().all()):
        return {}
    return {
        "frames": torch.ones((), dtype=torch.int64),
        "points": se3.apply(pose, kept),
        "intrinsics": intrinsics,
    }


@dataclass(frozen=True)
class Drift(values.Value):
    """A segment ends where state, gate or confidence have left what its first frames showed.

    Each is compared with its mean over the segment's first frames. What a network does not have
    (a gate, say, or a state of fixed size) does not count. The thresholds are ours; they are not
    tuned to any data.

    Args:
        state: end where the root mean square of the state has changed by more than this share.
        gate: end where the mean of the update rule's gate has fallen below this share.
        confidence: end where the mean logarithm of the confidence has fallen below this share.
        first: frames that are the measure, those shared with the segment before included.
        patience: frames in a row that must be out of bounds.
        overlap: how many frames two segments share; fewer where a segment has not as many of its
            own.

    Raises:
        SettingError: if a value is out of range.
    """

    state: float = 0.5
    gate: float = 0.5
    confidence: float = 0.5
    first: int = 10
    patience: int = 3
    overlap: int = 1

    name: ClassVar[str] = "drift"
    outputs: ClassVar[frozenset[str]] = frozenset({"points"})
    remembers: ClassVar[frozenset[str]] = frozenset({"frames", "out", "sums", "counts"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state <= 0.0:
            raise SettingError(f"the change of the state must be above 0, not {self.state}")
        for name, share in (("gate", self.gate), ("confidence", self.confidence)):
            if not 0.0 <= share < 1.0:
                raise SettingError(f"the share of the {name} must be from 0 to below 1")
        if self.first < 1 or self.patience < 1:
            raise SettingError("first and patience must be at least 1 frame")
        check_overlap(self.overlap, self.first)

    def watch(self, look: Look, memory: Memory) -> Verdict:
        """Add one of the first frames to the measure, or hold a later one against it."""
        signals = torch.tensor(
            [state_size(look.state), _mean(look.output.gate), _confidence(look.output)],
            dtype=torch.float64,
        )
        memory = memory or _nothing_measured()
        frames, out, sums, counts = (memory[name] for name in ("frames", "out", "sums", "counts"))
        if int(frames) < self.first:
            known = signals.isfinite()
            sums, counts = sums + torch.where(known, signals, 0.0), counts + known
        else:
            ratio = signals / (sums / counts)  # NaN of what is not known, which is never outside
            outside = (ratio[0] - 1).abs() > self.state
            outside |= (ratio[1] < self.gate) | (ratio[2] < self.confidence)
            out = (out + 1) * outside
        memory = {"frames": frames + 1, "out": out, "sums": sums, "counts": counts}
        return Verdict(int(out) >= self.patience, memory)


def _nothing_measured() -> Memory:
    return {
        "frames": torch.zeros((), dtype=torch.int64),
        "out": torch.zeros((), dtype=torch.int64),
        "sums": torch.zeros(3, dtype=torch.float64),
        "counts": torch.zeros(3, dtype=torch.float64),
    }


def state_size(state: Any) -> float:
    """Root mean square of those tensors of a state that keep their size; NaN if there are none."""
    if not isinstance(state, State):
        return float("nan")
    left_out = tuple(f"{name}." for name in state.begins_empty)
    kept = [
        tensor.double()
        for name, tensor in state.to_tensors().items()
        if tensor.is_floating_point()
        and name.partition(".")[0] not in state.grows
        and not name.startswith(left_out)
    ]
    count = sum(tensor.numel() for tensor in kept)
    if not count:
        return float("nan")
    return float(sum(tensor.square().sum() for tensor in kept) / count) ** 0.5


def _mean(tensor: Tensor | None) -> float:
    return float("nan") if tensor is None else float(tensor.double().mean())


def _confidence(output: Reading) -> float:
    return float("nan") if output.confidence is None else _mean(output.confidence.double().log())
