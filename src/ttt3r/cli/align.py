"""``ttt3r align``: move a run to known positions, and to metres."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option
from ttt3r.errors import SettingError


@dataclass(frozen=True)
class AlignCommand(Command):
    """Move a run to known positions of its cameras, so that its lengths are metres.

    Positions that disagree with most others are left out. Frames stay as they are.

    Exports, ttt3r view and ttt3r info show the moved run. Aligning again replaces what was there.
    """

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    positions: Annotated[tyro.conf.Positional[Path | None], option("POSITIONS", "none")] = None
    """A trajectory in the TUM format, in metres, or a GPS log: CSV whose head names time, lat, lon
    and alt."""

    exif: Flag = False
    """Take the GPS positions that the photographs' EXIF holds."""

    images: Annotated[Path | None, option("PATH", "where they were")] = None
    """With --exif: where the photographs lie now, if they were moved."""

    offset: Annotated[float, option("SECONDS")] = 0.0
    """Time in POSITIONS when the run's is 0, where their clocks differ."""

    tolerance: Annotated[float | None, option("SECONDS", "0.02; GPS: 2")] = None
    """How far the nearest pose may be from a frame; or how far apart the two fixes around it."""

    undo: Flag = False
    """Take back what ttt3r align or ttt3r scale did."""

    debug: Debug = False

    def main(self) -> int:
        """Align, and say how well it fits."""
        from ttt3r.alignment.aligning import align_to_photographs, align_to_track, place_world
        from ttt3r.alignment.tracks import read_track
        from ttt3r.runs.reader import Run

        chosen = (self.positions is not None) + self.exif + self.undo
        if chosen != 1:
            raise SettingError("give one of: a file of positions, --exif, --undo")
        if not math.isfinite(self.offset):
            raise SettingError(f"--offset must be a number of seconds, not {self.offset}")
        if self.tolerance is not None and not (0 <= self.tolerance < math.inf):
            raise SettingError(f"--tolerance must be 0 or more seconds, not {self.tolerance:g}")
        if self.undo:
            before = Run.open(self.run).placement.world_text
            place_world(self.run, None)
            print(f"no longer {before}" if before else "nothing to undo")
            return 0
        skipped = 0
        if self.positions is None:
            said = align_to_photographs(self.run, self.images)
        else:
            track = read_track(self.positions)
            skipped = track.skipped
            said = align_to_track(self.run, track, self.offset, self.tolerance)
        first, *rest = said.text.split(", ")
        print(", ".join([first, *rest[:3]]))
        for word in (", ".join(rest[3:]), f"{skipped:,} lines without a position" * bool(skipped)):
            if word:
                print(word)
        print(f"lengths times {said.scale:.6g}")
        return 0
