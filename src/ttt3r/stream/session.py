"""A running stream: one model, one rule, and the state they carry from frame to frame."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r import rules, values
from ttt3r.errors import InputError, SessionError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import ray_map
from ttt3r.models.adapters import SetStream, as_stream
from ttt3r.models.base import QueryModel, SetModel, StreamModel, Tokens, Views
from ttt3r.spans import span
from ttt3r.stream import posing, refining, resets, stitching
from ttt3r.stream.ahead import Encoded, checked_batch, encode_ahead
from ttt3r.stream.base import Ended, Progress, ResultDevice, SessionBase, Settings
from ttt3r.stream.placing import PushedImage, Shown, needed_for, place, read_image
from ttt3r.stream.shared import Shared, seen_of
from ttt3r.stream.watching import Look, Watching
from ttt3r.types import Camera, Prediction, Reading


@dataclass(frozen=True)
class Located:
    """Where an image was taken, as far as a session can tell.

    Attributes:
        world_from_camera: rigid pose in the stream's world, float32 [4, 4] on the CPU; NaN where
            the network finds none.
        confidence: geometric mean of the confidence of the image's points, at least 1: the
            `Prediction.confidence` of the same weights, averaged. It is no probability. Compare it
            with what `push` gave for frames that are known to be of this place. A network gives
            some pose for any image, and may be sure of the shape of a place that it never saw.
    """

    world_from_camera: Float[Tensor, "4 4"]
    confidence: float


class Session(SessionBase):
    """Reconstructs a stream, one pushed frame at a time, in constant memory.

    The whole past is in `state`, a frozen dataclass of tensors; pushing a frame replaces it.
    Sessions are therefore cheap to save, to resume and to fork.

    Args:
        model: as from `ttt3r.load`; one that looks at all views at once does so with each frame.
        rule: how the state is updated, a name such as "ttt3r" or "damped(ttt3r, 0.5)", or a value;
            None takes the family's own, which is "ttt3r" for CUT3R.
        reset: when to start a new segment: None, a number of frames, or a policy such as
            "every(100, overlap=3)", "keyframes(0.5)" or "drift".
        outputs: what to compute: any of "points", "pose", "world", "rgb".
        stitch: how segments are joined: "pose" (as published with TTT3R), "similarity" (carries
            scale), "robust" (which also tells how sure the scale is), or None: "pose" where lengths
            are metric, else "similarity".
        device_of_results: where every tensor of a prediction lies: "cpu", or "model" for the
            device that computes, where many kept predictions fill its memory.
        pose_memory: how CUT3R's pose memory is updated, a rule that reads nothing but the mean
            logit; None writes it whole, as all published rules do. Stands for the rule
            `split(rule, pose_memory)`.
        trace: follow the gate, the state, the camera and what frames say of each other over time,
            in memory of fixed size: `Session.trace`, and `Prediction.quality`.
        pose_from: where the poses of frames come from: "head" (as published), "points", "auto" (see
            `ttt3r.stream.posing`), or None: as the weights say, else "head".
        refine: refine poses against a key frame by brightness and depth, see
            `ttt3r.stream.refining`. `locate` and `query` do not.

    Raises:
        SettingError: if a name is unknown, another family is to have a rule of the pose memory,
            poses are to come from points in the world that the network does not give, or poses are
            to be refined that are not asked for or whose unit changes from frame to frame.
    """

    def __init__(
        self,
        model: StreamModel | SetModel,
        rule: Any = None,
        reset: "str | int | resets.Reset | None" = None,
        outputs: Collection[str] = ("points", "pose"),
        stitch: "str | stitching.Stitching | None" = None,
        device_of_results: ResultDevice = "cpu",
        pose_memory: Any = None,
        trace: bool = False,
        pose_from: str | None = None,
        refine: bool = False,
    ) -> None:
        streaming = as_stream(model)
        policy = streaming.parse_rule(rule)
        if pose_memory is not None:
            if not isinstance(policy, rules.Rule):
                raise SettingError("only CUT3R has a pose memory; leave out its rule, pose_memory")
            parts = policy, rules.parse(pose_memory)
            policy = streaming.parse_rule(f"split({', '.join(map(values.to_text, parts))})")
        with torch.no_grad():
            state = streaming.initial_state(policy)
        where = device_of_results, trace, pose_from, refine
        super().__init__(streaming, policy, state, reset, outputs, stitch, *where)
        if refine:
            self._check_refining()

    def _check_refining(self) -> None:
        if "pose" not in self.outputs:
            raise SettingError("refine improves poses: add pose to the outputs")
        self.model.capabilities.check(refining.NEEDED)
        if isinstance(self.model, SetStream):
            raise SettingError(
                "poses cannot be refined here: this network looks at all frames anew for each one, "
                "in a unit of length that changes. Leave refine out, or load other weights."
            )

    @property
    def world_from_segment(self) -> Float[Tensor, "4 4"]:
        """Similarity that places the current segment in the stream's world, float64."""
        return self._progress.world_from_segment

    @torch.no_grad()
    def push(
        self,
        image: PushedImage | Encoded,
        *,
        update: bool = True,
        ray_map: Float[Tensor, "height width 6"] | None = None,
    ) -> Prediction:
        """Take in the next frame and say what it shows.

        Args:
            image: uint8 RGB [H, W, 3], float tensor [3, H, W] in [-1, 1], or a `Frame`; its sides
                must be multiples of the model's patch size (see `ttt3r.sources.prepare`). Or what
                `encode_ahead` gave.
            update: False looks at the frame without remembering it.
            ray_map: known camera rays of the frame in its segment, see `geometry.camera.ray_map`.

        Raises:
            InputError: if the image has the wrong form, or a ray map comes with an image that is
                encoded already; the session is then unchanged.
            SettingError: if the image's size does not fit the model, or points in the world are to
                lie on the frame's known rays and the network gives no pose.
        """
        shown, tokens = self._encode(image, ray_map)
        allowed = torch.tensor([update])
        joins = resets.may_be_shared(self.reset, self.index)
        outputs = self.outputs | (self._for_joining if joins else frozenset())
        outputs |= needed_for(self.outputs, [shown], self.model.capabilities)
        before = self._progress
        also = refining.NEEDED if self.refine else frozenset()
        state, output = self._step(before.state, tokens, outputs | also, allowed)
        key, improved = before.key, False
        if self.refine:
            output, key, improved = refining.refine(before.key, output, shown)
            output = output.only(outputs)
        if before.fresh:  # the frame is taken over whole, whatever the rule
            output = replace(output, gate=None)
        prediction = self._place(output, shown, self.outputs)
        progress = replace(
            before,
            state=state,
            index=before.index + 1,
            fresh=before.fresh and not update,
            key=key if update else before.key,
            refined=before.refined + improved,
            ended=None,
        )
        progress, prediction = self._observe(before, progress, prediction)
        if joins:
            progress = self._watch(progress, Shared(tokens, seen_of(output), allowed), output)
        self._progress = progress
        return prediction

    @torch.no_grad()
    def locate(self, image: PushedImage) -> Located:
        """Say where an image was taken, without changing the session.

        What counts is the state at hand, which is that of the current segment. Load a saved session
        to ask it later.

        Args:
            image: as `push` takes it.

        Raises:
            InputError, SettingError: see `push`.
            SessionError: if no frame of the segment is remembered yet.
        """
        if self._progress.fresh:
            raise SessionError("nothing is remembered yet that an image could be located in")
        shown = read_image(image, self.index)
        tokens = self.model.encode(Views(image=shown.pixels[None].to(self.device)))
        wanted, never = frozenset({"points", "pose"}), torch.tensor([False])
        _, output = self._step(self.state, tokens, wanted, never)
        placed = self._place(output, shown, wanted)
        assert placed.world_from_camera is not None and placed.confidence is not None
        confidence = float(placed.confidence.double().log().mean().exp())
        return Located(placed.world_from_camera.cpu(), confidence)

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
        tokens = self.model.encode(Views(ray_map=rays[None].float().to(self.device)), absent)
        wanted = self.model.capabilities.check(outputs)
        output = self.model.query(self.state, tokens, wanted)
        return self._place(output, None, wanted)

    def stream(self, images: Iterable[PushedImage | Encoded]) -> Iterator[Prediction]:
        """Push frames one by one, see `push`."""
        return map(self.push, images)

    def encode_ahead(self, images: Iterable[PushedImage], batch: int) -> Iterator[Encoded]:
        """Yield the next frames encoded, some at a time, for `push` or `stream`.

        Args:
            images: as `push` takes them; the first is the session's next frame.
            batch: frames that are encoded together; up to as many are taken of `images` before the
                first is handed over.

        Raises:
            InputError, SettingError: see `push`; after the frames before.
        """
        return encode_ahead(self.model, images, self.index, checked_batch(batch))

    @classmethod
    def begin(
        cls,
        model: StreamModel | SetModel,
        settings: Settings,
        device_of_results: ResultDevice = "cpu",
    ) -> "Session":
        """See `SessionBase.begin`."""
        return cls(model, **vars(settings), device_of_results=device_of_results)

    def _encode(
        self, image: PushedImage | Encoded, ray_map: Float[Tensor, "height width 6"] | None
    ) -> tuple[Shown, Tokens]:
        """Return a pushed image, and what the encoder makes of it."""
        if isinstance(image, Encoded):
            if ray_map is not None:
                raise InputError("push a ray map with the image itself, not with an encoded one")
            return image.shown, image.tokens
        shown, device = read_image(image, self.index), self.device
        views = Views(
            image=shown.pixels[None].to(device, non_blocking=True),
            ray_map=None if ray_map is None else ray_map[None].to(device),
        )
        with span("encode"):
            return shown, self.model.encode(views)

    def _step(
        self,
        state: Any,
        tokens: Tokens,
        outputs: frozenset[str],
        update: Bool[Tensor, " batch"],
    ) -> tuple[Any, Reading]:
        """Let the model take a step; the pose comes from where it is to come from."""
        needed = posing.needs(self.pose_from) if "pose" in outputs else frozenset()
        with span("step"):
            state, output = self.model.step(state, tokens, self.rule, outputs | needed, update)
        if needed:
            output = posing.repose(output, self.pose_from, [self.index]).only(outputs)
        return state, output

    def _place(self, output: Reading, shown: Shown | None, outputs: frozenset[str]) -> Prediction:
        at = (self.segment, self.world_from_segment, self._progress.scale_error)
        with span("hand over"):
            return self._hand_over(place(output, shown, self.index, outputs, *at))

    @property
    def _for_joining(self) -> frozenset[str]:
        """What must be known of a frame that two segments may share."""
        watched = self.reset.outputs if isinstance(self.reset, Watching) else frozenset()
        return self.stitch.outputs | watched

    def _watch(self, progress: Progress, frame: Shared, output: Reading) -> Progress:
        """Keep a frame that the next segment may share, and go over to that if it is time."""
        recent = (*progress.recent, frame)[-self.reset.overlap :]
        if not isinstance(self.reset, Watching):
            ends = self.reset.ends_segment(progress.index - 1)
        elif bool(frame.update):
            ends, watched = self.reset.watch(Look(output, progress.state), progress.watched)
            progress = replace(progress, watched=watched)
        else:
            ends = False  # what is not remembered decides nothing
        if ends:
            return self._next_segment(progress, recent)
        kept = recent[1:] if len(recent) == self.reset.overlap else recent
        return replace(progress, recent=kept)

    def _next_segment(self, progress: Progress, frames: tuple[Shared, ...]) -> Progress:
        """Reset the state, show it the last frames again, and place the new segment."""
        state = self.model.reset(progress.state, self.rule, torch.ones_like(frames[-1].update))
        again, watched, fresh = [], {}, True
        for frame in frames:
            state, replay = self._step(state, frame.tokens, self._for_joining, frame.update)
            again.append(seen_of(replay))
            if not bool(frame.update):
                continue
            if isinstance(self.reset, Watching):
                replay = replace(replay, gate=None) if fresh else replay
                watched = self.reset.watch(Look(replay, state), watched).memory
            fresh = False
        last = [frame.seen for frame in frames]
        join = self.stitch.connect(progress.world_from_segment, last, again)
        return replace(
            progress,
            state=state,
            segment=progress.segment + 1,
            world_from_segment=join.world_from_segment,
            fresh=fresh,
            scale_error=progress.scale_error_after(join),
            watched=watched,
            recent=(),
            key=None,
            ended=Ended(progress.segment, progress.state, progress.world_from_segment),
        )
