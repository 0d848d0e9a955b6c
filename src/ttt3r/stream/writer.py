"""Writes a run behind the reconstruction, so that it can be killed and resumed at any moment."""

import contextlib
import json
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ttt3r.errors import RunError, SessionError
from ttt3r.files import lock, write_atomically
from ttt3r.stream import run, tum
from ttt3r.stream.base import AnySession, SessionBase
from ttt3r.stream.frame_file import read_pose, write_prediction
from ttt3r.types import Prediction

WAITING = 4
KEPT = "Frames written so far are kept; make room or fix the permissions, then go on with --resume."
COMPARED = ("model", "rule", "reset", "stitch", "outputs", "source", "size")
GROWING = ("source.files", "source.last")  # a folder may gain images between two attempts


class RunWriter:
    """Owns a run folder while it is being written.

    Frames and checkpoints are written in order by one thread; at most a few wait in memory. An
    error there is raised by the next call. Leaving the context finishes what is queued.

    Args:
        folder: the run folder; created if absent.
        settings: what the run is, as stored in the manifest and compared on resuming.
        resume: continue the run in `folder`; a missing one is started.
        overwrite: delete the run in `folder` first.

    Attributes:
        finished: number of frames of the run to resume if it is complete and its source did not
            change; None if there is something to do.

    Raises:
        RunError: if the folder holds something else, is in use, or cannot be written, or if the
            settings differ from those of the run to resume.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        check_folder(folder, resume=resume, overwrite=overwrite)
        self.folder = folder
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._failure: BaseException | None = None
        self._trajectory: Path = folder / run.TRAJECTORY
        self.finished: int | None = None
        with self._explained("Choose a folder that can be written."):
            self._lock = self._open(settings, resume, overwrite)
        self._thread = threading.Thread(target=self._work, name="ttt3r-writer", daemon=True)
        self._thread.start()

    def restore(self, kind: type[AnySession], model: Any) -> AnySession | None:
        """Return the session of the last checkpoint, and drop what was written after it.

        Args:
            kind: of session.
            model: the model it was saved with.

        Returns:
            None if there is no checkpoint; the run then starts over.

        Raises:
            RunError: if frames before the checkpoint are missing or damaged.
            SessionError: if the checkpoint does not fit the model.
        """
        path = self.folder / run.SESSION
        session = kind.load(path, model) if path.exists() else None
        done = self.finished
        if done is None:
            done = session.index if session else 0
        lines = []
        for index in range(done):
            stamp, pose = read_pose(run.frame_path(self.folder, index))
            lines.append("" if pose is None else tum.tum_line(stamp, pose))
        with self._explained():
            for frame in (self.folder / run.FRAMES).iterdir():
                if not frame.stem.isdecimal() or int(frame.stem) >= done:
                    frame.unlink()
            write_atomically(self._trajectory, lambda file: file.write_text("".join(lines)))
        return session

    def write(self, prediction: Prediction) -> None:
        """Queue a prediction.

        Raises:
            RunError: if an earlier write failed.
        """
        self._submit(lambda: self._write(prediction))

    def checkpoint(self, session: SessionBase) -> None:
        """Queue saving the session as it is now, after all frames queued so far."""
        snapshot = session.fork()
        self._submit(lambda: snapshot.save(self.folder / run.SESSION))

    def close(self, status: str) -> None:
        """Finish what is queued, note the status in the manifest, and let go of the folder.

        Args:
            status: "complete", "interrupted" or "failed".

        Raises:
            RunError: if something could not be written.
        """
        if self._lock is None:
            return
        try:
            self._queue.put(None)
            self._thread.join()
            self._raise_failure()
            with self._explained():
                self._note_status(status)
        finally:
            self._lock.close()
            self._lock = None

    def _open(self, settings: dict[str, Any], resume: bool, overwrite: bool) -> BinaryIO | None:
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        held = _lock(folder)
        try:
            if resume and _has_frames(folder):
                stored = run.read_manifest(folder)
                _compare(stored, settings)
                if stored.get("status") == "complete" and _same(stored, settings, "source"):
                    self.finished = len(list((folder / run.FRAMES).glob("*.safetensors")))
            else:
                _clear(folder)
            (folder / run.FRAMES).mkdir(exist_ok=True)
            self._manifest = {"format": run.FORMAT, "status": "running", **settings}
            self._note_status("running")
        except BaseException:
            held.close()
            raise
        return held

    def _note_status(self, status: str) -> None:
        text = json.dumps(self._manifest | {"status": status}, indent=2) + "\n"
        write_atomically(self.folder / run.MANIFEST, lambda file: file.write_text(text), sync=True)

    def _write(self, prediction: Prediction) -> None:
        write_prediction(run.frame_path(self.folder, prediction.index), prediction)
        if prediction.world_from_camera is not None:
            with self._trajectory.open("a", encoding="utf-8") as file:
                file.write(tum.tum_line(prediction.timestamp, prediction.world_from_camera))

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            if self._failure is None:  # after a failure the rest is dropped, to keep the order
                try:
                    task()
                except BaseException as error:
                    self._failure = error

    def _submit(self, task: Callable[[], None]) -> None:
        self._raise_failure()
        self._queue.put(task)

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


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check, without changing anything, that a run may be written to `folder`.

    A run that stopped before its first frame does not count: there is nothing to lose.

    Raises:
        RunError: if it holds another run, or something else.
    """
    if resume and overwrite:
        raise RunError("choose either --resume or --overwrite")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another output folder")
    known = (folder / run.MANIFEST).exists()
    if not known and any(path.name != run.LOCK for path in folder.iterdir()):
        raise RunError(
            f"{folder} holds other files and no run; choose an empty or new output folder"
        )
    if known:
        run.read_manifest(folder)  # it may be another program's
    if known and _has_frames(folder) and not (resume or overwrite):
        raise RunError(
            f"{folder} already holds a run; add --resume to continue it, --overwrite to replace "
            "it, or choose another output folder"
        )


def _has_frames(folder: Path) -> bool:
    return any((folder / run.FRAMES).glob("*.safetensors"))


def _clear(folder: Path) -> None:
    """Delete a run's own files and nothing else."""
    shutil.rmtree(folder / run.FRAMES, ignore_errors=True)
    for name in (run.SESSION, run.TRAJECTORY, run.MANIFEST):
        (folder / name).unlink(missing_ok=True)


def _lock(folder: Path) -> BinaryIO:
    """Hold the folder against a second writer; the system lets go if the process dies."""
    held = lock(folder / run.LOCK)
    if held is None:
        raise RunError(f"another process is writing the run in {folder}")
    return held


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
