"""``ttt3r export``: write a run in the format of other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ttt3r.cli.command import Command, Debug, Flag, bytes_text, option

Format = Literal["tum", "ply"]


@dataclass(frozen=True)
class ExportCommand(Command):
    """Write a run as a point cloud or a trajectory for other programs."""

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    to: Format
    """The format: tum is the trajectory as text, ply a coloured point cloud."""

    out: Annotated[Path | None, option("FILE", "RUN/export.FORMAT")] = None
    """File to write."""

    min_confidence: Annotated[float | None, option("NUMBER", "1.5")] = None
    """For ply: keep points whose confidence is above this; 1 is the least there is."""

    pixel_stride: Annotated[int | None, option("N", "1")] = None
    """For ply: take every n-th pixel, along rows and along columns."""

    every: Annotated[int | None, option("N", "1")] = None
    """For ply: take every n-th frame."""

    overwrite: Flag = False
    """Replace the file if it exists."""

    debug: Debug = False

    def main(self) -> int:
        """Export."""
        from ttt3r.errors import RunError
        from ttt3r.export import write
        from ttt3r.stream.run import Run

        run = Run.open(self.run)
        out = self.out or self.run / f"export.{self.to}"
        if out.exists() and not self.overwrite:
            raise RunError(f"{out} exists already; add --overwrite, or choose another file: --out")
        given: dict[str, Any] = {
            "min_confidence": self.min_confidence,
            "stride": self.pixel_stride,
            "every": self.every,
        }
        options = {name: value for name, value in given.items() if value is not None}
        path, what = write(run, self.to, out, **options)
        print(f"wrote {path}: {what}, {bytes_text(path.stat().st_size)}")
        return 0
