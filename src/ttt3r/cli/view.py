"""``ttt3r view``: look at a run in a browser, also while it is being written."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option
from ttt3r.cli.viewing import follow, opened


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
