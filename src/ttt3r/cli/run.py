"""``ttt3r run``: reconstruct a video or a folder of images into a run folder."""

import contextlib
import glob
import logging
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, command_line, duration_text, option
from ttt3r.cli.fetch import fetch_for
from ttt3r.cli.loops import closing_lines
from ttt3r.cli.progress import memory_text, progress
from ttt3r.cli.stopping import StopRequest
from ttt3r.cli.viewing import facts_in, follow, opened
from ttt3r.errors import SettingError

if TYPE_CHECKING:
    from ttt3r.stream.reconstruct import Reconstruction
    from ttt3r.viewer.live import LiveViewer

logger = logging.getLogger("ttt3r.run")

BUILTIN = "builtin"
EXPECT = (
    "built-in weights: small, a rough picture of the scene only; for real results: "
    "ttt3r fetch cut3r_512_dpt_4_64 (3.2 GB, non-commercial), then --model cut3r_512_dpt_4_64"
)


@dataclass(frozen=True)
class RunCommand(Command):
    """Reconstruct a video or a folder of images into a run folder.

    Ctrl-C stops after the frame at hand and leaves a run that --resume continues.
    """

    input: Annotated[tyro.conf.Positional[str], option("INPUT")]
    """A video, a folder of images, one image, or a quoted pattern such as 'shots/*.jpg'."""

    out: Annotated[Path | None, option("DIR", "runs/NAME_OF_INPUT")] = None
    """Folder to write the run to."""

    model: Annotated[str, option("MODEL")] = BUILTIN
    """Name of weights (see ttt3r models), a folder that ttt3r convert made, or a weight file."""

    fetch: Flag = False
    """Fetch weights that are not on this machine; asks whether their licence is accepted."""

    accept_licence: Flag = False
    """Accept the licence of the weights without being asked."""

    rule: Annotated[str | None, option("RULE", "the family's own; ttt3r for CUT3R")] = None
    """How the state is updated. CUT3R: ttt3r, overwrite (as published), ttsa3r, filt3r, recal3r,
    brake, ortho, memix(RULE), paced(RULE), damped(RULE, FACTOR), split(RULE, RULE of the pose
    memory), or your own as package.module:Class; Point3R: fuse, append; StreamVGGT: keep_all,
    window(FRAMES), diverse(FRAMES); VGGT, Fast3R: once (one look per stretch between resets), or
    anew for each frame keep_all, window(FRAMES)."""

    pose_memory: Annotated[str | None, option("RULE", "written whole, as published")] = None
    """How CUT3R's pose memory is updated: overwrite, ttt3r, filt3r, brake, ortho, or
    damped(RULE, FACTOR) of these. Short for --rule 'split(RULE, RULE of the pose memory)'."""

    reset: Annotated[str | None, option("FRAMES|RESET", "never")] = None
    """Start a new segment where a long stream drifts or does not fit into memory: after a number of
    frames such as 100, every(100, overlap=3) to share three frames, keyframes(0.5) where half of
    the view is new, or drift where state, gate or confidence have changed."""

    stitch: Annotated[
        str | None, option("STITCHING", "pose where lengths are metric, else similarity")
    ] = None
    """How the stretches between resets are joined: pose, similarity (carries scale), or robust
    (similarity that leaves out what does not fit, and tells how sure the scale is)."""

    loops: Flag = False
    """When the input has ended, find places that two segments have seen, and move the segments so
    that they meet. Needs --reset; see ttt3r loops."""

    outputs: Annotated[tuple[str, ...], option("OUTPUT ...")] = ("points", "pose")
    """What to compute, such as points, pose, world (points in the world) and rgb. What a network
    cannot give is refused with a list of what it can."""

    pose_from: Annotated[str | None, option("SOURCE", "as the weights say, else head")] = None
    """Where poses come from: head (as published), points (the rigid motion from the frame's own
    points to its points in the world), or auto (the head's rotation, the points' position)."""

    refine: Flag = False
    """Refine poses against key frames by brightness and depth, where the new pose clearly fits
    better. Slow, and no gain on average with the weights in the package."""

    size: Annotated[int | None, option("PIXELS", "as the weights were trained")] = None
    """Longer side of the images that the network sees."""

    stride: Annotated[int, option("N")] = 1
    """Take every n-th frame."""

    start: Annotated[float | None, option("SECONDS", "the first frame")] = None
    """Skip what comes before, counted from the first frame."""

    end: Annotated[float | None, option("SECONDS", "the last frame")] = None
    """Skip what comes from then on, counted from the first frame."""

    fps: Annotated[float | None, option("RATE", "30")] = None
    """Frames per second of images and bare video streams, which carry no time of their own."""

    video_stream: Annotated[int | None, option("NUMBER", "the one with the most pixels")] = None
    """Which video stream of the file to read, counted from 0."""

    rotate: Annotated[int, option("DEGREES")] = 0
    """Turn the images clockwise first, by 90, 180 or 270 degrees."""

    crop: Annotated[str | None, option("WIDTH:HEIGHT", "nothing is cut")] = None
    """Cut the turned images to this aspect about their centre, such as 4:3."""

    intrinsics: Annotated[str | None, option("NUMBERS or FILE", "what the network estimates")] = (
        None
    )
    """Intrinsics of the camera in pixels of the original images: fx,fy,cx,cy[,k1,k2,p1,p2] as in
    OpenCV (pixel centres at integers), or a file: COLMAP's cameras.txt, YAML of OpenCV, ROS, Kalibr
    or EuRoC; FILE:NAME takes one of several cameras. Images are undistorted first."""

    device: Annotated[str, option("DEVICE")] = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, …"""

    precision: Annotated[str, option("TYPE")] = "auto"
    """float32, bfloat16, float16, or auto: bfloat16 where a GPU supports it."""

    encode_batch: Annotated[int, option("FRAMES")] = 1
    """Frames of a file that are encoded together. With the weights in the package, 4 are faster."""

    checkpoint_every: Annotated[int, option("FRAMES")] = 25
    """Frames between two checkpoints; a killed run goes on from the last one."""

    resume: Flag = False
    """Continue the run in the output folder; its settings must be the same."""

    overwrite: Flag = False
    """Replace the run in the output folder."""

    trace: Flag = False
    """Follow gate, state and camera over time, and judge each frame: see ttt3r inspect."""

    profile: Annotated[Path | None, option("FILE", "nothing is recorded")] = None
    """Record what each thread does when (decode, prepare, encode, step, heads, write, waiting) as a
    JSON file that ui.perfetto.dev shows."""

    no_summary: Flag = False
    """Do not draw summary.png, the picture of the run."""

    view: Flag = False
    """Show the run in a browser while it goes on, and afterwards until Ctrl-C; see ttt3r view for
    --host, --port, --token and --open."""

    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """With --view: where to listen."""

    port: Annotated[int | None, option("PORT", "8012, or the next free one")] = None
    """With --view: port to listen on."""

    token: Annotated[str | None, option("TEXT", "none on this machine")] = None
    """With --view: what the address must hold."""

    open: Flag = False
    """With --view: open the page in this machine's browser."""

    quiet: Flag = False
    """Show warnings and errors only."""

    debug: Debug = False

    def main(self) -> int:
        """Run until the input ends or a signal stops it."""
        command = replace(self, out=self.out or default_out(self.input))
        if not self.view:
            return command.reconstruct(None)
        from ttt3r.runs.reader import Run

        if "pose" not in self.outputs:
            raise SettingError("--view shows a path, so add pose to --outputs")
        assert command.out is not None
        with opened(command.out, command) as viewer:
            status = command.reconstruct(viewer)
            if status == 0:
                print("the page stays until Ctrl-C", flush=True)
                run = Run.open(command.out)
                with contextlib.suppress(KeyboardInterrupt):
                    follow(run, viewer, seen=len(run))
            return status

    def reconstruct(self, viewer: "LiveViewer | None") -> int:
        """Do it; return the exit status."""
        from ttt3r.spans import recording

        began = time.monotonic()
        finished = None
        profile = contextlib.nullcontext() if self.profile is None else recording(self.profile)
        with StopRequest() as stop, profile, contextlib.suppress(KeyboardInterrupt):
            reconstruction = self.prepare(stop)
            if reconstruction.resumed_at and not self.quiet:
                print(f"going on after {reconstruction.resumed_at} frames")
            if self.model == BUILTIN and not self.quiet:
                print(EXPECT)
            if self.consume(reconstruction, stop, viewer):
                finished = reconstruction
        seconds = time.monotonic() - began
        picture = None if self.no_summary else self.draw()
        if finished is None:
            print(f"stopped. To continue:\n  {resume_line(self)}")
            return stop.status
        if not self.quiet:
            self.summarise(finished, seconds, picture)
        return 0

    def prepare(self, stop: StopRequest) -> "Reconstruction":
        """Open input, weights and output.

        Raises:
            Ttt3rError: if something cannot work.
        """
        from ttt3r import rules
        from ttt3r.runs.folder import RunFolder
        from ttt3r.sources import open_source
        from ttt3r.stream.reconstruct import reconstruct

        assert self.out is not None
        folder = RunFolder(self.out, self.resume, self.overwrite, self.checkpoint_every)
        folder.check()
        source = open_source(
            self.input,
            stride=self.stride,
            start=self.start,
            end=self.end,
            fps=self.fps,
            video_stream=self.video_stream,
            rotate=self.rotate,
            crop=self.crop,
            intrinsics=self.intrinsics,
        )
        if self.fetch:
            fetch_for(self.model, self.accept_licence, lambda: stop.signal != 0)
        return reconstruct(
            source,
            model=self.model,
            rule=self.rule and rules.import_rules(self.rule),
            pose_memory=self.pose_memory and rules.import_rules(self.pose_memory),
            reset=self.reset,
            stitch=self.stitch,
            outputs=self.outputs,
            size=self.size,
            out=folder,
            device=self.device,
            precision=self.precision,
            encode_batch=self.encode_batch,
            trace=self.trace,
            loops=self.loops,
            pose_from=self.pose_from,
            refine=self.refine,
            stop_when=lambda: stop.signal != 0,
        )

    def consume(
        self, reconstruction: "Reconstruction", stop: StopRequest, viewer: "LiveViewer | None"
    ) -> bool:
        """Let the frames pass; return whether all of them did."""
        assert self.out is not None
        from ttt3r.files import user_path
        from ttt3r.runs.placement import Placement

        placement = Placement.read(user_path(self.out)).upright()  # of a run that goes on
        if viewer is not None:
            viewer.tell(facts_in(self.out))
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
                    if viewer is not None:
                        viewer.tell(facts_in(self.out))
                    return True
                update(prediction.index + 1)
                if viewer is not None:
                    viewer.show(placement.move(prediction))
        return False

    def draw(self) -> Path | None:
        """Draw the picture of the run; None if that did not work, which a warning says."""
        from ttt3r.errors import RunError
        from ttt3r.files import user_path
        from ttt3r.runs.reader import SUMMARY, Run
        from ttt3r.summary.picture import write_summary

        path = user_path(str(self.out)) / SUMMARY
        try:
            run = Run.open(path.parent)
            if len(run) == 0:  # stopped before the first frame
                return None
            write_summary(run, path)
        except (OSError, RunError) as error:
            logger.warning("the run is whole, but %s was not drawn: %s", path, error)
            return None
        return path

    def summarise(
        self, reconstruction: "Reconstruction", seconds: float, picture: Path | None
    ) -> None:
        """Say what was done, where it is, and what to do next."""
        from ttt3r.cli.info import length_unit, trajectory_length
        from ttt3r.runs.reader import Run

        run = Run.open(str(self.out))
        done = reconstruction.done - reconstruction.resumed_at
        line = f"{done} frames in {duration_text(seconds)} ({done / seconds:.1f} per second)"
        length = trajectory_length(run)
        if length is not None:
            line += f"; the camera's path is {length:.3f} {length_unit(run)} long"
        folder = shlex.quote(str(self.out))
        print(f"{line}\nrun: {self.out}")
        if reconstruction.closing is not None:
            print("\n".join(closing_lines(reconstruction.closing)))
        if picture is not None:
            print(f"picture: {picture}")
        print(f"next: ttt3r info {folder}\n      ttt3r export {folder} --to ply")


def default_out(source: str) -> Path:
    """Folder for the run of an input, named after it."""
    path = Path(source).expanduser()
    while glob.has_magic(path.name) and not path.exists():
        path = path.parent
    name = path.resolve().name if path.is_dir() else path.stem
    name = name.encode("utf-8", "replace").decode()  # the input's own name is checked later
    return Path("runs") / (name or "run")


def resume_line(command: RunCommand) -> str:
    """The command line that goes on with an interrupted run."""
    return command_line("run", "input", replace(command, resume=True, overwrite=False))
