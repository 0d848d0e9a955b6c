"""A point cloud as binary PLY, which most viewers and point cloud libraries read."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from ttt3r.drawing.voxels import Cloud, VoxelCloud
from ttt3r.exporters.clouds import (
    MIN_CONFIDENCE,
    CloudReader,
    cells_text,
    check_steps,
    check_voxel,
)
from ttt3r.exporters.placed import left_out_text
from ttt3r.types import Prediction

VERTEX = np.dtype(
    [
        *((axis, "<f4") for axis in "xyz"),
        *((colour, "u1") for colour in ("red", "green", "blue")),
        ("confidence", "<f4"),
    ]
)
TYPES = {"<f4": "float", "|u1": "uchar"}
DIGITS = 12


def write_ply(
    predictions: Iterable[Prediction],
    path: Path,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    pixel_stride: int = 1,
    every: int = 1,
    voxel: float | None = None,
) -> str:
    """Write the points of all frames in the stream's world; one frame at a time is in memory.

    A frame that could not be placed is left out.

    Args:
        predictions: with points and poses.
        path: file to write.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        pixel_stride: take every n-th pixel, along rows and along columns.
        every: take every n-th frame.
        voxel: keep one point per cell of this size, in the run's unit. About 400 MB of memory hold
            4 million cells; if there are more, cells become twice as wide. By default all points
            are kept.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points or poses, or if no point is left.
        OSError: if the file cannot be written.
    """
    check_steps(every=every)
    check_voxel(voxel)
    reader = CloudReader(min_confidence, pixel_stride)
    voxels = None if voxel is None else VoxelCloud(voxel)
    with path.open("wb") as stream:
        stream.write(header(0))
        for prediction in islice(predictions, 0, None, every):
            cloud = reader(prediction)
            if voxels is None:
                stream.write(vertices(cloud).tobytes())
            else:
                voxels.add(*cloud)
        reader.check()
        count, cells = reader.kept, ""
        if voxels is not None:
            thinned = voxels.cloud()
            stream.write(vertices(thinned).tobytes())
            count, cells = len(thinned.points), cells_text(voxels, voxel)
        stream.seek(0)
        stream.write(header(count))
    return f"{count:,} points{cells}{left_out_text(reader.left_out)}"


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


def vertices(cloud: Cloud) -> Shaped[np.ndarray, " points"]:
    """Points as a PLY file holds them, of type `VERTEX`."""
    result = np.empty(len(cloud.points), VERTEX)
    for column, axis in enumerate("xyz"):
        result[axis] = cloud.points[:, column]
    for column, colour in enumerate(("red", "green", "blue")):
        result[colour] = cloud.colours[:, column]
    result["confidence"] = cloud.confidence
    return result
