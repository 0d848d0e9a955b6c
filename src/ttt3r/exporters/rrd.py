"""A recording for the Rerun viewer, which plays it along time.

    world                        right, down, forward
    world/camera                 pose of each frame
    world/camera/image           pinhole; below it rgb and depth
    world/map                    one thinned cloud of all frames
    world/trajectory             the path
    gate                         mean β of each frame

Timelines are `frame` and `time`, in seconds. Points and depth of a frame are those that all
pictures and viewers draw, see `drawing.frames`; cameras, path and pictures are those of the
viewers, see `viewer.scene`. The map has the mean of each cell, as other files do: a viewer keeps
the first point that it saw there, since it cannot wait for the last frame. Rerun draws a frustum
from a pinhole and a picture itself, so that of the viewers is not written.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ttt3r.drawing.frames import depth_of
from ttt3r.drawing.voxels import VoxelCloud
from ttt3r.errors import MissingExtraError, RunError
from ttt3r.exporters.clouds import (
    MIN_CONFIDENCE,
    CloudReader,
    cells_text,
    check_steps,
    check_voxel,
    thinning,
)
from ttt3r.exporters.depth import to_steps
from ttt3r.exporters.placed import is_placed, left_out_text, points_of
from ttt3r.types import Prediction
from ttt3r.viewer.scene import Scene, jpeg, pose_of

if TYPE_CHECKING:
    from rerun import RecordingStream

PIECE = 1 << 16  # bytes
JPEG_QUALITY = 85
FLUSHED = 16  # frames
STEPS = 1000.0  # of depth in one unit of length


def write_rrd(
    predictions: Iterable[Prediction],
    path: Path,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    voxel: float | None = None,
    most_points: int = 1_000_000,
) -> str:
    """Write cameras, images and depth along time, and one thinned cloud of all frames.

    A frame that could not be placed is left out.

    Args:
        predictions: with points and poses.
        path: file to write.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        voxel: keep one point per cell of this size, in the run's unit; by default fine ones.
        most_points: points to keep at most; cells widen until they are few enough.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points or poses, or if no point is left.
        MissingExtraError: if rerun-sdk is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import rerun
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "rerun", "exporting a recording for Rerun") from error

    check_steps(most_points=most_points)
    check_voxel(voxel)
    recording = rerun.RecordingStream("ttt3r", recording_id=uuid.uuid4())
    with _pipe_into(path) as (pipe, check):
        recording.save(pipe)
        try:
            content = _Content(recording, min_confidence, voxel, most_points)
            for number, prediction in enumerate(predictions):
                content.add(prediction)
                if number % FLUSHED == 0:
                    recording.flush()  # or frames would wait in memory
                    check()
            text = content.finish()
            recording.flush()
        finally:
            recording.disconnect()
    return text


class _Content:
    """Logs frames, and at the end what belongs to all of them."""

    def __init__(
        self,
        recording: "RecordingStream",
        min_confidence: float,
        voxel: float | None,
        most_points: int,
    ) -> None:
        import rerun

        self._recording = recording
        self._reader = CloudReader(min_confidence)
        self._voxel, self._most = voxel, most_points
        self._voxels: VoxelCloud | None = None
        self._path = Scene()  # holds poses only, some thousands
        self._frames = 0
        recording.log("world", rerun.ViewCoordinates.RDF, static=True)

    def add(self, prediction: Prediction) -> None:
        cloud = self._reader(prediction)
        if not is_placed(prediction):
            return
        _log(self._recording, prediction)
        self._path.add(replace(prediction, points=None, image=None))
        self._frames += 1
        if self._voxels is None and len(cloud.points):
            self._voxels = thinning(cloud, prediction, self._voxel, self._most)
        if self._voxels is not None:
            self._voxels.add(*cloud)

    def finish(self) -> str:
        """Log map and path; say what there is."""
        import rerun

        self._reader.check()
        assert self._voxels is not None
        points, size = self._voxels.cloud(), self._voxels.size
        dots = rerun.Points3D(points.points, colors=points.colours, radii=size / 2)
        self._recording.log("world/map", dots, static=True)
        way = np.stack([pose.world_from_camera[:3, 3] for pose in self._path.poses])
        line = rerun.LineStrips3D([way])
        self._recording.log("world/trajectory", line, static=True)
        about = f"{len(points.points):,} points{cells_text(self._voxels, self._voxel)}"
        return f"{self._frames:,} frames, {about}{left_out_text(self._reader.left_out)}"


def _log(recording: "RecordingStream", prediction: Prediction) -> None:
    import rerun

    pose = pose_of(prediction)
    points, _ = points_of(prediction)
    height, width = points.shape[:2]
    recording.set_time("frame", sequence=pose.frame)
    recording.set_time("time", duration=pose.timestamp)
    matrix = pose.world_from_camera
    placed = rerun.Transform3D(translation=matrix[:3, 3], mat3x3=matrix[:3, :3])
    recording.log("world/camera", placed)
    if prediction.intrinsics is not None:
        matrix = prediction.intrinsics.float().numpy()
        pinhole = rerun.Pinhole(image_from_camera=matrix, resolution=[width, height])
        recording.log("world/camera/image", pinhole)
    if prediction.image is not None:
        content = jpeg(prediction.image.numpy(), max(height, width), JPEG_QUALITY)
        image = rerun.EncodedImage(contents=content, media_type="image/jpeg")
        recording.log("world/camera/image/rgb", image)
    steps, _ = to_steps(depth_of(points), STEPS)
    recording.log("world/camera/image/depth", rerun.DepthImage(steps, meter=STEPS))
    if prediction.gate is not None:
        recording.log("gate", rerun.Scalars(float(prediction.gate.mean())))


@contextlib.contextmanager
def _pipe_into(path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Give a pipe whose content goes to a file, and a function that raises if that failed.

    Rerun only logs that it cannot write a file, and then waits forever. A pipe it can always write.

    Raises:
        OSError: at the end, if the file could not be written whole.
    """
    failures: list[OSError] = []

    def check() -> None:
        if failures:
            raise failures[0]

    def drain() -> None:
        with pipe.open("rb") as source:
            try:
                with path.open("wb") as file:
                    shutil.copyfileobj(source, file)
            except OSError as error:
                failures.append(error)
                while source.read(PIECE):
                    pass

    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "pipe.rrd"
        try:
            os.mkfifo(pipe)
        except AttributeError as error:
            raise RunError("the format rrd needs pipes, which Windows lacks; use glb") from error
        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        try:
            yield pipe, check
        finally:
            with contextlib.suppress(OSError):  # nobody reads: all was read
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # if nobody ever wrote
            thread.join()
    check()
