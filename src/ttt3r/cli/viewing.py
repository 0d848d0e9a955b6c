"""The live viewer of a command: where it is, and how long it stays."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ttt3r.runs.facts import Facts
    from ttt3r.types import Prediction
    from ttt3r.viewer.live import LiveViewer


@runtime_checkable
class Options(Protocol):
    """The options that say where a viewer listens."""

    @property
    def host(self) -> str:
        """Interface."""
        ...

    @property
    def port(self) -> int | None:
        """Port; None for the usual one."""
        ...

    @property
    def token(self) -> str | None:
        """What the address must hold."""
        ...

    @property
    def open(self) -> bool:
        """Whether to open a browser."""
        ...


@contextlib.contextmanager
def opened(folder: Path, options: Options) -> "Iterator[LiveViewer]":
    """A viewer for the run in a folder, which may not be there yet; its address is printed.

    Raises:
        SettingError: if the address cannot be used.
    """
    from ttt3r.runs.facts import Facts
    from ttt3r.runs.reader import Run
    from ttt3r.viewer.live import LiveViewer
    from ttt3r.viewer.server import Address

    def read(index: int) -> "Prediction":
        return Run.open(folder)[index]

    address = Address(options.host, options.port, options.token)
    facts = Facts(folder.resolve().name, status="loading")
    with LiveViewer(facts, address, read) as viewer:
        print(f"look at it here: {viewer.url}", flush=True)
        if options.open:
            import webbrowser

            webbrowser.open(viewer.url)
        yield viewer


def facts_in(folder: Path) -> "Facts":
    """What the manifest and the placement of a run say now."""
    from ttt3r.runs.facts import facts_of
    from ttt3r.runs.manifest import read_manifest
    from ttt3r.runs.placement import Placement

    return facts_of(folder.resolve().name, read_manifest(folder), Placement.read(folder))


def pause(seconds: float) -> None:
    """Wait a while for more frames."""
    time.sleep(seconds)


def wait_for_ctrl_c() -> None:
    """Wait until the user has seen enough."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
