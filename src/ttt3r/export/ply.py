"""A point cloud as binary PLY, which most viewers and point cloud libraries read."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped

from ttt3r.errors import RunError, SettingError
from ttt3r.files import write_atomically
from ttt3r.geometry import se3
from ttt3r.stream.frame_file import LARGEST_HALF, read_prediction
from ttt3r.stream.run import Run, frame_path
from ttt3r.types import Prediction

VERTEX = np.dtype(
    [
        *((axis, "<f4") for axis in "xyz"),
        *((colour, "u1") for colour in ("red", "green", "blue")),
        ("confidence", "<f4"),
    ]
)
TYPES = {"<f4": "float", "|u1": "uchar"}
GREY = 128
DIGITS = 12


def write_ply(
    run: Run, path: Path, *, min_confidence: float = 1.5, stride: int = 1, every: int = 1
) -> str:
    """Write the points of all frames in the run's world; memory does not grow with the run.

    Args:
        run: must hold points and poses.
        path: file to write.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        stride: take every n-th pixel, along rows and along columns.
        every: take every n-th frame.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points or poses, or if no point is left.
        OSError: if the file cannot be written.
    """
    for name, value in (("stride", stride), ("every", every)):
        if not isinstance(value, int) or value < 1:
            raise SettingError(f"{name} must be a whole number, at least 1, not {value!r}")
    if math.isnan(min_confidence):
        raise SettingError("min_confidence must be a number; 0 keeps every point")
    count = 0

    def write(file: Path) -> None:
        nonlocal count
        largest = -math.inf
        with file.open("wb") as stream:
            stream.write(header(0))
            for index in range(0, len(run), every):
                prediction = read_prediction(frame_path(run.folder, index))
                candidates = vertices(prediction, stride)
                kept = candidates[candidates["confidence"] > min_confidence]
                stream.write(kept.tobytes())
                count += len(kept)
                largest = max(largest, float(candidates["confidence"].max(initial=-math.inf)))
            stream.seek(0)
            stream.write(header(count))
        if count == 0:
            raise RunError(_nothing_left(min_confidence, largest))

    write_atomically(path, write)
    return f"{count:,} points"


def header(count: int) -> bytes:
    """The text that opens the file; as long for any number of points, so it can be replaced."""
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment camera of the first frame: x right, y down, z forward",
        f"element vertex {count:0{DIGITS}d}",
    ]
    lines += [f"property {TYPES[VERTEX[name].str]} {name}" for name in VERTEX.names or ()]
    return "\n".join([*lines, "end_header", ""]).encode("ascii")


def vertices(prediction: Prediction, stride: int) -> Shaped[np.ndarray, " points"]:
    """The finite points of a frame in the world, of type `VERTEX`, at every `stride`-th pixel.

    Raises:
        RunError: if the prediction has no points or no pose.
    """
    points, confidence = prediction.points, prediction.confidence
    if points is None or confidence is None:
        raise RunError("this run holds no points; run again with the output 'points'")
    if prediction.world_from_camera is None:
        raise RunError("this run holds no poses; run again with the output 'pose'")
    points = points[::stride, ::stride].reshape(-1, 3)
    confidence = confidence[::stride, ::stride].flatten()
    # A frame file stores what is too far for its number format, infinity too, as the largest one.
    usable = (points.abs() < LARGEST_HALF).all(dim=1) & confidence.isfinite()
    if prediction.image is None:
        colours = torch.full(points.shape, GREY, dtype=torch.uint8)
    else:
        colours = prediction.image[::stride, ::stride].reshape(-1, 3)
    world = se3.apply(prediction.world_from_camera, points[usable]).numpy()
    result = np.empty(len(world), VERTEX)
    for column, axis in enumerate("xyz"):
        result[axis] = world[:, column]
    for column, colour in enumerate(("red", "green", "blue")):
        result[colour] = colours[usable][:, column].numpy()
    result["confidence"] = confidence[usable].numpy()
    return result


def _nothing_left(min_confidence: float, largest: float) -> str:
    if largest == -math.inf:
        return "no point of this run is finite, so there is nothing to write"
    return (
        f"no point has a confidence above {min_confidence:g}; the largest is {largest:.4g}. Choose "
        "a lower min_confidence (on the command line, --min-confidence)"
    )
