"""What sessions have in common: settings and progress, and how both are saved and loaded."""

import abc
import copy
import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SessionError, SettingError
from ttt3r.files import has_text_name, user_path
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.stream import posing, refining, resets, shared, stitching
from ttt3r.stream.placing import PushedImage
from ttt3r.stream.watching import Memory, Watching
from ttt3r.tensor_files import encode_header, read_tensors, write_tensors
from ttt3r.trace.trace import Change, Trace
from ttt3r.types import PoseFrom, Prediction

# Where the tensors of predictions lie.
ResultDevice = Literal["cpu", "model"]

# `typing.Self` cannot be checked by beartype on single methods, hence the variable.
AnySession = TypeVar("AnySession", bound="SessionBase")


class Ended(NamedTuple):
    """What was remembered at the end of a segment, and where the segment belongs.

    Attributes:
        segment: its number.
        state: what was remembered.
        world_from_segment: similarity that places it, float64.
    """

    segment: int
    state: Any
    world_from_segment: Float[Tensor, "4 4"]


@dataclass(frozen=True)
class Progress:
    """All that changes while a session runs; replaced as a whole, so never half-way.

    Attributes:
        state: what is remembered.
        index: frames taken in so far.
        segment: number of the segment that the next frame belongs to.
        world_from_segment: similarity that places a segment, float64.
        fresh: whether no frame of the segment is remembered yet.
        trace: of the frames taken in; None if none is kept.
        scale_error: standard error of the logarithm of the placement's scale; None if unknown.
        watched: what the reset remembers of the segment.
        recent: the newest frames that the next segment will share, without the last one of all.
        key: what poses are refined against; None if there is nothing yet.
        refined: frames whose pose was refined.
        ended: the segment that ended with the newest frame, if one did; not saved.
    """

    state: Any
    index: int
    segment: int
    world_from_segment: Float[Tensor, "4 4"]
    fresh: bool = True
    trace: Trace | None = None
    scale_error: float | None = 0.0
    watched: Memory = field(default_factory=dict)
    recent: tuple[shared.Shared, ...] = ()
    key: refining.Key | None = None
    refined: int = 0
    ended: Ended | None = None

    def scale_error_after(self, join: stitching.Join) -> float | None:
        """Standard error of the next segment's scale: errors of joins are independent."""
        if self.scale_error is None or join.scale_error is None:
            return None
        return math.hypot(self.scale_error, join.scale_error)


@dataclass(frozen=True)
class Settings:
    """Settings of a session as text, see `Session`."""

    rule: str
    reset: str
    stitch: str
    outputs: tuple[str, ...]
    pose_from: str = "head"
    refine: bool = False


@dataclass(frozen=True)
class _Header:
    """What a saved session says of itself beside its tensors.

    Attributes:
        format: of the file.
        model: name of the weights.
        sha256: of the weights.
        settings: of the session.
        index, segment, fresh, scale_error, refined: see `Progress`.
        checksum: CRC-32 of the header without it, and of the tensors; 0 while it is computed.
    """

    format: Literal["ttt3r-session-4"]
    model: str
    sha256: str
    settings: Settings
    index: int
    segment: int
    fresh: bool
    scale_error: float | None
    refined: int
    checksum: int = 0


class SessionBase(abc.ABC):
    """Settings of a session, and its progress.

    Args:
        model: the network.
        rule: how its state is updated.
        state: what is remembered before the first frame.
        reset: when to start a new segment, see `Session`.
        outputs: what to compute, see `Session`.
        stitch: how segments are joined, see `Session`.
        device_of_results: where the tensors of predictions lie, see `Session`.
        trace: whether to keep a trace, see `Session`.
        pose_from: where poses come from, see `Session`.
        refine: whether poses are refined, see `Session`.

    Raises:
        SettingError: if a name is unknown, or the model cannot give an output.
    """

    def __init__(
        self,
        model: Any,
        rule: Any,
        state: Any,
        reset: "str | int | resets.Reset | None",
        outputs: Collection[str],
        stitch: "str | stitching.Stitching | None",
        device_of_results: ResultDevice = "cpu",
        trace: bool = False,
        pose_from: str | None = None,
        refine: bool = False,
    ) -> None:
        if device_of_results not in get_args(ResultDevice):
            raise SettingError(
                f"device_of_results must be 'cpu' or 'model', not {device_of_results!r}"
            )
        self.model, self.rule = model, rule
        self.device_of_results: ResultDevice = device_of_results
        self.reset = resets.parse(reset)
        self.stitch = stitching.parse(stitch, model.capabilities.metric_scale)
        self.outputs = model.capabilities.check((outputs,) if isinstance(outputs, str) else outputs)
        self.pose_from: PoseFrom = posing.choose(pose_from, model)
        self.refine = refine
        here = torch.eye(4, dtype=torch.float64)
        self._progress = Progress(state, 0, 0, here, trace=Trace() if trace else None)
        self._start = state.memories()  # what the trace measures the drift from

    @property
    def state(self) -> Any:
        """Everything that is remembered, a frozen dataclass of tensors (batch of one)."""
        return self._progress.state

    @property
    def index(self) -> int:
        """Number of frames taken in so far."""
        return self._progress.index

    @property
    def segment(self) -> int:
        """Number of the segment that the next frame belongs to."""
        return self._progress.segment

    @property
    def trace(self) -> Trace | None:
        """What the state and the camera did over time; None if no trace is kept."""
        return self._progress.trace

    @property
    def refined(self) -> int:
        """Number of frames whose pose was refined."""
        return self._progress.refined

    @property
    def ended(self) -> Ended | None:
        """The segment that ended with the newest frame, if one did."""
        return self._progress.ended

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @abc.abstractmethod
    def stream(self, images: Iterable[PushedImage]) -> Iterator[Prediction]:
        """Take in frames, and say of each what it shows.

        Args:
            images: as `Session.push` takes them.

        Raises:
            InputError, SettingError: see `Session.push`.
        """

    def _hand_over(self, prediction: Prediction) -> Prediction:
        """Move a prediction to where results are to lie."""
        return prediction.to("cpu" if self.device_of_results == "cpu" else self.device)

    def _observe(
        self, before: Progress, after: Progress, prediction: Prediction
    ) -> tuple[Progress, Prediction]:
        """Let the trace, if one is kept, take in a frame, and judge it."""
        if after.trace is None:
            return after, prediction
        states = before.state.memories(), after.state.memories()
        change = Change(self._start, *states, after.state.nbytes)
        trace, quality = after.trace.observe(prediction, change)
        return replace(after, trace=trace), replace(prediction, quality=quality)

    def fork(self: AnySession) -> AnySession:
        """Return a second session that continues from here on its own."""
        return copy.copy(self)  # every field is immutable or replaced, never changed in place

    def save(self, path: str | Path) -> None:
        """Write all that is needed to go on later; a few MB, whatever the stream's length.

        Some more where segments share several frames: tokens and points of each of them; and
        where poses are refined: brightness and depth of the key frame.

        Raises:
            SessionError: if the file cannot be written; an older file there is left as it was.
        """
        tensors = {f"state.{name}": item for name, item in self.state.to_tensors().items()}
        tensors["world_from_segment"] = self._progress.world_from_segment
        parts = {"watched": self._progress.watched}
        parts["recent"] = shared.to_tensors(self._progress.recent)
        if self._progress.key is not None:
            parts["key"] = self._progress.key.to_tensors()
        if self._progress.trace is not None:
            parts["trace"] = self._progress.trace.to_tensors()
        for part, named in parts.items():
            tensors |= {f"{part}.{name}": item for name, item in named.items()}
        settings = Settings(
            *(values.to_text(value) for value in (self.rule, self.reset, self.stitch)),
            outputs=tuple(sorted(self.outputs)),
            pose_from=self.pose_from,
            refine=self.refine,
        )
        header = _Header(
            "ttt3r-session-4",
            self.model.weights.name,
            self.model.weights.sha256,
            settings,
            self.index,
            self.segment,
            self._progress.fresh,
            self._progress.scale_error,
            self._progress.refined,
        )
        tensors = {name: item.detach().cpu().contiguous() for name, item in tensors.items()}
        header = replace(header, checksum=_checksum(header, tensors))
        path = user_path(path)
        if not has_text_name(path):
            raise SessionError(
                f"the name {str(path)!r} is not valid UTF-8, which saved sessions need; choose "
                "another file"
            )
        try:
            write_tensors(path, tensors, header, sync=True)
        except OSError as error:
            raise SessionError(
                f"cannot save the session to {path}: {error}. Check that the folder exists, is "
                "writable and has space left."
            ) from error

    @classmethod
    @abc.abstractmethod
    def begin(
        cls: type[AnySession],
        model: StreamModel | SetModel,
        settings: Settings,
        device_of_results: ResultDevice = "cpu",
    ) -> AnySession:
        """Return a fresh session with the settings of a saved one.

        Raises:
            SettingError: if they are those of another kind of session.
        """

    @classmethod
    def load(
        cls: type[AnySession],
        path: str | Path,
        model: StreamModel | SetModel,
        device_of_results: ResultDevice = "cpu",
    ) -> AnySession:
        """Continue a saved session; what follows is bit-equal to never having stopped.

        Args:
            path: a file that `save` wrote.
            model: the model it was saved with; the device may differ.
            device_of_results: see `Session`.

        Raises:
            SessionError: if the file is not a session, is damaged, or belongs to other weights.
        """
        header, tensors = _read_session(user_path(path))
        if header.sha256 != model.weights.sha256:
            raise SessionError(
                f"{path} was saved with the weights {header.model!r} (sha256 "
                f"{header.sha256[:12]}…), not with {model.weights.name!r} (sha256 "
                f"{model.weights.sha256[:12]}…). Load those weights to resume it."
            )
        try:
            session = cls.begin(model, header.settings, device_of_results)
        except SettingError as error:
            raise SessionError(f"{path} cannot be resumed: {error}") from error
        session._progress = session._restored(path, header, tensors)
        return session

    def _restored(
        self, path: str | Path, header: _Header, tensors: Mapping[str, Tensor]
    ) -> Progress:
        names = ("state", "trace", "watched", "recent", "key", "")
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part if rest and part in parts else ""][rest or name] = tensor
        wanted = self.reset.remembers if isinstance(self.reset, Watching) else frozenset()
        try:
            placement = parts[""].pop("world_from_segment")
            recent = shared.from_tensors(parts["recent"], self.device)
            key = refining.Key.from_tensors(parts["key"], self.device)
            if (parts["watched"] and parts["watched"].keys() != wanted) or parts[""]:
                raise ValueError("what its reset remembers is not what it says")
        except (KeyError, ValueError) as error:
            raise SessionError(f"{path} is damaged: {error}") from error
        return Progress(
            self.state.with_tensors(parts["state"]),
            header.index,
            header.segment,
            placement,
            header.fresh,
            Trace.from_tensors(parts["trace"]) if parts["trace"] else None,
            header.scale_error,
            parts["watched"],
            recent,
            key,
            header.refined,
        )


def _read_session(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    try:
        header, tensors = read_tensors(path, _Header)
    except ValueError as error:
        raise SessionError(
            f"{path} is damaged, or is not a session of this version of ttt3r: {error}"
        ) from error
    if header.checksum != _checksum(replace(header, checksum=0), tensors):
        raise SessionError(
            f"{path} is damaged: its content does not fit its checksum. Start again, or resume "
            "from another file."
        )
    return header, tensors


def _checksum(header: _Header, tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of all that a session file holds."""
    total = zlib.crc32(encode_header(header))
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return total
