"""``ttt3r scene``: render a synthetic video, and what is true of its frames."""

import contextlib
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ttt3r.cli.command import Command, Debug, Flag, duration_text, option
from ttt3r.cli.progress import memory_text, progress
from ttt3r.cli.stopping import StopRequest
from ttt3r.errors import SettingError
from ttt3r.files import bytes_text

if TYPE_CHECKING:
    from ttt3r.scenes import Scene

World = Literal["room", "corridor", "interior", "desktop", "outdoor"]
Style = Literal["hand", "walk", "orbit", "pan", "drive"]


@dataclass(frozen=True)
class SceneCommand(Command):
    """Render a synthetic video, with exact depth and camera poses if wanted.

    The same options give the same scene again. Ctrl-C leaves no files.
    """

    seed: Annotated[int, option("NUMBER")] = 0
    """Everything that is drawn at random follows from this number."""

    frames: Annotated[int, option("N")] = 300
    """Length of the video; it has 30 frames per second."""

    out: Annotated[Path, option("FILE")] = Path("scene.mp4")
    """Video to write: .mp4, .mov or .mkv."""

    truth: Annotated[Path | None, option("DIR", "none")] = None
    """Folder to write the truth to: images, depth, motion masks, camera poses, intrinsics."""

    size: Annotated[str, option("WIDTHxHEIGHT")] = "320x240"
    """Size of the frames; multiples of 8."""

    world: Annotated[World | None, option("WORLD", "drawn at random")] = None
    """Kind of place: room, corridor, interior, desktop or outdoor."""

    style: Annotated[Style | None, option("STYLE", "drawn at random")] = None
    """Path of the camera: hand, walk, orbit, pan or drive."""

    overwrite: Flag = False
    """Replace the video if it exists, and a folder that an earlier --truth wrote."""

    quiet: Flag = False
    """Show warnings and errors only."""

    debug: Debug = False

    def main(self) -> int:
        """Render until the end or a signal."""
        from ttt3r.scenes import Scene, SceneOptions
        from ttt3r.scenes.recording import record

        began = time.monotonic()
        options = SceneOptions(world=self.world, style=self.style)
        scene = Scene(self.seed, self.frames, parse_size(self.size), options)
        shown = progress(len(scene), 0, memory_text, quiet=self.quiet)
        finished = False
        with StopRequest() as stop, contextlib.suppress(KeyboardInterrupt), shown as update:

            def done(frames: int) -> None:
                update(frames)
                if stop.signal:
                    raise KeyboardInterrupt

            record(scene, self.out, self.truth, overwrite=self.overwrite, done=done)
            finished = True
        if not finished:
            print("stopped; nothing was written")
            return stop.status
        if not self.quiet:
            self.summarise(scene, time.monotonic() - began)
        return 0

    def summarise(self, scene: "Scene", seconds: float) -> None:
        """Say what was done, where it is, and what to do next."""
        rate = len(scene) / seconds
        print(f"{len(scene)} frames in {duration_text(seconds)} ({rate:.1f} per second)")
        print(f"wrote {self.out}: {scene.world}, {bytes_text(self.out.stat().st_size)}")
        if self.truth is not None:
            print(f"truth: {self.truth}")
        print(f"next: ttt3r run {shlex.quote(str(self.out))}")


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "WIDTHxHEIGHT".

    Raises:
        SettingError: if it is not of this form.
    """
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise SettingError(f"a size is WIDTHxHEIGHT, such as 320x240, not {text!r}")
    return int(match[2]), int(match[1])
