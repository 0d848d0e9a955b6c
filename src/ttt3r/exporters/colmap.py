"""A COLMAP model with the images it belongs to, as programs for Gaussian splatting read it.

images/     the original images, linked, or frames of the video
sparse/0/   cameras, images, points3D
"""

import contextlib
import math
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ttt3r.drawing.frames import GREY
from ttt3r.errors import SettingError
from ttt3r.exporters.cameras import Cameras, checked_camera, placed_frames
from ttt3r.exporters.colmap_model import (
    NO_POINT,
    ColmapCamera,
    ColmapImage,
    ColmapPoints,
    Model,
    binary_model,
    text_model,
)
from ttt3r.exporters.originals import originals
from ttt3r.exporters.placed import left_out_text, no_pose, points_of
from ttt3r.exporters.tracks import Settled, Tracker, View
from ttt3r.runs.reader import Run
from ttt3r.sources.undo import OriginalPixels
from ttt3r.types import Prediction

# Frames that take each step together: the same step many times is faster than all steps in turns,
# because what it needs is in the processor's caches then.
AT_ONCE = 16


def write_colmap(
    run: Run,
    path: Path,
    *,
    camera: Literal["shared", "per-image"] = "shared",
    text: bool = False,
    images: Path | None = None,
    every: int = 1,
    min_confidence: float = 1.5,
    cell: int = 16,
    window: int = 16,
    depth_tolerance: float = 0.05,
) -> str:
    """Write cameras and poses in the original images' pixels, points with tracks, and the images.

    Points of a frame are looked for in the next ones, and are kept where the depth of at least one
    agrees. A frame that could not be placed is left out.

    Args:
        run: with points and poses.
        path: empty folder to fill.
        camera: shared takes the median of all frames as the one camera of images of the same size;
            per-image keeps each frame's own.
        text: write text files instead of binary ones.
        images: where the images or the video that the run was made from lie now, if they were
            moved.
        every: take every n-th frame.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        cell: look for one point in each square of this many pixels of the processed images; fewer
            make more points.
        window: how many frames further a point is looked for.
        depth_tolerance: how far the depth in another frame may be from that of a point, as a share
            of it.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points, poses or intrinsics, or no frame has a pose.
        OSError: if something cannot be written.
    """
    checked_camera(camera, every=every, cell=cell, window=window)
    if math.isnan(min_confidence):
        raise SettingError("min_confidence must be a number; 0 keeps every point")
    if not 0 < depth_tolerance < 1:
        raise SettingError(f"depth_tolerance is a share between 0 and 1, not {depth_tolerance}")
    images_path = path / "images"
    images_path.mkdir()
    (path / "sparse" / "0").mkdir(parents=True)
    cameras = Cameras.of(run) if camera == "shared" else Cameras.own()
    tracker = Tracker(cell, window, depth_tolerance, min_confidence)
    left_out: list[int] = []
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(originals(run, images))
        model = stack.enter_context((text_model if text else binary_model)(path / "sparse" / "0"))
        writer = _Writer(model)
        frames = placed_frames(run, every, left_out)

        def add(some: list[Prediction]) -> bool:
            """Do each step for all of them; return whether there were any."""
            views = [_view(prediction, cameras.intrinsics(prediction)) for prediction in some]
            for prediction, view in zip(some, views, strict=True):
                name = found.save(prediction, images_path)
                writer.expect(view, name, found.pixels(prediction))
            for settled in filter(None, map(tracker.add, views)):
                writer.settle(settled)
            return bool(some)

        while add(list(islice(frames, AT_ONCE))):  # no name holds them while the next are read
            pass
        writer.settle(tracker.finish())
    if writer.images == 0:
        raise no_pose()
    what = f"{writer.images:,} images, {writer.cameras:,} cameras, {writer.points:,} points"
    return what + left_out_text(len(left_out))


def _view(prediction: Prediction, intrinsics: np.ndarray) -> View:
    points, confidence = points_of(prediction)
    image = prediction.image
    colours = np.full(points.shape, GREY, np.uint8) if image is None else image.numpy()
    assert prediction.world_from_camera is not None
    pose = prediction.world_from_camera.numpy().astype(np.float64)
    return View(points.numpy(), confidence.numpy(), colours, pose, intrinsics)


class _Writer:
    """Puts what is known of an image at once, and what the tracker settles later, together."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._waiting: dict[int, tuple[str, int, np.ndarray, OriginalPixels]] = {}
        self._cameras: dict[ColmapCamera, int] = {}
        self._newest: tuple[OriginalPixels, np.ndarray, int] | None = None
        self._expected = self.images = self.points = 0

    @property
    def cameras(self) -> int:
        """How many there are."""
        return len(self._cameras)

    def expect(self, view: View, name: str, pixels: OriginalPixels) -> None:
        """Note an image whose points are not known yet."""
        pose = pixels.world_from_camera(view.world_from_camera)
        self._expected += 1
        self._waiting[self._expected] = (name, self._camera(view.intrinsics, pixels), pose, pixels)

    def _camera(self, intrinsics: np.ndarray, pixels: OriginalPixels) -> int:
        """The number of a camera, which most images of a run share."""
        newest = self._newest
        if newest is not None and newest[0] is pixels and newest[1] is intrinsics:
            return newest[2]
        matrix = pixels.intrinsics(intrinsics)
        fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        # Of two frames with the same camera, rounding may differ in the last bits.
        numbers = (float(f"{number:.12g}") for number in (fx, fy, cx + 0.5, cy + 0.5))
        camera = ColmapCamera(*pixels.size, *numbers)
        number = self._cameras.get(camera)
        if number is None:
            number = self._cameras[camera] = len(self._cameras) + 1
            self._model.camera(number, camera)
        self._newest = pixels, intrinsics, number
        return number

    def settle(self, settled: Settled) -> None:
        """Write the next images and the points that began in them."""
        for seen in settled.seen:
            self.images += 1
            name, camera, pose, pixels = self._waiting.pop(self.images)
            places = pixels.pixels(seen.pixels) + 0.5
            numbers = np.where(seen.kept, seen.number + 1, NO_POINT)
            self._model.image(ColmapImage(self.images, pose, camera, name, places, numbers))
        began = settled.began
        self._model.points(
            ColmapPoints(
                began.number + 1,
                began.world,
                began.colour,
                began.length,
                began.view + 1,
                began.place,
            )
        )
        self.points += len(began.number)
