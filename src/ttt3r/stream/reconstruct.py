"""The main job as one call: a source of frames in, predictions out, a run on disk."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ttt3r import values, weights
from ttt3r.errors import CapacityError, SettingError
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.reader import TRACE, Run
from ttt3r.runs.segment_file import LARGEST_KEPT, MOST_KEPT, segment_path, write_segment
from ttt3r.runs.writer import RunWriter
from ttt3r.sources import Source, open_source, prefetch, prepare_frame
from ttt3r.spans import span, timed
from ttt3r.stream import resets, stitching
from ttt3r.stream.ahead import checked_batch
from ttt3r.stream.base import Ended, SessionBase
from ttt3r.stream.clips import open_session
from ttt3r.stream.loops.closing import Closing, close_loops
from ttt3r.stream.session import Session
from ttt3r.stream.shortage import MEMORY_ERRORS, shortage
from ttt3r.types import Frame, Prediction, Preparation
from ttt3r.version import __version__

T = TypeVar("T")

DECODE_AHEAD = 4
ADVICE = (
    "Show the network less at once: fewer frames (--reset 50, --stride 2, or a rule with a bound), "
    "smaller images (--size), or --precision bfloat16"
)


def reconstruct(
    source: "str | Path | Source | Iterable[Any]",
    *,
    model: str | Path | StreamModel | SetModel = "builtin",
    rule: Any = None,
    reset: "str | int | resets.Reset | None" = None,
    stitch: "str | stitching.Stitching | None" = None,
    outputs: Collection[str] = ("points", "pose"),
    size: int | None = None,
    out: str | Path | RunFolder | None = None,
    device: str = "auto",
    precision: str = "auto",
    trace: bool = False,
    stop_when: Callable[[], bool] | None = None,
    pose_memory: Any = None,
    loops: bool = False,
    pose_from: str | None = None,
    refine: bool = False,
    encode_batch: int = 1,
) -> "Reconstruction":
    """Reconstruct a video, folder of images or any iterable of frames while it arrives.

    Args:
        source: what `ttt3r.open_source` takes, or returns where only some of the frames are
            wanted, or turned or cut ones.
        model: a model, or what `ttt3r.load` takes.
        rule: update rule, see `Session`. With a model that looks at all views at once, None and
            "once" look once at each segment, and its predictions come when the segment has ended.
        reset: when the state is reset, see `Session`.
        stitch: how segments are joined, see `Session`.
        outputs: what to compute, see `Session`.
        size: longer image side in pixels; None takes what the weights were trained with.
        out: folder to write the run to; a `RunFolder` to go on with a run, or to replace one; None
            writes nothing.
        device: where to load a model that is given by name or path, see `ttt3r.load`.
        precision: likewise.
        trace: see `Session`; with `out`, the run holds the trace too.
        stop_when: asked before each frame is taken in; True stops as Ctrl-C does.
        pose_memory: update rule of CUT3R's pose memory, see `Session`.
        loops: keep what is remembered at the end of each segment in the run, and when the source
            has ended, move the segments so that places which were seen twice meet; see
            `stream.loops.closing.close_loops`. Needs `out` and a reset.
        pose_from: where poses come from, see `Session`.
        refine: refine poses by brightness and depth, see `Session`; not together with `loops`.
        encode_batch: frames of a file that are encoded together, see `Session.encode_ahead`. A
            network that looks once at each segment encodes all of it together anyway.

    Returns:
        An iterator of predictions. With `out`, what was yielded is also written; stopping early
        leaves a run that can be resumed.

    Raises:
        InputError, SettingError, WeightsError, RunError: before the first frame, if something
            cannot work; and from the iteration, if a frame cannot be read or written.
    """
    target = out if isinstance(out, RunFolder) or out is None else RunFolder(out)
    # All that can be checked is checked before the weights are read, which may take a while.
    if target is not None:
        target.check()
    frames = open_source(source)
    if size is not None and (type(size) is not int or size < 1):
        raise SettingError(f"size must be a whole number of pixels, not {size!r}")
    reset = resets.parse(reset)
    checked_batch(encode_batch)
    if loops:
        _check_loops(target, reset, refine=refine)
    stitch = None if stitch is None else stitching.parse(stitch)
    if isinstance(model, str | Path):
        model = weights.load(model, device, precision)
    asked = rule, reset, outputs, stitch
    session = open_session(
        model,
        *asked,
        pose_memory=pose_memory,
        trace=trace,
        pose_from=pose_from,
        refine=refine,
    )
    _check_answers(session, loops=loops)
    policy = model.preparation if size is None else replace(model.preparation, size=size)
    if target is None:
        return Reconstruction(
            session, frames, policy, stop_when=stop_when, encode_batch=encode_batch
        )
    writer = RunWriter(target, describe(session, frames, policy.size))
    if target.resume:
        kind = type(session)
        try:
            session = writer.restore(lambda path: kind.load(path, model)) or session
        except BaseException:
            writer.close("failed")
            raise
    every = target.checkpoint_every
    how = every, stop_when, loops, encode_batch
    return Reconstruction(session, frames, policy, writer, *how)


def _check_loops(target: RunFolder | None, reset: resets.Reset, *, refine: bool) -> None:
    if target is None or isinstance(reset, resets.Never):
        raise SettingError(
            "loops are closed between segments of a run; give it a folder (out) and a reset, such "
            "as 50"
        )
    if refine:
        raise SettingError("loops are not closed where poses are refined; choose one of the two")


def _check_answers(session: SessionBase, *, loops: bool) -> None:
    """Refuse to close loops of a network that remembers nothing."""
    if loops and not isinstance(session, Session):
        raise SettingError(
            "this network looks once at each segment and remembers none, so its loops cannot be "
            "closed; take a rule such as keep_all or window(32)"
        )


def describe(session: SessionBase, source: Source, size: int) -> dict[str, Any]:
    """Settings of a run as JSON values, for its manifest."""
    info = session.model.weights
    return {
        "model": {
            "name": info.name,
            "sha256": info.sha256,
            "licence": info.licence,
            "origin": info.origin,
            "trained": info.trained,
            "metric": info.trained and session.model.capabilities.metric_scale,
        },
        "rule": values.to_text(session.rule),
        "reset": values.to_text(session.reset),
        "stitch": values.to_text(session.stitch),
        "outputs": sorted(session.outputs),
        "size": size,
        **({} if session.trace is None else {"trace": True}),
        **({} if session.pose_from == "head" else {"pose_from": session.pose_from}),
        **({"refine": True} if session.refine else {}),
        "source": source.describe(),
        "versions": {"ttt3r": __version__, "torch": str(torch.__version__)},
    }


class Reconstruction(Iterator[Prediction]):
    """Predictions of a source, one by one; also a context manager that stops cleanly.

    Attributes:
        session: the running session.
        done: number of frames whose predictions were yielded, those before `resumed_at` included.
        resumed_at: index of the first frame that is still to come, above 0 after a resume.
        total: expected number of frames including those before `resumed_at`; None if unknown.
        closing: what came of the loops, once the source has ended; None if they are not closed.
    """

    def __init__(
        self,
        session: SessionBase,
        source: Source,
        policy: Preparation,
        writer: RunWriter | None = None,
        checkpoint_every: int = 25,
        stop_when: Callable[[], bool] | None = None,
        loops: bool = False,
        encode_batch: int = 1,
    ) -> None:
        self.session = session
        self.closing: Closing | None = None
        self._loops = loops
        finished = None if writer is None else writer.finished
        self.resumed_at = session.index if finished is None else finished
        self.total = source.length
        self._writer = writer
        self._checkpoint_every = checkpoint_every
        self._stored = session.fork()
        decoded = timed("decode", source.frames(self.resumed_at))
        self._frames = prefetch(_prepared(decoded, policy), max(DECODE_AHEAD, encode_batch))
        frames = timed("wait for input", self._frames)
        self._predictions = (
            session.stream(_until(session.encode_ahead(frames, encode_batch), stop_when))
            if isinstance(session, Session)
            else session.stream(_until(frames, stop_when))
        )
        self.done, self._checkpointed = self.resumed_at, session.index
        self._open = True

    def __next__(self) -> Prediction:
        if not self._open:
            raise StopIteration
        try:
            prediction = next(self._predictions)
            self._store(prediction)
        except StopIteration:
            self._stored = self.session.fork()
            self._end()
            raise
        except KeyboardInterrupt:
            self._finish("interrupted")
            raise
        except BaseException as error:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self._finish("failed")
            if isinstance(error, MEMORY_ERRORS) and (what := shortage(error)):
                raise CapacityError(f"frame {self.done}: {what}. {ADVICE}") from error
            raise
        return prediction

    def close(self) -> None:
        """Stop here. What was yielded is written, and the run can be resumed.

        Raises:
            RunError: if it could not be written.
        """
        self._finish("interrupted")

    def _store(self, prediction: Prediction) -> None:
        self.done = prediction.index + 1
        if self._writer is None:
            return
        self._writer.write(prediction)
        if self._loops and self.session.ended is not None:
            self._keep(self._writer, self.session.ended)
        self._stored = self.session.fork()
        if self.session.index - self._checkpointed >= self._checkpoint_every:
            self._checkpointed = self.session.index
            self._checkpoint(self._writer)

    def _keep(self, writer: RunWriter, ended: Ended) -> None:
        """Let the run hold what was remembered at the end of a segment, unless that is much."""
        if ended.segment >= MOST_KEPT or ended.state.nbytes > LARGEST_KEPT:
            return
        name = str(segment_path(Path(), ended.segment))
        rule, sha256 = values.to_text(self.session.rule), self.session.model.weights.sha256
        tensors, place = ended.state.to_tensors(), ended.world_from_segment
        writer.keep(
            name, lambda path: write_segment(path, ended.segment, tensors, place, sha256, rule)
        )

    def _end(self) -> None:
        """Finish a run whose source has ended."""
        if self._writer is None or not self._loops:
            self._finish("complete")
            return
        session, folder = self.session, self._writer.folder
        assert isinstance(session, Session)
        if session.ended is None:  # otherwise the last segment holds no frame of its own
            last = Ended(session.segment, session.state, session.world_from_segment)
            self._keep(self._writer, last)
        self._finish("complete")
        self.closing = close_loops(Run.open(folder), session.model)

    def _checkpoint(self, writer: RunWriter) -> None:
        stored = self._stored.fork()
        writer.checkpoint(stored.save)
        if stored.trace is not None:
            writer.keep(TRACE, stored.trace.write)

    def _finish(self, status: str) -> None:
        if not self._open:
            return
        self._open = False
        self._frames.close()
        if self._writer is not None:
            try:
                self._checkpoint(self._writer)
            finally:
                refined = {"refined_frames": self._stored.refined} if self.session.refine else {}
                self._writer.close(status, refined)

    def __enter__(self) -> "Reconstruction":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            with contextlib.suppress(Exception):
                self.close()


def _prepared(frames: Iterable[Frame], policy: Preparation) -> Iterator[Frame]:
    """Bring frames to the size that the network takes."""
    for frame in frames:
        with span("prepare"):
            prepared = prepare_frame(frame, policy)
        yield prepared


def _until(frames: Iterable[T], stop_when: Callable[[], bool] | None) -> Iterator[T]:
    """Let frames pass until asked to stop."""
    for frame in frames:
        if stop_when is not None and stop_when():
            raise KeyboardInterrupt
        yield frame
