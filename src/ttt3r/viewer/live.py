"""The live viewer: takes frames through a slot that drops, and keeps a scene up to date.

A reconstruction only puts a reference into the slot; a thread of the viewer does the rest. While
that thread is busy or rests, a newer frame takes the place of the one that waits, so a slow viewer
shows fewer frames and never slows the reconstruction down. It works a small share of the time.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ttt3r.errors import Ttt3rError
from ttt3r.runs.facts import Facts
from ttt3r.types import Prediction
from ttt3r.viewer.detail import detail
from ttt3r.viewer.page import facts_of_page, page
from ttt3r.viewer.scene import Limits, Scene
from ttt3r.viewer.server import Address, Scale, Server
from ttt3r.viewer.wire import encoded, record

MOST_BYTES = 4_000_000  # in one answer; the rest comes with the next
REST = 40  # seconds of rest for a second of work, so that a reconstruction keeps its processors
PATIENCE = 1.0  # seconds for which an answer waits for something new
logger = logging.getLogger("ttt3r.viewer")


class Slot:
    """Holds one prediction; a newer one replaces it.

    Attributes:
        dropped: predictions that nobody took.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: Prediction | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, prediction: Prediction) -> None:
        """Leave a prediction here; returns at once."""
        with self._changed:
            self.dropped += self._waiting is not None
            self._waiting = prediction
            self._changed.notify()

    def take(self) -> Prediction | None:
        """Wait for a prediction; None once the slot is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting is not None)
            taken, self._waiting = self._waiting, None
            return taken

    def close(self) -> None:
        """Let `take` return None from now on, after the last prediction."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class LiveViewer:
    """Serves the page of a run that may still be going on. Leaving the context ends it.

    Args:
        facts: of the run.
        address: where to listen.
        read: returns the frame at an index, for details of older frames; may raise RunError or
            IndexError.
        limits: of the scene.
        scale: saves what two points that were clicked are really apart, see `Server`; None where
            the page only measures.

    Attributes:
        url: what to open in a browser.
        scene: what is shown.

    Raises:
        SettingError: if the address cannot be used.
    """

    def __init__(
        self,
        facts: Facts,
        address: Address,
        read: Callable[[int], Prediction] | None = None,
        limits: Limits | None = None,
        scale: Scale | None = None,
    ) -> None:
        self._limits = limits
        self.scene = Scene(limits)
        self._facts = facts
        self._read = read
        self._savable = scale is not None
        self._lock = threading.Condition()
        self._newest: Prediction | None = None
        self._failed = False
        self._closing = threading.Event()
        self._slot = Slot()
        self._server = Server(address, self._page, self._changes, self._detail, scale)
        self.url = self._server.url
        self._thread = threading.Thread(target=self._work, name="viewer", daemon=True)
        self._thread.start()

    def show(self, prediction: Prediction) -> None:
        """Show a frame, unless a newer one comes before there is time for it; returns at once."""
        self._slot.put(prediction)

    def tell(self, facts: Facts) -> None:
        """Set what the page says of the run, its status among it."""
        with self._lock:
            self._facts = facts
            self.scene.version += 1
            self._lock.notify_all()

    def begin_anew(self) -> None:
        """Forget what was shown, because the run was moved; pages load anew."""
        with self._lock:
            version = self.scene.version
            self.scene = Scene(self._limits, self.scene.started + 1)
            self.scene.version = version + 1
            self._newest = None
            self._lock.notify_all()

    def show_now(self, prediction: Prediction) -> None:
        """Show a frame and wait until it is in the scene, for runs that are read from a disk."""
        with self._lock:
            self.scene.add(prediction)
            self._newest = prediction
            self._lock.notify_all()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        self._slot.close()
        self._server.close()
        self._thread.join(timeout=5)

    def __enter__(self) -> "LiveViewer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        while (prediction := self._slot.take()) is not None:
            began = time.monotonic()
            try:
                self.show_now(prediction)
            except Exception as error:  # whatever the viewer cannot show must not end a run
                if not self._failed:
                    logger.warning("the viewer cannot show frame %d: %s", prediction.index, error)
                self._failed = True
            self._closing.wait(REST * (time.monotonic() - began))

    def _page(self) -> bytes:
        with self._lock:
            return page(self._facts, self.scene, live=True, savable=self._savable)

    def _changes(self, after: int) -> bytes:
        """Records of what changed after a version; waits a while for something new."""
        with self._lock:
            if after > self.scene.version:  # of a program that ended
                after = 0
            self._lock.wait_for(lambda: self.scene.version > after, PATIENCE)
            version, changed = self.scene.version, self.scene.changes(after)
            facts = facts_of_page(self._facts, self.scene)
        parts: list[bytes] = []
        size = 0
        for number, name, node in changed:
            parts.append(encoded(name, node))
            size += len(parts[-1])
            if size > MOST_BYTES:
                version = number
                break
        return record({"kind": "meta", "version": version, "facts": facts}) + b"".join(parts)

    def _detail(self, index: int) -> dict[str, Any] | None:
        newest = self._newest
        if newest is not None and newest.index == index:
            return detail(newest)
        if self._read is not None:
            with contextlib.suppress(Ttt3rError, IndexError, OSError):
                return detail(self._read(index))
        return None
