"""The segments of a run as their networks remember them: asked anew after the run has ended."""

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r import values
from ttt3r.errors import RunError, SessionError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import unproject
from ttt3r.models.adapters import Once, as_stream
from ttt3r.models.base import SetModel, StreamModel, Tokens, Views
from ttt3r.runs.frame_file import read_pose
from ttt3r.runs.placement import Placement
from ttt3r.runs.reader import Run, frame_path
from ttt3r.runs.segment_file import read_segment
from ttt3r.stream import posing, resets
from ttt3r.stream.placing import pose_of, read_image
from ttt3r.types import PoseFrom, Prediction

MOST_OPEN = 4  # states that are held at a time


class Segment(NamedTuple):
    """What is remembered at the end of a segment, and where the stream placed it."""

    state: Any
    world_from_segment: Float[Tensor, "4 4"]


class Shown(NamedTuple):
    """What a camera saw, placed in the world by a segment.

    Attributes:
        points: in the world.
        confidence: of the points.
    """

    points: Float[Tensor, "height width 3"]
    confidence: Float[Tensor, "height width"]


class Remembered:
    """A run, and the network that made it.

    Frames are read as the stream placed them, whatever moved the run since. A state that the run
    did not keep is made again from the segment's frames.

    Args:
        run: the run.
        model: the network that made it.

    Raises:
        RunError: if another network made it, points or poses are missing, or poses were refined.
        SettingError: if the network looked once at each segment, and so remembers none.
    """

    def __init__(self, run: Run, model: StreamModel | SetModel) -> None:
        made_by = run.manifest["model"]
        if made_by["sha256"] != model.weights.sha256:
            raise RunError(
                f"the run was made with the weights {made_by['name']!r}, not with "
                f"{model.weights.name!r}; give it those"
            )
        if not {"points", "pose"} <= set(run.manifest["outputs"]):
            raise RunError("loops need points and poses; run again with --outputs points pose")
        self.run = Run(run.folder, run.manifest, Placement())
        self.model = as_stream(model)
        if run.manifest["rule"] == Once.name:
            raise SettingError(
                "this network looked once at each segment and remembers none, so its loops cannot "
                "be closed; make the run with a rule such as keep_all or window(32)"
            )
        if run.manifest.get("refine"):
            raise RunError(
                "the poses of this run were refined, and loops take those of the network; make the "
                "run without --refine"
            )
        self.rule = self.model.parse_rule(run.manifest["rule"])
        self.reset = resets.parse(run.manifest["reset"])
        self.pose_from: PoseFrom = posing.choose(run.manifest.get("pose_from", "head"), self.model)
        said = [read_pose(frame_path(run.folder, index)) for index in range(len(run))]
        self.segments: Int[Tensor, " frames"] = torch.tensor(
            [item.segment for item in said], dtype=torch.int64
        )
        self._open: OrderedDict[int, Segment] = OrderedDict()

    def frame(self, index: int) -> Prediction:
        """Read a frame as the stream placed it."""
        return self.run.read(index)

    def frames_of(self, segment: int) -> list[int]:
        """Numbers of the frames of a segment."""
        return (self.segments == segment).nonzero().flatten().tolist()

    @torch.no_grad()
    def encode(self, index: int) -> Tokens:
        """Encode the image of a frame, as the stream did.

        Raises:
            RunError: if it has none.
        """
        image = self.run.read(index, ("image",)).image
        if image is None:
            raise RunError(f"frame {index} of the run holds no image")
        pixels = read_image(image, index).pixels[None].to(self.model.device)
        return self.model.encode(Views(image=pixels))

    def segment(self, number: int) -> Segment:
        """Read the state at the end of a segment, or make it again."""
        if number not in self._open:
            while len(self._open) >= MOST_OPEN:
                self._open.popitem(last=False)
            self._open[number] = self._stored(number) or self._made_again(number)
        self._open.move_to_end(number)
        return self._open[number]

    @torch.no_grad()
    def ask(self, segment: int, index: int) -> Shown:
        """Let a segment look at a frame without remembering it, and place what it sees."""
        state, place = self.segment(segment)
        never = torch.tensor([False])
        outputs = posing.needs(self.pose_from) | {"points", "pose"}
        _, output = self.model.step(state, self.encode(index), self.rule, outputs, never)
        output = posing.repose(output, self.pose_from, [index])
        assert output.points is not None and output.confidence is not None
        points = output.points[0].double().cpu()
        if self.run.manifest["source"].get("intrinsics") is not None:
            known = self.run.read(index, ("intrinsics",)).intrinsics
            assert known is not None
            points = unproject(points[..., 2], known.double())  # as `placing.place` did
        points = se3.apply(place, se3.apply(pose_of(output), points))
        return Shown(points, output.confidence[0].double().cpu())

    def _stored(self, number: int) -> Segment | None:
        weights, rule = self.model.weights, values.to_text(self.rule)
        found = read_segment(self.run.folder, number, weights.sha256, rule)
        if found is None:
            return None
        try:
            return Segment(self.model.initial_state(self.rule).with_tensors(found[0]), found[1])
        except SessionError as error:
            raise RunError(f"segment {number} of the run: {error}") from error

    @torch.no_grad()
    def _made_again(self, number: int) -> Segment:
        """Show a fresh state what the segment saw."""
        own = self.frames_of(number)
        before = self.frames_of(number - 1)[-self.reset.overlap :] if number else []
        state, pose = self.model.initial_state(self.rule), None
        place = torch.full((4, 4), torch.nan, dtype=torch.float64)
        for index in (*before, *own):
            outputs = posing.needs(self.pose_from) | {"pose"}
            state, output = self.model.step(state, self.encode(index), self.rule, outputs)
            output = posing.repose(output, self.pose_from, [index])
            pose, frame = pose_of(output), self.run.read(index, ("world_from_camera",))
            if index in own and bool(pose.isfinite().all()):
                place = _place_of(frame, pose)
        return Segment(state, place)


def _place_of(frame: Prediction, segment_from_camera: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """World_from_segment of a frame that both have placed; the reverse of `se3.place_camera`."""
    assert frame.world_from_camera is not None
    pose = frame.world_from_camera.double()
    linear = frame.scale * pose[:3, :3] @ segment_from_camera[:3, :3].mT
    return se3.assemble(linear, pose[:3, 3] - linear @ segment_from_camera[:3, 3])
