"""The live viewer of a command: where it is, and how long it stays."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from ttt3r.runs.facts import Facts
    from ttt3r.runs.reader import Run
    from ttt3r.types import Prediction
    from ttt3r.viewer.live import LiveViewer

MOST_FRAMES = 600  # read whole; of the others the pose only
POSE = ("world_from_camera", "intrinsics")
PAUSE = 0.3  # seconds between two looks for new frames


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

    Its page can save the run's scale where only this machine can reach it.

    Raises:
        SettingError: if the address cannot be used.
    """
    from ttt3r.runs.facts import Facts
    from ttt3r.runs.reader import Run
    from ttt3r.viewer.live import LiveViewer
    from ttt3r.viewer.server import Address

    def read(index: int) -> "Prediction":
        return Run.open(folder)[index]

    def scale(metres: float, length: float) -> str:
        from ttt3r.alignment.measuring import scale_by_length

        factor = scale_by_length(folder, length, metres, "two points of the viewer")
        return f"saved: lengths times {factor:.6g}; ttt3r scale RUN --undo takes it back"

    address = Address(options.host, options.port, options.token)
    facts = Facts(folder.resolve().name, status="loading")
    saved = scale if address.is_local else None
    with LiveViewer(facts, address, read, scale=saved) as viewer:
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


def follow(run: "Run", viewer: "LiveViewer", seen: int = 0) -> None:
    """Show the frames of a run, and those that are still to come; never returns.

    Of a long run, some frames are read whole, and of the others the pose only. If the run is moved
    meanwhile, it is shown anew.

    Args:
        run: what to show.
        viewer: where.
        seen: frames that the viewer has shown already, before the run was moved.

    Raises:
        RunError: if the run has no poses, or a frame is damaged.
    """
    shown, stride, facts = seen, 1, None
    moved = 0 if seen else _moved_at(run.folder)
    while True:
        if (later := _moved_at(run.folder)) != moved:
            moved, shown, stride = later, 0, 1
            run = type(run).open(run.folder)
            viewer.begin_anew()
        if (now := facts_in(run.folder)) != facts:
            facts = now
            viewer.tell(facts)
        count = len(run)
        for index in range(shown, count):
            while max(index, count) // stride > MOST_FRAMES:
                stride *= 2
            only = None if index % stride == 0 else POSE
            viewer.show_now(run.upright().read(index, only))
        shown = max(shown, count)
        pause(PAUSE)


def _moved_at(folder: Path) -> int:
    """When the run was last moved; 0 if it was not."""
    from ttt3r.runs.placement import PLACEMENT

    try:
        return (folder / PLACEMENT).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
