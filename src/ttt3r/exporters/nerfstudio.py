"""A data folder for nerfstudio: transforms.json, images, depth and a point cloud.

Its world is z-up: `applied_transform` leads there from the run's. Cameras have OpenGL axes (x
right, y up, z backward), and pixel centres are at half integers.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from PIL import Image as PillowImage

from ttt3r.drawing.frames import GREY
from ttt3r.errors import SettingError
from ttt3r.exporters.behind import behind
from ttt3r.exporters.cameras import Cameras, checked_camera, placed_frames
from ttt3r.exporters.originals import originals
from ttt3r.exporters.placed import left_out_text, no_pose, points_of
from ttt3r.exporters.ply import VERTEX, header
from ttt3r.runs.reader import Run
from ttt3r.sources.undo import OriginalPixels
from ttt3r.types import Prediction

# From the run's world (x right, y down, z forward) to one with z up.
APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
UNIT = 0.001  # of depth, in units of the run; nerfstudio's default
MOST = 65535
Map = Float[np.ndarray, "height width"]


def write_nerfstudio(
    run: Run,
    path: Path,
    *,
    camera: Literal["shared", "per-image"] = "shared",
    images: Path | None = None,
    every: int = 1,
    min_confidence: float = 1.5,
    most_points: int = 500_000,
) -> str:
    """Write cameras in the original images' pixels, these images, depth, and a point cloud.

    Depth is a PNG of 16 bits for each image, in thousandths of the run's unit; 0 where there is
    none or its point is not kept. It covers the image in as many pixels as the network's own, and
    nerfstudio scales it to the image by the nearest pixel. A frame that could not be placed is left
    out.

    Args:
        run: with points and poses.
        path: empty folder to fill.
        camera: shared takes the median of all frames as the one camera of images of the same size;
            per-image keeps each frame's own.
        images: where the images or the video that the run was made from lie now, if they were
            moved.
        every: take every n-th frame.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        most_points: points to keep at most, as many of each frame.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points, poses or intrinsics, or no frame has a pose.
        OSError: if something cannot be written.
    """
    checked_camera(camera, every=every, most_points=most_points)
    if math.isnan(min_confidence):
        raise SettingError("min_confidence must be a number; 0 keeps every point")
    cameras = Cameras.of(run) if camera == "shared" else Cameras.own()
    applied = APPLIED @ run.placement.turn_upright.numpy()
    share = max(1, most_points // -(-len(run) // every))
    left_out: list[int] = []
    frames = count = 0
    (path / "images").mkdir()
    (path / "depth").mkdir()
    with (
        originals(run, images) as found,
        (path / "transforms.json").open("w", encoding="utf-8", newline="\n") as file,
        (path / "points.ply").open("wb") as cloud,
        behind() as calls,
    ):
        file.write(_head(applied))
        cloud.write(header(0))
        for prediction in placed_frames(run, every, left_out):
            intrinsics, pixels = cameras.intrinsics(prediction), found.pixels(prediction)
            depth, confidence = _maps(prediction)
            usable = _usable(depth, confidence, min_confidence)
            depth_name = f"depth/{prediction.index:06d}.png"
            calls.do(partial(_write_depth, path / depth_name, depth, usable, pixels))
            entry = {
                "file_path": f"images/{found.save(prediction, path / 'images')}",
                "depth_file_path": depth_name,
                **_camera(prediction, intrinsics, pixels, applied),
            }
            file.write(("," if frames else "") + "\n    " + json.dumps(entry, allow_nan=False))
            at = _some(usable, share, prediction.index)
            cloud.write(_vertices(prediction, at, intrinsics, depth, confidence, applied))
            count += len(at)
            frames += 1
        file.write("\n  ]\n}\n")
        cloud.seek(0)
        cloud.write(header(count))
    if frames == 0:
        raise no_pose()
    return f"{frames:,} images, {count:,} points{left_out_text(len(left_out))}"


def _head(applied: Float[np.ndarray, "4 4"]) -> str:
    """The beginning of transforms.json, up to its frames."""
    shared = {
        "camera_model": "OPENCV",
        "applied_transform": applied[:3].tolist(),
        "depth_unit_scale_factor": UNIT,
        "ply_file_path": "points.ply",
    }
    lines = [f'  "{name}": {json.dumps(value)}' for name, value in shared.items()]
    return "{\n" + ",\n".join([*lines, '  "frames": ['])


def _camera(
    prediction: Prediction,
    intrinsics: Float[np.ndarray, "3 3"],
    pixels: OriginalPixels,
    applied: Float[np.ndarray, "4 4"],
) -> dict[str, Any]:
    """Intrinsics and pose of one frame, as nerfstudio names them."""
    assert prediction.world_from_camera is not None
    matrix = pixels.intrinsics(intrinsics)
    pose = pixels.world_from_camera(prediction.world_from_camera.double().numpy())
    return {
        "w": pixels.size[0],
        "h": pixels.size[1],
        "fl_x": _exact(matrix[0, 0]),
        "fl_y": _exact(matrix[1, 1]),
        "cx": _exact(matrix[0, 2] + 0.5),
        "cy": _exact(matrix[1, 2] + 0.5),
        "transform_matrix": (applied @ pose @ OPENGL).tolist(),
    }


def _exact(number: float) -> float:
    """Without what rounding on the way added to a number that was given."""
    return float(f"{number:.12g}")


def _maps(prediction: Prediction) -> tuple[Map, Map]:
    """Depth and confidence, float32."""
    points, confidence = points_of(prediction)
    # Of numbers that lie apart, PyTorch turns one after another into another type.
    depth = np.ascontiguousarray(points.float().numpy()[..., 2])
    return depth, confidence.float().numpy()


def _usable(depth: Map, confidence: Map, min_confidence: float) -> Bool[np.ndarray, "height width"]:
    """Where depth is sure enough, and fits into 16 bits."""
    fits = (depth > UNIT / 2) & (depth < UNIT * (MOST + 0.5))
    return fits & (confidence > min_confidence) & np.isfinite(confidence)


def _write_depth(
    path: Path, depth: Map, usable: Bool[np.ndarray, "height width"], pixels: OriginalPixels
) -> None:
    stored = np.where(usable, np.rint(depth * np.float32(1 / UNIT)), 0).astype(np.uint16)
    PillowImage.fromarray(_reduced(pixels).spread(stored)).save(path, compress_level=1)


def _reduced(pixels: OriginalPixels) -> OriginalPixels:
    """The whole original image in pixels of about the size of processed ones, if these are larger.

    A depth map as large as a photograph would repeat each of its numbers, and take long to write.
    """
    steps = np.linalg.norm(pixels.original_from_processed[:2, :2], axis=1)
    width, height = (
        max(1, round(side / max(step, 1.0)))
        for side, step in zip(pixels.size, steps.tolist(), strict=True)
    )
    x, y = width / pixels.size[0], height / pixels.size[1]
    scale = np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])
    return OriginalPixels((width, height), scale @ pixels.original_from_processed, pixels.turns)


def _some(
    usable: Bool[np.ndarray, "height width"], most: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """Index of some of the pixels, one drawn from each stretch of them; the same each time."""
    at = np.flatnonzero(usable)
    if len(at) <= most:
        return at
    edges = np.arange(most + 1) * len(at) // most
    within = np.random.default_rng(seed).random(most) * np.diff(edges)
    return at[edges[:-1] + within.astype(np.int64)]


def _vertices(
    prediction: Prediction,
    at: Int64[np.ndarray, " n"],
    intrinsics: Float[np.ndarray, "3 3"],
    depth: Map,
    confidence: Map,
    applied: Float[np.ndarray, "4 4"],
) -> bytes:
    """The points of some pixels, by their index, as the rows of a PLY file."""
    y, x = np.divmod(at, depth.shape[1])
    rays = np.linalg.inv(intrinsics) @ np.stack([x, y, np.ones_like(x)])
    assert prediction.world_from_camera is not None
    pose = applied @ prediction.world_from_camera.numpy().astype(np.float64)
    world = pose[:3, :3] @ (rays * depth.ravel()[at]) + pose[:3, 3:]
    rows = np.empty(len(at), VERTEX)
    for row, axis in zip(world, "xyz", strict=True):
        rows[axis] = row
    image = prediction.image
    colours = None if image is None else image.numpy()[y, x]
    for column, name in enumerate(("red", "green", "blue")):
        rows[name] = GREY if colours is None else colours[:, column]
    rows["confidence"] = confidence.ravel()[at]
    return rows.tobytes()
