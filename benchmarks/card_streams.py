"""Several streams in step, under several rules and reset policies at once.

Every frame is encoded once for all of them. A lane repeats what `ttt3r.Session` does for one
stream, for a batch of them; a test compares the two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ttt3r import rules
from ttt3r.evaluation.sequences import Sequence as FrameSequence
from ttt3r.evaluation.streaming import EstimateRecorder, Record, TruthRecorder
from ttt3r.geometry import se3
from ttt3r.models.base import StreamModel, Tokens, Views
from ttt3r.rules import Rule
from ttt3r.stream import resets
from ttt3r.types import Frame

VALUES_PER_FRAME = 256  # depths that are kept of a stream's frame, of every rule


@dataclass(frozen=True)
class Variant:
    """A rule and a reset policy, each in its text form."""

    rule: str
    reset: str = "never"

    @property
    def name(self) -> str:
        """What to call it in tables and files."""
        return self.rule if self.reset == "never" else f"{self.rule}, reset {self.reset}"


@dataclass
class Lane:
    """A batch of streams under one rule and reset policy; segments are joined by their poses.

    Attributes:
        model: the network.
        rule: update rule.
        reset: reset policy.
        state: of all streams.
        world_from_segment: [streams, 4, 4], float64.
        index: frames seen.
    """

    model: StreamModel
    rule: Rule
    reset: resets.ResetPolicy
    state: Any
    world_from_segment: Tensor
    index: int = 0

    @classmethod
    def start(cls, model: StreamModel, variant: Variant, streams: int) -> "Lane":
        """Begin `streams` streams."""
        rule = rules.parse(variant.rule)
        eye = torch.eye(4, dtype=torch.float64).expand(streams, 4, 4)
        state = model.initial_state(rule, streams)
        return cls(model, rule, resets.parse(variant.reset), state, eye)

    def step(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor | None]:
        """Show every stream its next frame.

        Returns:
            Poses [streams, 4, 4] in the streams' worlds; points [streams, height, width, 3] in the
            cameras' frames; the gate [streams, tokens], None on the very first frame.
        """
        state, output = self.model.step(self.state, tokens, self.rule, ("points", "pose"))
        assert output.pose_encoding is not None and output.points is not None
        segment_from_camera = se3.pose_from_encoding(output.pose_encoding.cpu().double())
        poses = se3.place_camera(self.world_from_segment, segment_from_camera).float()
        gate = output.gate if self.index else None
        if self.reset.ends_segment(self.index):
            fresh = self.model.reset(state, self.rule, torch.ones_like(tokens.has_image))
            state, _ = self.model.step(fresh, tokens, self.rule, ("pose",))
            self.world_from_segment = self.world_from_segment @ segment_from_camera
        self.state, self.index = state, self.index + 1
        return poses, output.points, gate


@dataclass
class Gates:
    """The gates of one lane, of every stream, frame and token."""

    frames: list[np.ndarray] = field(default_factory=list)

    def statistics(self, stream: int) -> dict[str, float]:
        """How one stream's gates are distributed over frames and tokens."""
        gate = np.stack([frame[stream] for frame in self.frames]).astype(np.float64)
        low, median, high = np.percentile(gate, (5, 50, 95))
        return {
            "median": float(median),
            "percentile_5": float(low),
            "percentile_95": float(high),
            "spread_over_tokens": float(gate.std(1).mean()),
            "spread_over_frames": float(gate.std(0).mean()),
        }


def to_network(frames: Sequence[Frame], device: Any) -> Tensor:
    """Images of one frame of every stream, [streams, 3, height, width] in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([frame.image for frame in frames]))
    return ((pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).to(device)


@torch.inference_mode()
def run_streams(
    model: StreamModel,
    streams: Sequence[FrameSequence],
    variants: Sequence[Variant],
    gates_of: Variant | None = None,
    progress: Callable[[int], None] = lambda index: None,
) -> tuple[dict[str, list[Record]], Gates]:
    """Run streams of one length and image size in step.

    Args:
        model: the network.
        streams: the batch.
        variants: what to run; each sees the same tokens.
        gates_of: the variant whose gates are kept.
        progress: called with the number of frames done.

    Returns:
        For every variant's name, one record per stream; and the gates.
    """
    length = len(streams[0])
    truths = [
        TruthRecorder(stream.name, length, model.image_policy, VALUES_PER_FRAME * length)
        for stream in streams
    ]
    lanes = {variant: Lane.start(model, variant, len(streams)) for variant in variants}
    said = {v: [EstimateRecorder(truth) for truth in truths] for v in variants}
    gates = Gates()
    for index, true_frames in enumerate(zip(*streams, strict=True)):
        frames = [truth.take(true) for truth, true in zip(truths, true_frames, strict=True)]
        device = next(iter(lanes.values())).state.age.device
        tokens = model.encode(Views(image=to_network(frames, device)))
        for variant, lane in lanes.items():
            poses, points, gate = lane.step(tokens)
            for i, recorder in enumerate(said[variant]):
                recorder.take(poses[i], points[i])
            if variant == gates_of and gate is not None:
                gates.frames.append(gate.float().cpu().numpy())
        progress(index + 1)
    return {v.name: [recorder.record() for recorder in said[v]] for v in variants}, gates
