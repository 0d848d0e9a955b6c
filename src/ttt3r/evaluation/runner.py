"""Stream sequences through a session, score them at every length, and write what was found.

A streaming model has seen only the first N frames when it answers the N-th, so one pass over the
longest length gives the answers for all shorter ones. A model that looks once at a whole clip takes
a pass for each length.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ttt3r import values
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation import machine
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.results import Evaluation, Score, SequenceScores, Settings, means
from ttt3r.evaluation.sequences import First, Sequence
from ttt3r.evaluation.store import Store, explained
from ttt3r.evaluation.tasks import RECORDERS, Outcome, Recorder
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.stream.base import SessionBase
from ttt3r.stream.clips import ClipSession, open_session
from ttt3r.stream.shortage import MEMORY_ERRORS, shortage
from ttt3r.types import Frame

# Frames without which a task has no answer: a similarity takes three positions.
SHORTEST: dict[Task, int] = {"pose": 3, "depth": 1, "recon": 1}

Length = int | None
Update = Callable[[int], None]


@dataclass(frozen=True)
class Plan:
    """What will be shown and where it will be scored.

    Attributes:
        protocol: how to score.
        lengths: numbers of frames to score at, ascending; None for all there are.
        sequences: opened, in order.
        complete: whether these are all that published tables contain.
    """

    protocol: Protocol
    lengths: tuple[Length, ...]
    sequences: tuple[Sequence, ...]
    complete: bool

    @property
    def content(self) -> dict[str, str]:
        """What tells the sequences from others of the same names, where they lie in files."""
        known = {s.name: getattr(s, "digest", None) for s in self.sequences}
        return {name: digest for name, digest in known.items() if digest is not None}

    @property
    def frames(self) -> int:
        """Number of frames that one rule sees."""
        return sum(len(sequence) for sequence in self.sequences)


def make_plan(
    protocol: Protocol,
    root: Path,
    lengths: tuple[Length, ...] = (),
    names: tuple[str, ...] = (),
) -> Plan:
    """Open the sequences of a protocol.

    Args:
        protocol: what to measure.
        root: folder of the dataset.
        lengths: numbers of frames to score at; the protocol's own number if empty.
        names: sequences to take; all that published tables contain if empty.

    Raises:
        InputError: if a sequence is missing or damaged, or two have one name.
        SettingError: if a length is beyond the protocol's, or too short to score.
    """
    lengths = lengths or (protocol.frames,)
    lengths = tuple(sorted(set(lengths), key=lambda n: float("inf") if n is None else n))
    for length in lengths:
        if length is not None and length < SHORTEST[protocol.task]:
            raise SettingError(
                f"{length} frames are too few to measure {protocol.task}; it takes at least "
                f"{SHORTEST[protocol.task]}"
            )
        if protocol.frames is not None and (length is None or length > protocol.frames):
            raise SettingError(
                f"{protocol.name} ends at {protocol.frames} frames, so it has no length "
                f"{length or 'all'}. Name a longer protocol, or leave that length out."
            )
    known = protocol.data.sequences(root, protocol.task)
    others = tuple(name for name in dict.fromkeys(names) if name not in known)
    chosen = (*(name for name in known if name in names), *others) or known
    selection = dataclasses.replace(protocol.selection, frames=lengths[-1])
    opened = []
    for name in chosen:
        try:
            opened.append(protocol.data.open(root, name, selection))
        except InputError as error:
            if name not in others:
                raise
            listed = f"Those that published tables contain: {', '.join(known)}"
            raise InputError(f"{error}\n{listed}") from error
    titles = [sequence.name for sequence in opened]
    if len(set(titles)) < len(titles):
        raise InputError(f"two sequences have one name, of {', '.join(titles)}. Rename one.")
    return Plan(protocol, lengths, tuple(opened), chosen == known)


def settings_of(plan: Plan, session: SessionBase, size: int, precision: str) -> Settings:
    """Describe an evaluation."""
    protocol, weights = plan.protocol, session.model.weights
    return Settings(
        task=protocol.task,
        protocol=protocol.name,
        variant=protocol.variant,
        data=protocol.dataset,
        lengths=plan.lengths,
        sequences=tuple(sequence.name for sequence in plan.sequences),
        complete=plan.complete,
        model=weights.name,
        fingerprint=weights.sha256,
        rule=values.to_text(session.rule),
        reset=values.to_text(session.reset),
        size=size,
        precision=precision,
        device=session.device.type,
    )


def evaluate(
    plan: Plan,
    model: StreamModel | SetModel,
    store: Store,
    settings: Settings,
    progress: Update = lambda done: None,
) -> Evaluation:
    """Run one rule over every sequence that is not done yet, and write its summary.

    Args:
        plan: what to show.
        model: the network.
        store: where to read from what is done, and where to write.
        settings: as from `settings_of`; rule and reset policy are taken from here.
        progress: called after each frame with the number of frames done, those of sequences that
            were done before included.

    Raises:
        InputError: if a frame cannot be read.
        RunError: if something cannot be written.
    """
    evaluation = Evaluation(settings, machine.facts(torch.device(settings.device)), (), ())
    label, done, finished = evaluation.label, 0, []
    for sequence in plan.sequences:
        scores = store.read(label, sequence.name)
        if scores is None:
            folder = store.sequence(label, sequence.name)
            with explained(store.folder):
                folder.mkdir(parents=True, exist_ok=True)
                report = functools.partial(_from, done, progress)
                scores = _measure(plan, model, settings, sequence, folder, report)
                store.write(label, scores)
        finished.append(scores)
        done += len(sequence)
        progress(done)
    evaluation = dataclasses.replace(
        evaluation, sequences=tuple(finished), means=means(settings, finished)
    )
    with explained(store.folder):
        store.write_summary(evaluation)
    return evaluation


def _from(start: int, progress: Update, done: int) -> None:
    """Report progress that counts on from a start."""
    progress(start + done)


def _measure(
    plan: Plan,
    model: StreamModel | SetModel,
    settings: Settings,
    sequence: Sequence,
    folder: Path,
    progress: Update,
) -> SequenceScores:
    """Show a sequence as often as its lengths take, and score it at all of them."""
    parts = []
    for frames, lengths in passes(_session(model, settings), plan.lengths, sequence):
        session, part = _session(model, settings), First(sequence, frames)
        recorder = _recorder(plan.protocol, part, session, settings.size, folder)
        # A pass before the last counts as nothing done, but lets a signal through.
        share = int(lengths[-1] == plan.lengths[-1])
        parts.append(
            run_sequence(session, recorder, lengths, lambda n, share=share: progress(share * n))
        )
    return _joined(parts)


def passes(
    session: SessionBase, lengths: tuple[Length, ...], sequence: Sequence
) -> list[tuple[int, tuple[Length, ...]]]:
    """Return how many frames to show from the start, time after time, and what to score each time.

    Args:
        session: whose answers for some frames may or may not depend on later ones.
        lengths: numbers of frames to score at, ascending; None for all there are.
        sequence: what will be shown.
    """
    total = len(sequence)
    if not isinstance(session, ClipSession):
        return [(total, lengths)]
    groups: dict[int, list[Length]] = {}
    for length in lengths:
        groups.setdefault(total if length is None else min(length, total), []).append(length)
    return [(frames, tuple(group)) for frames, group in groups.items()]


def run_sequence(
    session: SessionBase,
    recorder: Recorder,
    lengths: tuple[Length, ...],
    progress: Update = lambda done: None,
) -> SequenceScores:
    """Show a sequence to a fresh session, and score it at every length.

    Args:
        session: fresh, with the outputs of the recorder.
        recorder: fresh; closed afterwards.
        lengths: numbers of frames; None for all there are.
        progress: called with the number of frames shown.
    """
    began, device = time.perf_counter(), session.device
    machine.reset_peak_memory(device)
    try:
        seconds, note = _show(session, recorder, progress)
        peak = machine.peak_memory(device)
        outcomes: dict[int, Outcome] = {}
        scores = []
        for length in lengths:
            wanted = len(recorder.sequence) if length is None else length
            frames = min(wanted, len(seconds))
            if note and frames < min(wanted, len(recorder.sequence)):
                outcome = Outcome("failed", note=note)
            elif frames in outcomes:
                outcome = outcomes[frames]
            else:
                outcome = outcomes[frames] = _score(recorder, frames)
            taken = sum(seconds[:frames])
            scores.append(
                Score(
                    length=length,
                    frames=frames,
                    status=outcome.status,
                    metrics=outcome.metrics,
                    note=outcome.note,
                    weight=outcome.weight,
                    frames_per_second=frames / taken if taken else None,
                )
            )
        if seconds:  # else a shorter pass may have left something better
            recorder.keep()
    finally:
        recorder.close()
    return SequenceScores(
        sequence=recorder.sequence.name,
        size=recorder.size or (0, 0),
        scores=tuple(scores),
        peak_memory=peak,
        seconds=time.perf_counter() - began,
    )


class _Prepared(Iterator[Frame]):
    """The frames of a sequence, prepared one by one, and the seconds that this took.

    Args:
        recorder: prepares them.
        device: whose clock counts.
        before_each: called before each frame.
    """

    def __init__(
        self, recorder: Recorder, device: torch.device, before_each: Callable[[], None]
    ) -> None:
        self.seconds = 0.0
        self._recorder, self._device, self._before_each = recorder, device, before_each
        self._frames = iter(recorder.sequence)

    def __next__(self) -> Frame:
        start = machine.clock(self._device)
        try:
            self._before_each()
            return self._recorder.prepare(next(self._frames))
        finally:
            self.seconds += machine.clock(self._device) - start


def _show(session: SessionBase, recorder: Recorder, progress: Update) -> tuple[list[float], str]:
    """Return the seconds each frame took in the session, and why the stream ended early if so."""
    device = session.device
    seconds: list[float] = []
    # While a clip is gathered nothing is answered; this lets a signal through.
    frames = _Prepared(recorder, device, lambda: progress(len(seconds)))
    predictions = session.stream(frames)
    while True:
        start, before = machine.clock(device), frames.seconds
        try:
            prediction = next(predictions, None)
        except MEMORY_ERRORS as error:
            return seconds, f"frame {len(seconds)}: {_out_of_memory(error)}"
        if prediction is None:
            return seconds, ""
        seconds.append(machine.clock(device) - start - (frames.seconds - before))
        recorder.take(prediction)
        progress(len(seconds))


def _joined(parts: list[SequenceScores]) -> SequenceScores:
    """Join what several passes over one sequence found."""
    peaks = [part.peak_memory for part in parts if part.peak_memory is not None]
    return dataclasses.replace(
        parts[-1],
        scores=tuple(score for part in parts for score in part.scores),
        peak_memory=max(peaks, default=None),
        seconds=sum(part.seconds or 0.0 for part in parts),
    )


def _score(recorder: Recorder, frames: int) -> Outcome:
    try:
        return recorder.score(frames)
    except MEMORY_ERRORS as error:
        return Outcome("failed", note=f"scoring: {_out_of_memory(error)}")


def _out_of_memory(error: Exception) -> str:
    """Return what an error says that means too little memory; raise any other."""
    text = shortage(error)
    if text is None:
        raise error
    return text


def _session(model: StreamModel | SetModel, settings: Settings) -> SessionBase:
    outputs = RECORDERS[settings.task].outputs
    return open_session(model, settings.rule, settings.reset, outputs)


def _recorder(
    protocol: Protocol, sequence: Sequence, session: SessionBase, size: int, folder: Path
) -> Recorder:
    policy = dataclasses.replace(session.model.image_policy, size=size)
    return RECORDERS[protocol.task](protocol, sequence, policy, folder)
