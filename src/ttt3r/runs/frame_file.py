"""One frame of a run on disk: a safetensors file that holds a prediction."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.tensor_files import read_tensors, write_tensors
from ttt3r.types import LARGEST_HALF, ON_DISK, ImageTransform, Prediction, Quality, Reading


@dataclass(frozen=True)
class _Header:
    index: int
    timestamp: float
    segment: int
    scale: float
    transform: ImageTransform | None
    quality: Quality | None = None  # older frames have none
    scale_error: float | None = None


# How the shape of each tensor ends, and how many axes it has, as `Reading` declares them.
_AXES = {
    name: get_args(hint)[0].dim_str.split()[1:] for name, hint in get_type_hints(Reading).items()
}
_ENDS = {
    name: tuple(int(axis) for axis in axes if axis.isdecimal()) for name, axes in _AXES.items()
}
_RANKS = {name: len(axes) for name, axes in _AXES.items()}
_MAPS = {name for name, axes in _AXES.items() if axes[:2] == ["height", "width"]}


def write_prediction(path: Path, prediction: Prediction) -> None:
    """Write a prediction atomically; maps as float16, saturated at ±65504.

    Raises:
        OSError: if the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in prediction.tensors().items():
        if ON_DISK[name] == torch.float16:
            value = value.clamp(-LARGEST_HALF, LARGEST_HALF)
        tensors[name] = value.to(ON_DISK[name])
    if prediction.image is not None:
        tensors["image"] = prediction.image
    header = _Header(**{item.name: getattr(prediction, item.name) for item in fields(_Header)})
    write_tensors(path, tensors, header)


def read_prediction(
    path: Path, only: tuple[str, ...] | None = None, *, stored: bool = False
) -> Prediction:
    """Read a prediction; maps come back as float32.

    Args:
        path: the frame's file.
        only: names of the tensors to read; the others become None, whether they are there or not.
        stored: leave maps in the file, and as float16: only pages that are looked at are read.

    Raises:
        RunError: if the file is missing or damaged.
    """
    header, tensors = _read(path, only)
    try:
        image = tensors.pop("image", None)
        if image is not None and (image.dtype != torch.uint8 or image.shape[2:] != (3,)):
            raise ValueError(f"its image is {image.dtype} of shape {tuple(image.shape)}")
        size = None if image is None else image.shape[:2]
        for name, value in tensors.items():
            shape, rank, end = value.shape, _RANKS[name], _ENDS[name]
            if len(shape) != rank or shape[rank - len(end) :] != end:
                raise ValueError(f"its {name} has the shape {tuple(shape)}")
            if name in _MAPS:
                if size is not None and shape[:2] != size:
                    raise ValueError("its maps have different sizes")
                size = shape[:2]
            if not (stored and value.is_floating_point()):
                tensors[name] = value.float()
        said: dict[str, Any] = dict(tensors)
        return Prediction(**vars(header), **said, image=image)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


class StampedPose(NamedTuple):
    """When and where a frame was taken; the pose is None if it was not asked for.

    See `Prediction` for the scale and its error.
    """

    timestamp: float
    segment: int
    pose: Tensor | None
    scale: float
    scale_error: float | None


def read_pose(path: Path) -> StampedPose:
    """Read only the timestamp, the segment and the pose of a frame.

    Raises:
        RunError: if the file is missing or damaged.
    """
    header, tensors = _read(path, ("world_from_camera",), small=True)
    pose = tensors.get("world_from_camera")
    if pose is not None and (pose.shape != (4, 4) or not pose.is_floating_point()):
        raise _damaged(path, f"its pose is {pose.dtype} of shape {tuple(pose.shape)}")
    return StampedPose(header.timestamp, header.segment, pose, header.scale, header.scale_error)


def read_intrinsics(path: Path) -> tuple[ImageTransform | None, Tensor | None]:
    """Read only how a frame's image was made and its intrinsics (None if there are none).

    Raises:
        RunError: if the file is missing or damaged.
    """
    header, tensors = _read(path, ("intrinsics",), small=True)
    intrinsics = tensors.get("intrinsics")
    if intrinsics is not None and (
        intrinsics.shape != (3, 3) or not intrinsics.is_floating_point()
    ):
        raise _damaged(path, f"its intrinsics are {intrinsics.dtype} {tuple(intrinsics.shape)}")
    return header.transform, intrinsics


def _read(
    path: Path, only: tuple[str, ...] | None, *, small: bool = False
) -> tuple[_Header, dict[str, Tensor]]:
    try:
        return read_tensors(path, _Header, only, small=small)
    except ValueError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> RunError:
    return RunError(
        f"the frame {path} is missing or damaged ({reason}); `ttt3r run --resume` with the same "
        "input makes it again"
    )
