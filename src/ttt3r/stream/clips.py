"""A stream shown clip by clip to a network that looks at all views at once.

Each segment is a clip. The network looks at a clip once, when its last frame has come. All answers
for a segment therefore agree with each other and share one unit of length, but they come late.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import InputError, SettingError
from ttt3r.models.adapters import POLICIES, Once
from ttt3r.models.base import SetModel, State, StreamModel
from ttt3r.spans import span
from ttt3r.stream import posing, resets, stitching
from ttt3r.stream.base import Progress, ResultDevice, SessionBase, Settings
from ttt3r.stream.placing import PushedImage, Shown, needed_for, place, pose_of, read_image
from ttt3r.stream.session import Session
from ttt3r.stream.watching import Watching
from ttt3r.trace.trace import Trace
from ttt3r.types import Prediction, Reading

NO_REFINING = (
    "poses cannot be refined where a network looks once at each segment; leave refine out, or load "
    "weights of CUT3R, Point3R or StreamVGGT"
)


@dataclass(frozen=True)
class Joint(State):
    """The frames that two clips share, and what one look said of them; empty before the first.

    They are the last frames of the older clip that have a pose.

    Attributes:
        image: RGB in [-1, 1].
        segment_from_camera: its pose in that look's segment, float64.
        points: in the camera's frame, in that segment's unit; empty if stitching needs none.
        confidence: of `points`.
    """

    grows: ClassVar[frozenset[str]] = frozenset(
        {"image", "segment_from_camera", "points", "confidence"}
    )

    image: Float[Tensor, "1 frames 3 height width"]
    segment_from_camera: Float[Tensor, "1 frames 4 4"]
    points: Float[Tensor, "1 known height width 3"]
    confidence: Float[Tensor, "1 known height width"]

    @classmethod
    def none(cls) -> "Joint":
        """Before the first clip has ended."""
        pose = torch.zeros(1, 0, 4, 4, dtype=torch.float64)
        empty = torch.zeros(1, 0, 3, 0, 0), pose, torch.zeros(1, 0, 0, 0, 3)
        return cls(*empty, torch.zeros(1, 0, 0, 0))

    @classmethod
    def of(cls, images: Float[Tensor, "frames 3 height width"], output: Reading) -> "Joint":
        """Keep images, and what was said of these views."""
        count, _, height, width = images.shape
        points = torch.zeros(1, 0, height, width, 3)
        confidence = torch.zeros(1, 0, height, width)
        if output.points is not None and output.confidence is not None:
            points, confidence = output.points.cpu(), output.confidence.cpu()
        poses = torch.stack([pose_of(output.view(number)) for number in range(count)])
        return cls(images[None].cpu(), poses[None], points, confidence)

    @property
    def seen(self) -> list[stitching.Seen]:
        """What `stitching` takes."""
        known = bool(self.points.shape[1])
        return [
            stitching.Seen(
                self.segment_from_camera[0, number],
                self.points[0, number] if known else None,
                self.confidence[0, number] if known else None,
            )
            for number in range(self.image.shape[1])
        ]


class ClipSession(SessionBase):
    """Reconstructs a stream by one look at each segment.

    Memory grows with the segments, not with the stream. What is saved goes on after the last
    segment that a reset ended; of a stream that ends within a segment, that segment is looked at
    again.

    Args:
        model: the network.
        reset: when a segment ends, by the number of frames; None looks once at the whole stream.
        outputs: what to compute, see `Session`.
        stitch: how segments are joined, see `Session`.
        device_of_results: where every tensor of a prediction lies, see `Session`.
        trace: see `Session`; it follows what single frames say.
        pose_from: see `Session`.

    Raises:
        SettingError: if a name is unknown, the reset wants to see frames before they are looked at,
            or poses are to come from points in the world that the network does not give.
    """

    def __init__(
        self,
        model: SetModel,
        reset: "str | int | resets.Reset | None" = None,
        outputs: Collection[str] = ("points", "pose"),
        stitch: "str | stitching.Stitching | None" = None,
        device_of_results: ResultDevice = "cpu",
        trace: bool = False,
        pose_from: str | None = None,
    ) -> None:
        where = device_of_results, trace, pose_from
        super().__init__(model, Once(), Joint.none(), reset, outputs, stitch, *where)
        self.planned = _planned(self.reset)
        self._handed_over = self._progress.trace

    @property
    def trace(self) -> Trace | None:
        """As in `Session`, of all frames that were handed over."""
        return self._handed_over or self._progress.trace

    @classmethod
    def begin(
        cls,
        model: StreamModel | SetModel,
        settings: Settings,
        device_of_results: ResultDevice = "cpu",
    ) -> "ClipSession":
        """See `SessionBase.begin`."""
        if isinstance(model, StreamModel) or not isinstance(POLICIES.parse(settings.rule), Once):
            raise SettingError(
                f"its rule is {settings.rule!r}, so it answers for each frame; load it with "
                "ttt3r.Session.load"
            )
        if settings.refine:
            raise SettingError(NO_REFINING)
        return cls(
            model,
            settings.reset,
            settings.outputs,
            settings.stitch,
            device_of_results,
            pose_from=settings.pose_from,
        )

    def stream(self, images: Iterable[PushedImage]) -> Iterator[Prediction]:
        """Take in frames, and when a segment has ended, say of each what it shows.

        Args:
            images: as `Session.push` takes them; all of a segment are of one size.

        Raises:
            InputError: if an image has the wrong form, or another size than those before it.
            SettingError: see `Session.push`.
        """
        clip: list[Shown] = []
        for image in images:
            index = self.index + len(clip)
            clip.append(self._read(image, index, clip))
            if self.planned.ends_segment(index):
                yield from self._look(clip, ends=True)
                clip = []
        if clip:
            yield from self._look(clip, ends=False)

    def _read(self, image: PushedImage, index: int, clip: list[Shown]) -> Shown:
        shown = read_image(image, index)
        before = clip[0].pixels if clip else self.state.image
        sizes = [tuple(pixels.shape[-2:]) for pixels in (before, shown.pixels)]
        if before.numel() and sizes[0] != sizes[1]:
            (height, width), (new_height, new_width) = sizes
            raise InputError(
                f"frame {index} has {new_width}x{new_height} pixels, those before it {width}x"
                f"{height}; one look takes images of one size. Convert them, or reconstruct the "
                "parts alone."
            )
        return shown

    @torch.no_grad()
    def _predict(self, clip: list[Shown], outputs: frozenset[str]) -> Reading:
        images = torch.stack([shown.pixels for shown in clip])[None].to(self.device)
        if self.segment:
            images = torch.cat([self.state.image.to(self.device), images], 1)
        needed = posing.needs(self.pose_from) if "pose" in outputs else frozenset()
        with span("step"):
            output = self.model.predict(images, outputs | needed)
        if needed:
            first = self.index - (images.shape[1] - len(clip))
            indices = range(first, first + images.shape[1])
            output = posing.repose(output, self.pose_from, indices).only(outputs)
        return output

    def _look(self, clip: list[Shown], *, ends: bool) -> Iterator[Prediction]:
        """Look once at a segment and yield what is said of its new frames."""
        progress = self._progress
        replayed = self.state.image.shape[1] if self.segment else 0
        joins = self.stitch.outputs if ends or replayed else frozenset()
        needed = needed_for(self.outputs, clip, self.model.capabilities)
        output = self._predict(clip, self.outputs | joins | needed)
        placement, trace = progress.world_from_segment, progress.trace
        scale_error = progress.scale_error
        if replayed:
            views = output.map(lambda tensor: tensor[:, :replayed])
            again = Joint.of(self.state.image[0], views)
            join = self.stitch.connect(placement, self.state.seen, again.seen)
            placement, scale_error = join.world_from_segment, progress.scale_error_after(join)
        for number, shown in enumerate(clip):
            index = progress.index + number
            said = output.view(replayed + number)
            at = (progress.segment, placement, scale_error)
            with span("hand over"):
                placed = place(said, shown, index, self.outputs, *at)
            if trace is not None:
                trace, quality = trace.observe(placed)
                placed, self._handed_over = replace(placed, quality=quality), trace
            if ends and shown is clip[-1]:  # settled when the last answer is handed over
                chosen = _last_placed(output, replayed, len(clip), self.reset.overlap)
                places = [replayed + view for view in chosen]
                joint = Joint.of(
                    torch.stack([clip[view].pixels for view in chosen]),
                    output.map(lambda tensor, places=places: tensor[:, places]),
                )
                self._progress = Progress(
                    joint,
                    index + 1,
                    progress.segment + 1,
                    placement,
                    trace=trace,
                    scale_error=scale_error,
                )
            yield self._hand_over(placed)


def _planned(reset: resets.Reset) -> resets.Planned:
    if isinstance(reset, Watching):
        raise SettingError(
            f"the reset {values.to_text(reset)!r} looks at each frame, and this network looks once "
            'at a whole segment; use "every(FRAMES)", or a rule such as "keep_all" or "window(32)"'
        )
    return reset


def open_session(
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
) -> Session | ClipSession:
    """Open the session that suits a whole stream: one look per segment where that is enough.

    Args:
        model: the network.
        rule: see `Session`; None, or "once", looks once at each segment with a network that looks
            at all views at once. Its other rules look again for each frame.
        reset: see `Session`.
        outputs: see `Session`.
        stitch: see `Session`.
        device_of_results: see `Session`.
        pose_memory: see `Session`.
        trace: see `Session`.
        pose_from: see `Session`.
        refine: see `Session`; not with one look per segment.

    Raises:
        SettingError: see `Session`.
    """
    if (
        pose_memory is None
        and not isinstance(model, StreamModel)
        and isinstance(POLICIES.parse(rule), Once)
    ):
        if refine:
            raise SettingError(NO_REFINING)
        return ClipSession(model, reset, outputs, stitch, device_of_results, trace, pose_from)
    where = device_of_results, pose_memory, trace, pose_from, refine
    return Session(model, rule, reset, outputs, stitch, *where)


def _last_placed(output: Reading, first: int, count: int, wanted: int) -> list[int]:
    """Which of `count` views from `first` on are the last with a pose; the last if none has."""
    assert output.world_from_camera is not None
    placed = output.world_from_camera[0, first:].isfinite().flatten(1).all(1)
    found = placed.nonzero().flatten().tolist()
    return found[-wanted:] if found else [count - 1]
