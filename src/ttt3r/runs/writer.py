"""Writes a run while the reconstruction goes on; a killed run can be resumed."""

import contextlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol, TypeVar, runtime_checkable

from ttt3r.errors import RunError, SessionError
from ttt3r.files import sync_files, to_json, write_atomically, write_text
from ttt3r.runs import reader as run
from ttt3r.runs import trajectory as tum
from ttt3r.runs.folder import FRAME_FILE, RunFolder
from ttt3r.runs.frame_file import read_pose, write_prediction
from ttt3r.runs.manifest import FORMAT, MANIFEST, read_manifest
from ttt3r.spans import span
from ttt3r.types import Prediction


@runtime_checkable
class _Counted(Protocol):
    """What the writer must know of a session: how many frames it has taken in."""

    @property
    def index(self) -> int: ...


AnySession = TypeVar("AnySession", bound=_Counted)

WAITING, LISTED = 4, 10
KEPT = "Frames written so far are kept; make room or fix the permissions, then go on with --resume."
logger = logging.getLogger("ttt3r.runs")
COMPARED = ("model", "rule", "reset", "stitch", "outputs", "source", "size", "trace", "pose_from")
COMPARED += ("refine",)
GROWING = ("source.files", "source.last")  # a folder may gain images between two attempts


class RunWriter:
    """Owns a run folder while it is being written.

    Frames and checkpoints are written in order by one thread; at most a few wait in memory. An
    error there is raised by the next call. Leaving the context finishes what is queued.

    Args:
        target: the run folder, and whether to go on with what is there.
        settings: what the run is, as stored in the manifest and compared on resuming.

    Attributes:
        finished: number of frames of the run to resume if it is complete and its source did not
            change; None if there is something to do.

    Raises:
        RunError: if the folder holds something else, is in use, or cannot be written, or if the
            settings differ from those of the run to resume.
    """

    def __init__(self, target: RunFolder, settings: dict[str, Any]) -> None:
        target.check()
        self.folder = target.folder
        self._queue: queue.Queue[tuple[str, Callable[[], None]] | None] = queue.Queue(WAITING)
        self._failure: BaseException | None = None
        source = dict(settings["source"])
        self._inputs: list[str] = source.pop("inputs", [])
        settings = settings | {"source": source}
        self._unsynced: list[Path] = []  # frames since the last checkpoint
        self._trajectory: Path = self.folder / run.TRAJECTORY
        self.finished: int | None = None
        with self._explained("Choose a folder that can be written."):
            self._lock = self._open(target, settings)
        self._thread = threading.Thread(target=self._work, name="ttt3r-writer", daemon=True)
        self._thread.start()

    def restore(self, load: Callable[[Path], AnySession]) -> AnySession | None:
        """Return the session of the last checkpoint, and drop what was written after it.

        A damaged frame before the checkpoint cannot be made again from there. The run then starts
        over, with a warning; it makes the same frames again.

        Args:
            load: reads the session that a checkpoint holds.

        Returns:
            None if there is no checkpoint, or the run has to start over.

        Raises:
            SessionError: if the checkpoint does not fit the model.
        """
        path = self.folder / run.SESSION
        session = load(path) if path.exists() else None
        wanted = self.finished
        if wanted is None:
            wanted = session.index if session else 0
        lines = self._intact_lines(wanted)
        if len(lines) < wanted:
            logger.warning(
                "frame %d of the run in %s is missing or damaged: the run starts over",
                len(lines),
                self.folder,
            )
            session, self.finished, lines = None, None, []
        with self._explained():
            self._write_inputs()
            for frame in (self.folder / run.FRAMES).iterdir():
                if FRAME_FILE.fullmatch(frame.name) and not 0 <= _index(frame) < len(lines):
                    frame.unlink()
            write_atomically(self._trajectory, lambda file: write_text(file, "".join(lines)))
        return session

    def _compare_inputs(self) -> None:
        """Refuse to go on where the frames that are there were made from other files."""
        done = len(list((self.folder / run.FRAMES).glob("[0-9]*.safetensors")))
        path = self.folder / run.INPUTS
        was = path.read_text("utf-8", "surrogateescape").splitlines() if path.exists() else []
        if not was or was[:done] == self._inputs[:done]:
            return
        before, now = set(was), set(self._inputs)
        changes = [f"  lost: {line}" for line in was[:done] if line not in now]
        changes += [f"  new: {line}" for line in self._inputs[:done] if line not in before]
        changes = changes or ["  their order changed"]
        rest = [f"  and {len(changes) - LISTED} more"] if len(changes) > LISTED else []
        raise RunError(
            "the first images are not those that this run was made from (size and name):\n"
            + "\n".join([*changes[:LISTED], *rest])
            + "\nPut them back to resume, or use --overwrite to start again."
        )

    def _write_inputs(self) -> None:
        if self._inputs:
            text = "".join(f"{line}\n" for line in self._inputs)
            content = text.encode("utf-8", "surrogateescape")
            write_atomically(self.folder / run.INPUTS, lambda file: file.write_bytes(content))

    def _intact_lines(self, count: int) -> list[str]:
        """Lines of the trajectory up to the first frame that cannot be read."""
        lines: list[str] = []
        for index in range(count):
            try:
                said = read_pose(run.frame_path(self.folder, index))
                lines.append(tum.line_of(said.timestamp, said.pose))
            except RunError:
                break
        return lines

    def write(self, prediction: Prediction) -> None:
        """Queue a prediction.

        Raises:
            RunError: if an earlier write failed.
        """
        self._submit("write", lambda: self._write(prediction))

    def checkpoint(self, save: Callable[[Path], None]) -> None:
        """Queue saving a session, once all frames queued so far are on the disk for good."""
        self._submit("checkpoint", lambda: self._checkpoint(save))

    def keep(self, name: str, write: Callable[[Path], None]) -> None:
        """Queue writing another of the run's own files, see `folder.OWN_FILES`."""
        self._submit("keep", lambda: write(self.folder / name))

    def close(self, status: str, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Finish what is queued, note the status in the manifest, and let go of the folder.

        Args:
            status: "complete", "interrupted" or "failed".
            facts: what else the manifest is to say.

        Raises:
            RunError: if something could not be written.
        """
        if self._lock is None:
            return
        try:
            with span("wait for writer"):
                self._queue.put(None)
                self._thread.join()
            self._raise_failure()
            self._manifest |= facts
            with self._explained():
                self._note_status(status)
        finally:
            self._lock.close()
            self._lock = None

    def _open(self, target: RunFolder, settings: dict[str, Any]) -> BinaryIO | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        held = target.hold()
        try:
            if target.resume and target.has_frames:
                stored = read_manifest(self.folder)
                _compare(stored, settings)
                self._compare_inputs()
                if stored.get("status") == "complete" and _same(stored, settings, "source"):
                    self.finished = len(list(target.frames.glob("*.safetensors")))
            else:
                target.clear()
            target.frames.mkdir(exist_ok=True)
            if not target.resume:
                self._write_inputs()
            self._manifest = {"format": FORMAT, "status": "running", **settings}
            self._note_status("running")
        except BaseException:
            held.close()
            raise
        return held

    def _note_status(self, status: str) -> None:
        text = to_json(self._manifest | {"status": status}, indent=2) + "\n"
        write_atomically(self.folder / MANIFEST, lambda file: write_text(file, text), sync=True)

    def _write(self, prediction: Prediction) -> None:
        path = run.frame_path(self.folder, prediction.index)
        write_prediction(path, prediction)
        self._unsynced.append(path)
        if line := tum.line_of(prediction.timestamp, prediction.world_from_camera):
            with self._trajectory.open("a", encoding="utf-8", newline="\n") as file:
                file.write(line)

    def _checkpoint(self, save: Callable[[Path], None]) -> None:
        """Make frames durable before the session that counts on them."""
        trajectory = [self._trajectory] if self._trajectory.exists() else []
        sync_files([*self._unsynced, *trajectory])
        self._unsynced.clear()
        save(self.folder / run.SESSION)

    def _work(self) -> None:
        while (queued := self._queue.get()) is not None:
            if self._failure is None:  # after a failure the rest is dropped, to keep the order
                name, task = queued
                try:
                    with span(name):
                        task()
                except BaseException as error:
                    self._failure = error

    def _submit(self, name: str, task: Callable[[], None]) -> None:
        """Queue a task; a profile knows it by its name."""
        self._raise_failure()
        with span("wait for writer"):
            self._queue.put((name, task))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            with self._explained():
                raise self._failure

    @contextlib.contextmanager
    def _explained(self, advice: str = KEPT) -> Iterator[None]:
        """Turn system errors into messages that say how to go on."""
        try:
            yield
        except (OSError, SessionError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunError(f"cannot write the run in {self.folder}: {reason}. {advice}") from error


def _index(frame: Path) -> int:
    """Number of a frame's file; -1 of an unfinished one."""
    return int(frame.stem) if frame.stem.isdecimal() else -1


def _same(stored: dict[str, Any], settings: dict[str, Any], key: str) -> bool:
    return stored.get(key) == json.loads(json.dumps(settings.get(key)))


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that must agree, by dotted name; as JSON would give them back."""
    flat: dict[str, Any] = {}
    for key in COMPARED:
        value = json.loads(json.dumps(settings.get(key)))
        named = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{key}.{name}".rstrip("."): item for name, item in named}
    return {key: item for key, item in flat.items() if key not in GROWING}


def _compare(stored: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse to continue a run with other settings."""
    was, now = (_flat(values) for values in (stored, settings))
    differences = [
        f"  {key}: was {json.dumps(was.get(key))}, now {json.dumps(now.get(key))}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]
    if differences:
        raise RunError(
            "the run was started with other settings:\n"
            + "\n".join(differences)
            + "\nRepeat them to resume, or use --overwrite to start again."
        )
