"""``ttt3r run``: reconstruct a video or a folder of images into a run folder."""

import contextlib
import glob
import shlex
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ttt3r.cli.command import Command, Debug, Flag, duration_text, option
from ttt3r.cli.progress import memory_text, progress
from ttt3r.cli.stopping import StopRequest

if TYPE_CHECKING:
    from ttt3r.stream.reconstruct import Reconstruction

Output = Literal["points", "pose", "world", "rgb"]


@dataclass(frozen=True)
class RunCommand(Command):
    """Reconstruct a video or a folder of images into a run folder.

    Ctrl-C stops after the frame at hand and leaves a run that --resume continues.
    """

    input: Annotated[tyro.conf.Positional[str], option("INPUT")]
    """A video, a folder of images, one image, or a quoted pattern such as 'shots/*.jpg'."""

    out: Annotated[Path | None, option("DIR", "runs/NAME_OF_INPUT")] = None
    """Folder to write the run to."""

    model: Annotated[str, option("MODEL")] = "builtin"
    """Name of weights (see ttt3r models), a folder that ttt3r convert made, or a weight file."""

    rule: Annotated[str | None, option("RULE", "the family's own; ttt3r for CUT3R")] = None
    """How the state is updated. CUT3R: ttt3r, overwrite (as published), damped(RULE, FACTOR);
    Point3R: fuse, append; StreamVGGT: keep_all, window(FRAMES), diverse(FRAMES); VGGT, Fast3R:
    once (one look per stretch between resets), or anew for each frame keep_all, window(FRAMES)."""

    reset: Annotated[str, option("FRAMES")] = "100"
    """Start afresh after this many frames, or never."""

    stitch: Annotated[
        str | None, option("STITCHING", "pose where lengths are metric, else similarity")
    ] = None
    """How the stretches between resets are joined: pose, or similarity (carries scale)."""

    outputs: Annotated[tuple[Output, ...], option("OUTPUT ...")] = ("points", "pose")
    """What to compute, any of: points, pose, world, rgb."""

    size: Annotated[int | None, option("PIXELS", "as the weights were trained")] = None
    """Longer side of the images that the network sees."""

    stride: Annotated[int, option("N")] = 1
    """Take every n-th frame."""

    start: Annotated[float | None, option("SECONDS", "the first frame")] = None
    """Skip what comes before, counted from the first frame."""

    end: Annotated[float | None, option("SECONDS", "the last frame")] = None
    """Skip what comes from then on, counted from the first frame."""

    fps: Annotated[float, option("RATE")] = 30.0
    """Frames per second of images, which carry no time of their own."""

    rotate: Annotated[int, option("DEGREES")] = 0
    """Turn the images clockwise first, by 90, 180 or 270 degrees."""

    crop: Annotated[str | None, option("WIDTH:HEIGHT", "nothing is cut")] = None
    """Cut the turned images to this aspect about their centre, such as 4:3."""

    device: Annotated[str, option("DEVICE")] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, …"""

    precision: Annotated[str, option("TYPE")] = "auto"
    """auto (bf16 where a GPU supports it), float32, bf16 or fp16."""

    checkpoint_every: Annotated[int, option("FRAMES")] = 25
    """Frames between two checkpoints; a killed run goes on from the last one."""

    resume: Flag = False
    """Continue the run in the output folder; its settings must be the same."""

    overwrite: Flag = False
    """Replace the run in the output folder."""

    quiet: Flag = False
    """Show warnings and errors only."""

    debug: Debug = False

    def main(self) -> int:
        """Run until the input ends or a signal stops it."""
        command = replace(self, out=self.out or default_out(self.input))
        began = time.monotonic()
        finished = None
        with StopRequest() as stop, contextlib.suppress(KeyboardInterrupt):
            reconstruction = command.prepare(stop)
            if reconstruction.resumed_at and not self.quiet:
                print(f"going on after {reconstruction.resumed_at} frames")
            if command.consume(reconstruction, stop):
                finished = reconstruction
        if finished is None:
            print(f"stopped. To continue:\n  {resume_line(command)}")
            return stop.status
        if not self.quiet:
            command.summarise(finished, time.monotonic() - began)
        return 0

    def prepare(self, stop: StopRequest) -> "Reconstruction":
        """Open input, weights and output.

        Raises:
            Ttt3rError: if something cannot work.
        """
        from ttt3r.stream.reconstruct import reconstruct

        return reconstruct(
            self.input,
            model=self.model,
            rule=self.rule,
            reset=self.reset,
            stitch=self.stitch,
            outputs=self.outputs,
            size=self.size,
            out=self.out,
            resume=self.resume,
            overwrite=self.overwrite,
            checkpoint_every=self.checkpoint_every,
            stride=self.stride,
            start=self.start,
            end=self.end,
            fps=self.fps,
            rotate=self.rotate,
            crop=self.crop,
            device=self.device,
            precision=self.precision,
            stop_when=lambda: stop.signal != 0,
        )

    def consume(self, reconstruction: "Reconstruction", stop: StopRequest) -> bool:
        """Let the frames pass; return whether all of them did."""
        device = str(reconstruction.session.device)
        shown = progress(
            reconstruction.total,
            reconstruction.resumed_at,
            lambda: memory_text(device),
            quiet=self.quiet,
        )
        with contextlib.closing(reconstruction), shown as update:
            while not stop.signal:
                prediction = next(reconstruction, None)
                if prediction is None:
                    return True
                update(prediction.index + 1)
        return False

    def summarise(self, reconstruction: "Reconstruction", seconds: float) -> None:
        """Say what was done, where it is, and what to do next."""
        from ttt3r.cli.info import length_unit, trajectory_length
        from ttt3r.stream.run import Run

        run = Run.open(str(self.out))
        done = reconstruction.done - reconstruction.resumed_at
        line = f"{done} frames in {duration_text(seconds)} ({done / seconds:.1f} per second)"
        length = trajectory_length(run)
        if length is not None:
            line += f"; the camera's path is {length:.3f} {length_unit(run)} long"
        folder = shlex.quote(str(self.out))
        print(f"{line}\nrun: {self.out}")
        print(f"next: ttt3r info {folder}\n      ttt3r export {folder} --to ply")


def default_out(source: str) -> Path:
    """Folder for the run of an input, named after it."""
    path = Path(source)
    while glob.has_magic(path.name):
        path = path.parent
    name = path.resolve().name if path.is_dir() else path.stem
    return Path("runs") / (name or "run")


def resume_line(command: RunCommand) -> str:
    """The command line that goes on with an interrupted run."""
    command = replace(command, resume=True, overwrite=False)
    words = ["ttt3r", "run", command.input]
    for field in fields(command):
        value = getattr(command, field.name)
        if field.name == "input" or value == field.default:
            continue
        words.append("--" + field.name.replace("_", "-"))
        if isinstance(value, tuple):
            words.extend(value)
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)
