"""A running stream: one model, one rule, and the state they carry from frame to frame."""

import copy
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import InputError, SessionError
from ttt3r.files import write_atomically
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics, ray_map
from ttt3r.geometry.focal import focal_from_points
from ttt3r.models.base import (
    QueryModel,
    SetModel,
    StepOutput,
    StreamModel,
    Tokens,
    Views,
    check_outputs,
)
from ttt3r.models.set_stream import as_stream
from ttt3r.stream import resets, stitching
from ttt3r.types import Camera, Frame, Prediction

FORMAT = "ttt3r-session-1"
NO_IMAGE = np.zeros((0, 0, 3), np.uint8)

PushedImage = Frame | np.ndarray | Tensor


@dataclass(frozen=True)
class Progress:
    """All that changes while a session runs; replaced as a whole, so never half-way.

    Attributes:
        state: what the model remembers.
        index: frames pushed so far.
        segment: number of the current segment.
        world_from_segment: similarity that places the current segment, float64.
    """

    state: Any
    index: int
    segment: int
    world_from_segment: Float[Tensor, "4 4"]


class Session:
    """Reconstructs a stream, one pushed frame at a time, in constant memory.

    The whole past is in `state`, a frozen dataclass of tensors; pushing a frame replaces it.
    Sessions are therefore cheap to save, to resume and to fork.

    Args:
        model: as from `ttt3r.load`; one that looks at all views at once does so with each frame.
        rule: how the state is updated, a name such as "ttt3r" or "damped(ttt3r, 0.5)", or a value;
            None takes the family's own, which is "ttt3r" for CUT3R.
        reset: when to start a new segment: None, a number of frames, or a policy.
        outputs: what to compute: any of "points", "pose", "world", "rgb".
        stitch: how segments are joined: "pose" (as published) or "similarity" (carries scale).

    Raises:
        SettingError: if a name is unknown.
    """

    def __init__(
        self,
        model: StreamModel | SetModel,
        rule: Any = None,
        reset: "str | int | resets.ResetPolicy | None" = None,
        outputs: Collection[str] = ("points", "pose"),
        stitch: "str | stitching.Stitching" = "pose",
    ) -> None:
        self.model = as_stream(model)
        self.rule = self.model.parse_rule(rule)
        self.reset = resets.parse(reset)
        self.stitch = stitching.parse(stitch)
        self.outputs = check_outputs((outputs,) if isinstance(outputs, str) else outputs)
        self.model.capabilities.check(self.outputs)
        with torch.no_grad():
            state = self.model.initial_state(self.rule)
        self._progress = Progress(state, 0, 0, torch.eye(4, dtype=torch.float64))

    @property
    def state(self) -> Any:
        """Everything the model remembers, a frozen dataclass of tensors (batch of one)."""
        return self._progress.state

    @property
    def index(self) -> int:
        """Number of frames pushed so far."""
        return self._progress.index

    @property
    def segment(self) -> int:
        """Number of the segment that the next frame belongs to."""
        return self._progress.segment

    @property
    def world_from_segment(self) -> Float[Tensor, "4 4"]:
        """Similarity that places the current segment in the stream's world, float64."""
        return self._progress.world_from_segment

    @torch.no_grad()
    def push(
        self,
        image: PushedImage,
        *,
        update: bool = True,
        ray_map: Float[Tensor, "height width 6"] | None = None,
    ) -> Prediction:
        """Take in the next frame and say what it shows.

        Args:
            image: uint8 RGB [H, W, 3], float tensor [3, H, W] in [-1, 1], or a `Frame`; its sides
                must be multiples of the model's patch size (see `ttt3r.sources.prepare`).
            update: False looks at the frame without remembering it.
            ray_map: known camera rays of the frame in its segment, see `geometry.camera.ray_map`.

        Raises:
            InputError: if the image has the wrong form; the session is then unchanged.
            SettingError: if the image's size does not fit the model.
        """
        frame, pixels, shown = self._read_image(image)
        device = self._device
        views = Views(
            image=pixels[None].to(device, non_blocking=True),
            ray_map=None if ray_map is None else ray_map[None].to(device),
        )
        tokens = self.model.encode(views)
        allowed = torch.tensor([update], device=device)
        ends = self.reset.ends_segment(self.index)
        outputs = self.outputs | (self.stitch.outputs if ends else frozenset())
        state, output = self.model.step(self.state, tokens, self.rule, outputs, allowed)
        prediction = self._prediction(output, frame, shown, self.outputs)
        progress = replace(self._progress, state=state, index=self.index + 1)
        if ends:
            progress = self._next_segment(progress, tokens, output, allowed)
        self._progress = progress
        return prediction

    @torch.no_grad()
    def query(
        self,
        camera: Camera,
        outputs: Collection[str] = ("points", "rgb"),
        absent: Literal["zero", "token"] = "zero",
    ) -> Prediction:
        """Ask what a camera would see, without changing the session.

        Args:
            camera: placed in the stream's world; its sides must fit the model's patch size.
            outputs: what to compute.
            absent: what stands for the missing image: nothing, as in the published inference, or
                the learned mask token, as in training.

        Raises:
            SessionError: if the model cannot answer ray queries.
        """
        if not isinstance(self.model, QueryModel):
            raise SessionError("this model cannot predict unseen views; CUT3R can")
        segment_from_camera = se3.place_camera(
            se3.invert(self.world_from_segment), camera.world_from_camera.double().cpu()
        )
        rays = ray_map(segment_from_camera, camera.intrinsics.double().cpu(), camera.size)
        tokens = self.model.encode(Views(ray_map=rays[None].float().to(self._device)), absent)
        wanted = check_outputs(outputs)
        output = self.model.query(self.state, tokens, wanted)
        return self._prediction(output, Frame(NO_IMAGE, self.index), None, wanted)

    def fork(self) -> "Session":
        """Return a second session that continues from here on its own."""
        return copy.copy(self)  # every field is immutable or replaced, never changed in place

    def save(self, path: str | Path) -> None:
        """Write all that is needed to go on later; a few MB, whatever the stream's length.

        Raises:
            SessionError: if the file cannot be written; an older file there is left as it was.
        """
        path = Path(path)
        tensors = {
            f"state.{name}": tensor.detach().cpu().contiguous()
            for name, tensor in self.state.to_tensors().items()
        }
        tensors["world_from_segment"] = self.world_from_segment
        header = {
            "format": FORMAT,
            "model": {"name": self.model.weights.name, "sha256": self.model.weights.sha256},
            "rule": values.to_text(self.rule),
            "reset": values.to_text(self.reset),
            "stitch": values.to_text(self.stitch),
            "outputs": sorted(self.outputs),
            "index": self.index,
            "segment": self.segment,
        }
        content = safetensors.torch.save(tensors, {"ttt3r": json.dumps(header, sort_keys=True)})
        try:
            write_atomically(path, lambda file: file.write_bytes(content), sync=True)
        except OSError as error:
            raise SessionError(
                f"cannot save the session to {path}: {error}. Check that the folder exists, is "
                "writable and has space left."
            ) from error

    @classmethod
    def load(cls, path: str | Path, model: StreamModel | SetModel) -> "Session":
        """Continue a saved session; what follows is bit-equal to never having stopped.

        Args:
            path: a file that `save` wrote.
            model: the model it was saved with; the device may differ.

        Raises:
            SessionError: if the file is not a session, or belongs to other weights.
        """
        header, tensors = _read_session(Path(path))
        saved = header["model"]
        if saved["sha256"] != model.weights.sha256:
            raise SessionError(
                f"{path} was saved with the weights {saved['name']!r} (sha256 "
                f"{saved['sha256'][:12]}…), not with {model.weights.name!r} (sha256 "
                f"{model.weights.sha256[:12]}…). Load those weights to resume it."
            )
        session = cls(model, header["rule"], header["reset"], header["outputs"], header["stitch"])
        state = {
            name.removeprefix("state."): tensor
            for name, tensor in tensors.items()
            if name.startswith("state.")
        }
        session._progress = Progress(
            session.state.with_tensors(state),
            header["index"],
            header["segment"],
            tensors["world_from_segment"],
        )
        return session

    @property
    def _device(self) -> torch.device:
        return self.state.age.device

    def _read_image(self, image: PushedImage) -> tuple[Frame, Tensor, Tensor]:
        """Return the frame's description, network input [3, H, W] and uint8 pixels [H, W, 3]."""
        frame = image if isinstance(image, Frame) else None
        content = _as_tensor(image.image if isinstance(image, Frame) else image)
        if content.dtype == torch.uint8 and content.ndim == 3 and content.shape[2] == 3:
            shown = content.clone()  # the caller may reuse the buffer
            pixels = (content.permute(2, 0, 1).float() / 255 - 0.5) / 0.5
        elif content.is_floating_point() and content.ndim == 3 and content.shape[0] == 3:
            pixels = content.float()
            if not bool((pixels.abs() <= 1 + 1e-3).all()):
                raise InputError("a float image must lie in [-1, 1] without NaN; scale it first")
            shown = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0)
        else:
            raise InputError(
                "push takes uint8 RGB [H, W, 3] or a float tensor [3, H, W] in [-1, 1], not "
                f"{content.dtype} {list(content.shape)}"
            )
        if frame is None:
            frame = Frame(NO_IMAGE, self.index, timestamp=float(self.index))
        return frame, pixels, shown

    def _prediction(
        self,
        output: StepOutput,
        frame: Frame,
        shown: Tensor | None,
        outputs: frozenset[str],
    ) -> Prediction:
        """Carry one sample of a step's output into the stream's world."""
        scale = self._scale
        points = confidence = intrinsics = pose = world = None
        if output.points is not None and "points" in outputs:
            points, confidence = output.points[0], _first(output.confidence)
            intrinsics = _first(output.intrinsics)
            if intrinsics is None:
                intrinsics = _intrinsics(points)
            points = points if scale == 1.0 else points * scale
        if output.pose_encoding is not None and "pose" in outputs:
            pose = se3.place_camera(self.world_from_segment, self._pose(output)).float()
        if output.world_points is not None:
            world = output.world_points[0]
            if self.segment:
                world = se3.apply(self.world_from_segment.to(world), world)
        return Prediction(
            index=self.index,
            timestamp=frame.timestamp,
            image=None if shown is None else shown.cpu(),
            points=points,
            confidence=confidence,
            pose_encoding=None if pose is None else _first(output.pose_encoding),
            world_from_camera=pose,
            intrinsics=intrinsics,
            gate=_first(output.gate) if self.index else None,
            world_points=world,
            world_confidence=_first(output.world_confidence),
            rgb=_first(output.rgb),
            segment=self.segment,
            scale=scale,
            transform=frame.transform,
        )

    @property
    def _scale(self) -> float:
        """Scale of the segment; a chain of rigid poses is exactly 1 but for rounding."""
        scale = float(se3.similarity_scale(self.world_from_segment))
        return 1.0 if math.isclose(scale, 1.0, rel_tol=1e-9) else scale

    @staticmethod
    def _pose(output: StepOutput) -> Float[Tensor, "4 4"]:
        assert output.pose_encoding is not None
        return se3.pose_from_encoding(output.pose_encoding[0].cpu().double())

    def _next_segment(
        self, progress: Progress, tokens: Tokens, output: StepOutput, update: Tensor
    ) -> Progress:
        """Reset the state, show it the last frame again, and place the new segment."""
        fresh = self.model.reset(progress.state, self.rule, torch.ones_like(update))
        state, replay = self.model.step(fresh, tokens, self.rule, self.stitch.outputs, update)
        last, again = (
            stitching.Seen(self._pose(seen), _first(seen.points), _first(seen.confidence))
            for seen in (output, replay)
        )
        placement = self.stitch.connect(progress.world_from_segment, last, again)
        return Progress(state, progress.index, progress.segment + 1, placement)


def _as_tensor(image: np.ndarray | Tensor) -> Tensor:
    if isinstance(image, Tensor):
        return image
    try:  # torch takes neither reversed nor read-only arrays
        return torch.from_numpy(np.require(image, requirements=("C", "W")))
    except (TypeError, ValueError) as error:
        raise InputError(f"push takes arrays of numbers: {error}") from error


def _first(batch: Tensor | None) -> Tensor | None:
    return None if batch is None else batch[0]


def _intrinsics(points: Float[Tensor, "height width 3"]) -> Float[Tensor, "3 3"]:
    height, width = points.shape[:2]
    return default_intrinsics((height, width), focal_from_points(points))


def _read_session(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("ttt3r", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise SessionError(f"cannot read the session {path}: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise SessionError(
            f"{path} is not a session of this version of ttt3r (expected format {FORMAT})"
        )
    return header, tensors
