"""Show sequences to a session, score them at every length, and write what was found.

A streaming model has seen only the first N frames when it answers the N-th, so one pass over the
longest length gives the answers for all shorter ones. A model that looks once at a whole clip takes
a pass for each length.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ttt3r import values
from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation import machine
from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.results import Evaluation, Length, Score, SequenceScores, Settings
from ttt3r.evaluation.sequences import Sequence
from ttt3r.evaluation.store import Store, explained
from ttt3r.evaluation.tasks import RECORDERS, Outcome, Recorder
from ttt3r.files import as_text
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.stream.base import SessionBase
from ttt3r.stream.clips import ClipSession, open_session
from ttt3r.stream.shortage import MEMORY_ERRORS, shortage
from ttt3r.types import Frame

# Frames without which a task has no answer: a similarity takes three positions.
SHORTEST: dict[Task, int] = {"pose": 3, "depth": 1, "recon": 1}

Update = Callable[[int], None]

logger = logging.getLogger("ttt3r.evaluation")


@dataclass(frozen=True)
class Plan:
    """What will be shown and where it will be scored.

    Attributes:
        protocol: how to score.
        lengths: numbers of frames to score at, ascending; None for all there are.
        sequences: those that could be opened, in order.
        known: names of all sequences that published tables contain.
        unreadable: names of the sequences that cannot be read, to the reason. Sequences in which a
            frame turns out to be damaged are added, so that no other rule tries them again.
    """

    protocol: Protocol
    lengths: tuple[Length, ...]
    sequences: tuple[Sequence, ...]
    known: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, str]:
        """All names, to what tells their data from others of the same name."""
        return dict.fromkeys(self.unreadable, "") | {s.name: s.digest for s in self.sequences}

    @property
    def frames(self) -> int:
        """Number of frames that one rule sees."""
        return sum(len(sequence) for sequence in self.sequences)

    def note_unreadable(self, name: str, error: InputError) -> None:
        """Remember that a sequence cannot be read, and say so."""
        self.unreadable[name] = as_text(str(error).splitlines()[0])
        logger.warning("%s is left out: %s", name, self.unreadable[name])


def make_plan(
    protocol: Protocol,
    root: Path,
    lengths: tuple[Length, ...] = (),
    names: tuple[str, ...] = (),
) -> Plan:
    """Open the sequences of a protocol.

    A sequence of the dataset that is missing or damaged counts as failed, as long as another one
    can be opened.

    Args:
        protocol: what to measure.
        root: folder of the dataset.
        lengths: numbers of frames to score at; the protocol's own number if empty.
        names: sequences to take; all that published tables contain if empty.

    Raises:
        InputError: if no sequence can be opened, a name is unknown to the dataset and cannot be
            opened, or two sequences have one name.
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
    opened, failed = [], {}
    for name in chosen:
        try:
            opened.append(protocol.data.open(root, name, selection))
        except InputError as error:
            if name in others:
                listed = f"Those that published tables contain: {', '.join(known)}"
                raise InputError(f"{error}\n{listed}") from error
            failed[name] = error
    if not opened:
        raise next(iter(failed.values()))
    titles = [sequence.name for sequence in opened]
    if len(set(titles)) < len(titles):
        raise InputError(f"two sequences have one name, of {', '.join(titles)}. Rename one.")
    plan = Plan(protocol, lengths, tuple(opened), known)
    for name, error in failed.items():
        plan.note_unreadable(name, error)
    return plan


def settings_of(plan: Plan, session: SessionBase, size: int, precision: str) -> Settings:
    """Describe an evaluation."""
    protocol, weights = plan.protocol, session.model.weights
    return Settings(
        task=protocol.task,
        protocol=protocol.name,
        variant=protocol.variant,
        data=protocol.dataset,
        lengths=plan.lengths,
        model=weights.name,
        fingerprint=weights.sha256,
        rule=values.to_text(session.rule),
        reset=values.to_text(session.reset),
        size=size,
        precision=precision,
        pose_from=session.pose_from,
    )


def evaluate(
    plan: Plan,
    model: StreamModel | SetModel,
    store: Store,
    settings: Settings,
    progress: Update = lambda done: None,
) -> Evaluation:
    """Run one rule over every sequence that is not done yet, and write its summary.

    The summary has every sequence that was ever evaluated in the folder under the rule. A sequence
    that cannot be read counts as failed at all lengths, and is tried again when the evaluation is
    resumed.

    Args:
        plan: what to show.
        model: the network.
        store: where to read from what is done, and where to write.
        settings: as from `settings_of`; rule, reset and source of poses are taken from here.
        progress: called after each frame with the number of frames done, those of sequences that
            were done before included.

    Raises:
        RunError: if something cannot be written.
    """
    label, done = settings.label, 0
    facts = machine.facts(open_session(model, settings.rule, settings.reset).device)
    with explained(store.folder):
        for sequence in plan.sequences:
            scores = store.read(label, sequence.name)
            if sequence.name not in plan.unreadable and not (scores and scores.readable):
                try:
                    report = _counting_from(done, progress)
                    scores = _measure(plan, model, settings, sequence, store, report)
                    store.write(label, dataclasses.replace(scores, facts=facts))
                except InputError as error:
                    plan.note_unreadable(sequence.name, error)
            done += len(sequence)
            progress(done)
        for name, why in plan.unreadable.items():
            before = store.read(label, name)
            if before is None or not before.readable:
                failed = (Score(length, 0, "failed", note=why) for length in plan.lengths)
                store.write(label, SequenceScores(name, (0, 0), tuple(failed)))
        order = {name: number for number, name in enumerate(plan.known)}
        found = sorted(store.read_all(label), key=lambda s: order.get(s.sequence, len(order)))
        complete = {scores.sequence for scores in found} == set(plan.known)
        evaluation = Evaluation(settings, tuple(found), complete)
        store.write_summary(evaluation)
    return evaluation


def _counting_from(start: int, progress: Update) -> Update:
    return lambda done: progress(start + done)


def _measure(
    plan: Plan,
    model: StreamModel | SetModel,
    settings: Settings,
    sequence: Sequence,
    store: Store,
    progress: Update,
) -> SequenceScores:
    """Show a sequence as often as its lengths take, and score it at all of them."""
    folder = store.sequence(settings.label, sequence.name)
    folder.mkdir(parents=True, exist_ok=True)
    recorder_of, parts = RECORDERS[settings.task], []

    def session() -> SessionBase:
        asked = settings.rule, settings.reset, recorder_of.outputs
        return open_session(model, *asked, pose_from=settings.pose_from)

    preparation = dataclasses.replace(model.preparation, size=settings.size)
    for frames, lengths in passes(session(), plan.lengths, sequence):
        recorder = recorder_of(plan.protocol, sequence.first(frames), preparation, folder)
        # A pass before the last counts as nothing done, but lets a signal through.
        share = int(lengths[-1] == plan.lengths[-1])
        parts.append(
            run_sequence(session(), recorder, lengths, lambda n, share=share: progress(share * n))
        )
    peaks = [part.peak_memory for part in parts if part.peak_memory is not None]
    return dataclasses.replace(
        parts[-1],
        scores=tuple(score for part in parts for score in part.scores),
        peak_memory=max(peaks, default=None),
        seconds=sum(part.seconds or 0.0 for part in parts),
        digest=sequence.digest,
    )


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
    recorder.device = device
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
            else:
                outcome = outcomes[frames] = outcomes.get(frames) or _score(recorder, frames)
            rate = frames / sum(seconds[:frames]) if sum(seconds[:frames]) else None
            parts = outcome.status, outcome.metrics, outcome.note, outcome.weight
            scores.append(Score(length, frames, *parts, frames_per_second=rate))
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
