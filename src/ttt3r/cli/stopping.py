"""Ctrl-C and SIGTERM: the first asks to stop after the frame at hand, the second stops at once."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\nstopping after this frame; once more to stop at once\n"


class StopRequest:
    """Watches for signals while its context is open.

    Attributes:
        signal: number of the signal that asked to stop; 0 if none did.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """Exit status that tells which signal stopped the program; Ctrl-C if none was seen."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # A signal that is ignored, as under nohup, stays so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        # Not print: it fails if the signal arrived while the same stream was being written.
        with contextlib.suppress(OSError):
            os.write(2, NOTICE)
