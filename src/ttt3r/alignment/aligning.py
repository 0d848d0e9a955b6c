"""Move a run to where its cameras are known to have been, and to metres."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.alignment.fit import Fit, fit_similarity, upright_along_line
from ttt3r.alignment.photographs import fix_of
from ttt3r.alignment.tracks import Track, check_fix, of_fixes
from ttt3r.errors import InputError, RunError
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.frame_file import read_pose
from ttt3r.runs.placement import Placement
from ttt3r.runs.reader import INPUTS, Run, frame_path
from ttt3r.sources.lens import Calibrated
from ttt3r.sources.reopening import reopen
from ttt3r.sources.stills import ImageSource

NEAREST = 0.02  # seconds between a frame and a pose, at most; as the tools of TUM RGB-D have it
WIDEST = 2.0  # seconds between the two fixes around a frame, at most; most devices have 1 s
BAD = 0.2  # rms of the distances, as a share of the extent of the known positions
UP = (0.0, 0.0, 1.0)
logger = logging.getLogger("ttt3r.alignment")


class Cameras(NamedTuple):
    """The cameras of a run that have a place.

    Attributes:
        indices: of the frames.
        times: seconds.
        poses: world from camera, without what moves the whole run, float64.
    """

    indices: list[int]
    times: Float[np.ndarray, " n"]
    poses: Float[Tensor, "n 4 4"]


class Known(NamedTuple):
    """Where some cameras are known to have been.

    Attributes:
        which: of the cameras [n].
        places: metres, of those [known, 3].
        origin: see `Track`.
        name: of what says so.
    """

    which: Bool[np.ndarray, " n"]
    places: Float[np.ndarray, "known 3"]
    origin: tuple[float, float, float] | None
    name: str


@dataclass(frozen=True)
class Alignment:
    """How a run was aligned.

    Attributes:
        name: of what said where cameras were.
        frames: of the run that have a pose.
        matched: frames whose position was known.
        used: those of them that agree.
        scale: what lengths were multiplied by.
        rms, median: of the distances between cameras and known positions of those used, in metres.
        straight: whether the positions lie on a line; the turn about it is the cameras' own up
            then.
        origin: latitude and longitude in degrees and altitude in metres of (0, 0, 0), where the
            axes are east, north and up; None where they are those of the file.
    """

    name: str
    frames: int
    matched: int
    used: int
    scale: float
    rms: float
    median: float
    straight: bool
    origin: tuple[float, float, float] | None

    @property
    def text(self) -> str:
        """What was done, for `Placement.world_text`."""
        words = [
            f"aligned to {self.name}: {self.matched:,} of {self.frames:,} frames matched",
            f"{self.used:,} used",
            f"rms {self.rms:.3g} m",
            f"median {self.median:.3g} m",
        ]
        if self.straight:
            words.append("on a straight line, upright by the cameras")
        if self.origin is not None:
            latitude, longitude, altitude = self.origin
            words.append(
                f"axes east, north, up from latitude {latitude:.9g}, longitude {longitude:.9g}, "
                f"altitude {altitude:.6g} m"
            )
        return ", ".join(words)


def align_to_track(
    folder: Path, track: Track, offset: float = 0.0, tolerance: float | None = None
) -> Alignment:
    """Align a run to positions over time, and note it in the run's placement.

    A frame takes the nearest pose of a trajectory. Between two fixes of GPS, its position lies on
    the straight line between them.

    Args:
        folder: of the run.
        track: the positions.
        offset: what is added to the run's times to get those of the track, in seconds.
        tolerance: seconds between a frame and its pose at most, or between the fixes around it;
            None takes 0.02 and 2.

    Raises:
        RunError: if the run has no poses, or is being written.
        InputError: if fewer than three frames match, or the positions do not determine where the
            run belongs.
    """
    cameras = cameras_of(Run.open(folder))
    times = cameras.times + offset
    if track.origin is None:
        tolerance = NEAREST if tolerance is None else tolerance
        which, places = _nearest(times, track, tolerance)
        how = f"within {tolerance:g} s"
    else:
        tolerance = WIDEST if tolerance is None else tolerance
        which, places = _between(times, track, tolerance)
        how = f"between fixes at most {tolerance:g} s apart"
    if which.sum() < 3:
        raise InputError(
            f"{which.sum()} of {len(times)} frames have a position {how}, and at least three must. "
            f"The run goes from {times[0]:.6f} to {times[-1]:.6f} s, {track.name} from "
            f"{track.times[0]:.6f} to {track.times[-1]:.6f} s. If their clocks differ, say by how "
            f"much with --offset SECONDS; it is {track.times[0] - cameras.times[0]:.6f} if both "
            "begin together. --tolerance SECONDS allows more"
        )
    return _align(folder, cameras, Known(which, places, track.origin, track.name))


def align_to_photographs(folder: Path, place: Path | None = None) -> Alignment:
    """Align a run of photographs to where their EXIF says they were taken; see `align_to_track`.

    Args:
        folder: of the run.
        place: where its images lie now, if they were moved.

    Raises:
        RunError: if the run was not made from image files, or they are gone.
        InputError: as `align_to_track`.
    """
    run = Run.open(folder)
    files = _files(run, place)
    cameras = cameras_of(run)
    fixes = [fix_of(files[index]) for index in cameras.indices]
    which = np.array([fix is not None for fix in fixes], bool)
    for index, fix in zip(cameras.indices, fixes, strict=True):
        if fix is not None:
            check_fix(fix[0], fix[1], str(files[index]))
    if which.sum() < 3:
        raise InputError(
            f"{which.sum()} of {len(fixes)} photographs say in their EXIF where they were taken "
            "(latitude, longitude and altitude); at least three must. Programs that change "
            "photographs often leave it out"
        )
    table = np.array([fix for fix in fixes if fix is not None], np.float64)
    places, origin = of_fixes(table)
    return _align(folder, cameras, Known(which, places, origin, "the photographs' GPS"))


def cameras_of(run: Run) -> Cameras:
    """The cameras of a run, as its corrected segments place them.

    Raises:
        RunError: if the run was made without poses, or no frame has one.
    """
    placement = replace(run.placement, world=None)
    indices: list[int] = []
    times: list[float] = []
    poses: list[Tensor] = []
    for index in range(len(run)):
        said = read_pose(frame_path(run.folder, index))
        if said.pose is None:
            raise RunError("this run holds no poses; run again with the output 'pose'")
        if bool(said.pose.isfinite().all()):
            indices.append(index)
            times.append(said.timestamp)
            poses.append(placement.move_pose(said.segment, said.pose.double()))
    if not poses:
        raise RunError("no frame of this run has a pose, so there is nothing to align")
    return Cameras(indices, np.array(times), torch.stack(poses))


def _align(folder: Path, cameras: Cameras, known: Known) -> Alignment:
    poses = cameras.poses[torch.from_numpy(known.which)]
    source, target = poses[:, :3, 3], torch.from_numpy(known.places)
    fit = fit_similarity(source, target)
    if fit.straight:
        fit = _along_line(fit, poses, target, known)
    good = fit.residuals[fit.used]
    said = Alignment(
        known.name,
        len(cameras.indices),
        len(source),
        int(fit.used.sum()),
        fit.scale,
        float(good.square().mean().sqrt()),
        float(good.median()),
        fit.straight,
        known.origin,
    )
    extent = float((target - target.mean(0)).square().sum(1).mean().sqrt())
    if said.rms > BAD * extent:
        logger.warning(
            "the run does not fit %s well: the rms of %.3g m is %.0f %% of how far the positions "
            "spread",
            *(said.name, said.rms, 100 * said.rms / extent),
        )
    up = None if known.origin is None else UP
    place_world(folder, fit.target_from_source, said.text, up)
    return said


def _along_line(
    fit: Fit, poses: Float[Tensor, "n 4 4"], target: Float[Tensor, "n 3"], known: Known
) -> Fit:
    if known.origin is None:
        raise InputError(
            f"the positions of {known.name} lie on a straight line, up to their errors, so the "
            "turn about it is not determined. Use a stretch with a curve; or set the length alone: "
            f"ttt3r scale RUN {fit.scale:.6g}"
        )
    ups = -poses[:, :3, 1]
    return upright_along_line(fit, poses[:, :3, 3], target, ups, torch.tensor(UP).double())


def place_world(
    folder: Path,
    world: Float[Tensor, "4 4"] | None,
    text: str = "",
    up: tuple[float, float, float] | None = None,
) -> None:
    """Note what moves a whole run to metres; what its segments were corrected by stays.

    Args:
        folder: of the run.
        world: similarity; None takes back what was noted.
        text: how it was found, for people.
        up: unit vector that points up afterwards, see `Placement`.

    Raises:
        RunError: if a program is still writing the run, or the note cannot be written.
    """
    held = RunFolder(folder).hold()
    try:
        before = Placement.read(folder)
        metric = None if world is None else True
        after = replace(before, world=world, world_text=text, metric=metric, up=up)
        after.write(folder)
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {error.strerror or error}") from error
    finally:
        held.close()


def _nearest(
    times: np.ndarray, track: Track, tolerance: float
) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, "known 3"]]:
    """The position of the nearest stamp."""
    after = np.searchsorted(track.times, times).clip(1, max(len(track.times) - 1, 1))
    pair = np.stack([after - 1, after.clip(max=len(track.times) - 1)])
    away = np.abs(track.times[pair] - times)
    nearest = pair[away.argmin(0), np.arange(len(times))]
    which = away.min(0) <= tolerance
    return which, track.places[nearest[which]]


def _between(
    times: np.ndarray, track: Track, widest: float
) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, "known 3"]]:
    """The position between the fixes before and after, which may be the same."""
    after = np.searchsorted(track.times, times)
    inside = (times >= track.times[0]) & (times <= track.times[-1])
    after = after.clip(0, len(track.times) - 1)
    before = np.where(track.times[after] == times, after, (after - 1).clip(min=0))
    span = track.times[after] - track.times[before]
    which = inside & (span <= widest)
    before, after, span = before[which], after[which], span[which]
    share = np.where(span > 0, (times[which] - track.times[before]) / np.maximum(span, 1e-9), 0.0)
    step = track.places[after] - track.places[before]
    return which, track.places[before] + share[:, None] * step


def _files(run: Run, place: Path | None) -> Sequence[Path]:
    """The image file of each frame."""
    path = run.folder / INPUTS
    inputs = path.read_text("utf-8", "surrogateescape").splitlines() if path.exists() else []
    try:
        source, _ = reopen(run.manifest.get("source", {}), inputs, place)
    except InputError as error:
        raise RunError(
            f"{error}. If the photographs were moved, say where they are: --images PATH"
        ) from error
    plain = source.source if isinstance(source, Calibrated) else source
    if not isinstance(plain, ImageSource):
        raise RunError(
            "this run was not made from photographs, so there is no EXIF; give a file of positions"
        )
    return plain.files
