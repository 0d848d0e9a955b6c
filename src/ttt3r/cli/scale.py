"""``ttt3r scale``: bring a run to metres by a factor or a known distance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option
from ttt3r.errors import SettingError


@dataclass(frozen=True)
class ScaleCommand(Command):
    """Bring a run to metres by a factor, or by two places whose distance is known.

    Exports, ttt3r view and ttt3r info show the scaled run. Frames stay as they are.

    The factor is that of the network's own lengths, so scaling again replaces what was there.
    """

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    factor: Annotated[tyro.conf.Positional[float | None], option("FACTOR", "none")] = None
    """Metres in one unit of the run."""

    known: Annotated[tuple[str, str, float] | None, option("PLACE PLACE METRES", "none")] = None
    """Two places and how far they are apart: --known 12:310,205 12:420,207 0.8. A place is
    FRAME:X,Y, a pixel of the original image as --rotate and --crop left it."""

    undo: Flag = False
    """Take back what ttt3r scale or ttt3r align did."""

    debug: Debug = False

    def main(self) -> int:
        """Scale, and say by how much."""
        from ttt3r.alignment.aligning import place_world
        from ttt3r.alignment.measuring import Place, scale_by, scale_by_distance
        from ttt3r.runs.reader import Run

        if (self.factor is not None) + (self.known is not None) + self.undo != 1:
            raise SettingError("give one of: a factor, --known PLACE PLACE METRES, --undo")
        if self.undo:
            before = Run.open(self.run).placement.world_text
            place_world(self.run, None)
            print(f"no longer {before}" if before else "nothing to undo")
        elif self.known is not None:
            first, second, metres = self.known
            places = Place.parse(first), Place.parse(second)
            print(f"lengths times {scale_by_distance(self.run, places, metres):.6g}")
        elif self.factor is not None:
            print(f"lengths times {scale_by(self.run, self.factor):.6g}")
        return 0
