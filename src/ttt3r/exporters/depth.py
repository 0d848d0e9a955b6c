"""Depth maps as a folder of pictures or arrays, with the scale and the cameras written down.

000000.png …     depth along the optical axis: uint16, 0 where nothing is known
000000.npz …     or `depth` float32 in the run's unit, NaN where nothing is known, `confidence`
000000.exr …     or the same as OpenEXR, in the channels Z and confidence
depth.json       the scale of the pictures
intrinsics.txt   `name width height fx fy cx cy`, pixels, centres at integers
"""

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt16
from PIL import Image

from ttt3r.drawing.frames import depth_of
from ttt3r.errors import MissingExtraError, SettingError
from ttt3r.exporters.behind import behind
from ttt3r.exporters.clouds import check_confidence
from ttt3r.exporters.placed import points_of
from ttt3r.files import to_json, write_text
from ttt3r.types import ImageTransform, Prediction

MOST_STEPS = 65535
INTRINSICS_HEAD = "# name width height fx fy cx cy\n"


def write_depth(
    predictions: Iterable[Prediction],
    path: Path,
    *,
    depth_kind: Literal["png", "npz", "exr"] = "png",
    depth_scale: float = 1000.0,
    original_size: bool = False,
    min_confidence: float = 0.0,
) -> str:
    """Write the depth map of each frame; those of frames without a pose too.

    Args:
        predictions: with points.
        path: folder to fill.
        depth_kind: png has whole numbers of 16 bits; npz and exr have floats and the confidence.
        depth_scale: steps of a png's numbers in one unit of length; 1000 makes millimetres.
        original_size: bring maps back to the pixels of the source's images, each from the nearest
            pixel; what was cut off has no depth.
        min_confidence: drop pixels whose confidence is not above this; 0 keeps all.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points.
        MissingExtraError: if OpenEXR is asked for and not installed.
        OSError: if a file cannot be written.
    """
    if depth_kind not in ("png", "npz", "exr"):
        raise SettingError(f"depth_kind must be png, npz or exr, not {depth_kind!r}")
    if not (math.isfinite(depth_scale) and depth_scale > 0):
        raise SettingError(f"depth_scale must be a number above 0, not {depth_scale}")
    check_confidence(min_confidence)
    if depth_kind == "exr":
        _require_openexr()
    count = beyond = 0
    with (
        (path / "intrinsics.txt").open("w", encoding="ascii", newline="\n") as lines,
        behind() as calls,
    ):
        lines.write(INTRINSICS_HEAD)
        for prediction in predictions:
            depth, confidence = _maps(prediction, min_confidence)
            intrinsics = prediction.intrinsics
            if original_size and prediction.transform is not None:
                depth = to_original(depth, prediction.transform)
                confidence = to_original(confidence, prediction.transform)
                intrinsics = prediction.original_intrinsics
            name = f"{prediction.index:06d}.{depth_kind}"
            if depth_kind == "png":
                steps, too_far = to_steps(depth, depth_scale)
                calls.do(partial(Image.fromarray(steps).save, path / name, compress_level=1))
                beyond += too_far
            elif depth_kind == "npz":
                calls.do(partial(np.savez, path / name, depth=depth, confidence=confidence))
            else:
                _write_exr(path / name, depth, confidence)
            if intrinsics is not None:
                lines.write(_camera(name, depth, intrinsics.double().numpy()))
            count += 1
    about = _about(depth_kind, depth_scale, original_size)
    write_text(path / "depth.json", to_json(about, indent=2) + "\n")
    farthest = MOST_STEPS / depth_scale
    note = f" ({beyond:,} pixels beyond {farthest:g} have no depth)" if beyond else ""
    return f"{count:,} depth maps{note}"


def to_steps(
    depth: Float[np.ndarray, "height width"], scale: float
) -> tuple[UInt16[np.ndarray, "height width"], int]:
    """Depth as whole numbers, 0 where it is NaN or too far, and how many pixels are too far."""
    steps = np.nan_to_num(depth.astype(np.float64), nan=0.0) * scale
    too_far = steps.round() > MOST_STEPS
    return np.where(too_far, 0, steps.round()).astype(np.uint16), int(too_far.sum())


def to_original(
    values: Float[np.ndarray, "height width"], transform: ImageTransform
) -> Float[np.ndarray, "original_height original_width"]:
    """A map at the size of the source's image: the nearest pixel's value, NaN where it was cut."""
    width, height = transform.original_size
    matrix = transform.processed_from_original
    u = np.round(matrix[0, 0] * np.arange(width) + matrix[0, 2]).astype(np.int64)
    v = np.round(matrix[1, 1] * np.arange(height) + matrix[1, 2]).astype(np.int64)
    inside_u = (u >= 0) & (u < values.shape[1])
    inside_v = (v >= 0) & (v < values.shape[0])
    result = np.full((height, width), np.nan, np.float32)
    result[np.ix_(inside_v, inside_u)] = values[np.ix_(v[inside_v], u[inside_u])]
    return result


def _maps(prediction: Prediction, min_confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth and confidence; NaN in the depth where nothing is known."""
    points, confidence = points_of(prediction)
    confidence = confidence.float().numpy()
    return np.where(confidence > min_confidence, depth_of(points), np.float32(np.nan)), confidence


def _require_openexr() -> None:
    try:
        import OpenEXR  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("OpenEXR", "exr", "exporting depth as OpenEXR") from error


def _write_exr(path: Path, depth: np.ndarray, confidence: np.ndarray) -> None:
    """Write float32 with the lossless compression that most programs know."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    try:
        with OpenEXR.File(header, {"Z": depth, "confidence": confidence}) as file:
            file.write(str(path))
    except RuntimeError as error:  # a full disk, too
        raise OSError(str(error)) from error


def _camera(name: str, depth: np.ndarray, matrix: np.ndarray) -> str:
    numbers = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    size = f"{depth.shape[1]} {depth.shape[0]}"
    return f"{name} {size} " + " ".join(f"{number:.9g}" for number in numbers) + "\n"


def _about(kind: str, scale: float, original_size: bool) -> dict[str, Any]:
    about: dict[str, Any] = {
        "content": "depth along the optical axis, in the run's unit of length (metres where the "
        "weights are metric)",
        "pixels": "of the source's images" if original_size else "of the images the network saw",
    }
    if kind == "png":
        about |= {"steps_per_unit": scale, "farthest": MOST_STEPS / scale, "nothing": 0}
    return about
