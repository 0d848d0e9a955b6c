"""``ttt3r view``: look at a run in a browser, also while it is being written."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option
from ttt3r.cli.viewing import facts_in, opened, pause

if TYPE_CHECKING:
    from ttt3r.runs.reader import Run
    from ttt3r.viewer.live import LiveViewer

MOST_FRAMES = 600  # read whole; of the others the pose only
POSE = ("world_from_camera", "intrinsics")
PAUSE = 0.3  # seconds between two looks for new frames


@dataclass(frozen=True)
class ViewCommand(Command):
    """Look at a run in a browser, also while it is being written.

    Prints the address of the page. Ctrl-C ends it.
    """

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote, or is writing."""

    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """Where to listen. Anything but this machine alone needs a token, which is made if you give
    none; an ssh tunnel is safer."""

    port: Annotated[int | None, option("PORT", "8012, or the next free one")] = None
    """Port to listen on; 0 takes any free one."""

    token: Annotated[str | None, option("TEXT", "none on this machine")] = None
    """What the address must hold for the page to be shown."""

    open: Flag = False
    """Open the page in this machine's browser."""

    debug: Debug = False

    def main(self) -> int:
        """Show the run until Ctrl-C."""
        from ttt3r.runs.reader import Run

        run = Run.open(self.run)
        with opened(run.folder, self) as viewer, contextlib.suppress(KeyboardInterrupt):
            follow(run, viewer)
        return 0


def follow(run: "Run", viewer: "LiveViewer") -> None:
    """Show the frames of a run, and those that are still to come; never returns.

    Of a long run, some frames are read whole, and of the others the pose only. If the run is moved
    meanwhile, it is shown anew.

    Raises:
        RunError: if the run has no poses, or a frame is damaged.
    """

    shown, stride, facts = 0, 1, None
    moved = _moved_at(run.folder)
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
