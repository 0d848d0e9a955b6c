"""The main job as one call: a source of frames in, predictions out, a run on disk."""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ttt3r import __version__, values, weights
from ttt3r.errors import SettingError
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.sources import Source, open_source, prefetch, prepare_frame
from ttt3r.stream import resets, stitching
from ttt3r.stream.session import Session
from ttt3r.stream.writer import RunWriter, check_folder
from ttt3r.types import Prediction

DECODE_AHEAD = 4


def reconstruct(
    source: "str | Path | Source | Iterable[Any]",
    *,
    model: str | Path | StreamModel | SetModel = "builtin",
    rule: Any = None,
    reset: "str | int | resets.ResetPolicy | None" = None,
    stitch: "str | stitching.Stitching" = "pose",
    outputs: Collection[str] = ("points", "pose"),
    size: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_every: int = 25,
    stride: int = 1,
    start: float | None = None,
    end: float | None = None,
    fps: float = 30.0,
    device: str = "auto",
    precision: str = "auto",
) -> "Reconstruction":
    """Reconstruct a video, folder of images or any iterable of frames while it arrives.

    Args:
        source: video file, folder, glob pattern, list of image files, or iterable of uint8 arrays.
        model: a model, or what `ttt3r.load` takes.
        rule: update rule, see `Session`.
        reset: reset policy, see `Session`.
        stitch: how segments are joined, see `Session`.
        outputs: what to compute, see `Session`.
        size: longer image side in pixels; None takes what the weights were trained with.
        out: folder to write the run to; None writes nothing.
        resume: go on with the run in `out`.
        overwrite: replace the run in `out`.
        checkpoint_every: frames between two checkpoints of the session.
        stride: take every `stride`-th frame.
        start: skip this many seconds.
        end: stop at this many seconds.
        fps: frame rate of sources that have no timestamps of their own.
        device: where to load a model that is given by name or path, see `ttt3r.load`.
        precision: likewise.

    Returns:
        An iterator of predictions. With `out`, what was yielded is also written; stopping early
        leaves a run that can be resumed.

    Raises:
        InputError, SettingError, WeightsError, RunError: before the first frame, if something
            cannot work; and from the iteration, if a frame cannot be read or written.
    """
    if checkpoint_every < 1:
        raise SettingError(f"checkpoint_every must be at least 1, not {checkpoint_every}")
    if out is None and (resume or overwrite):
        raise SettingError("resume and overwrite need an output folder")
    # All that can be checked is checked before the weights are read, which may take a while.
    if out is not None:
        check_folder(Path(out), resume=resume, overwrite=overwrite)
    frames = open_source(source, stride=stride, start=start, end=end, fps=fps)
    reset, stitch = resets.parse(reset), stitching.parse(stitch)
    if isinstance(model, str | Path):
        model = weights.load(model, device, precision)
    session = Session(model, rule, reset, outputs, stitch)
    policy = model.image_policy if size is None else replace(model.image_policy, size=size)
    writer = None
    if out is not None:
        settings = describe(session, frames, policy.size)
        writer = RunWriter(Path(out), settings, resume=resume, overwrite=overwrite)
        if resume:
            try:
                session = writer.restore(model) or session
            except BaseException:
                writer.close("failed")
                raise
    return Reconstruction(session, frames, policy, writer, checkpoint_every)


def describe(session: Session, source: Source, size: int) -> dict[str, Any]:
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
        "source": source.describe(),
        "versions": {"ttt3r": __version__, "torch": str(torch.__version__)},
    }


class Reconstruction(Iterator[Prediction]):
    """Predictions of a source, one by one; also a context manager that stops cleanly.

    Attributes:
        session: the running session.
        resumed_at: index of the first frame that is still to come, above 0 after a resume.
        total: expected number of frames including those before `resumed_at`; None if unknown.
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        policy: Any,
        writer: RunWriter | None,
        checkpoint_every: int,
    ) -> None:
        self.session = session
        self.resumed_at = session.index
        self.total = source.length
        self._writer = writer
        self._checkpoint_every = checkpoint_every
        self._stored = session.fork()
        prepared = (prepare_frame(frame, policy) for frame in source.frames(self.resumed_at))
        self._frames = prefetch(prepared, DECODE_AHEAD)
        self._open = True

    def __next__(self) -> Prediction:
        if not self._open:
            raise StopIteration
        try:
            frame = next(self._frames)
            prediction = self.session.push(frame)
            self._store(prediction)
        except StopIteration:
            self._finish("complete")
            raise
        except KeyboardInterrupt:
            self._finish("interrupted")
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self._finish("failed")
            raise
        return prediction

    def close(self) -> None:
        """Stop here. What was yielded is written, and the run can be resumed.

        Raises:
            RunError: if it could not be written.
        """
        self._finish("interrupted")

    def _store(self, prediction: Prediction) -> None:
        if self._writer is None:
            return
        self._writer.write(prediction)
        self._stored = self.session.fork()
        if self.session.index % self._checkpoint_every == 0:
            self._writer.checkpoint(self._stored)

    def _finish(self, status: str) -> None:
        if not self._open:
            return
        self._open = False
        self._frames.close()
        if self._writer is not None:
            try:
                self._writer.checkpoint(self._stored)
            finally:
                self._writer.close(status)

    def __enter__(self) -> "Reconstruction":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            with contextlib.suppress(Exception):
                self.close()
