"""One frame of a run on disk: a safetensors file that holds a prediction."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.files import write_atomically
from ttt3r.types import ImageTransform, Prediction

HALF = ("points", "confidence", "world_points", "world_confidence", "rgb")
FULL = ("pose_encoding", "world_from_camera", "intrinsics", "gate")
SCALARS = ("index", "timestamp", "segment", "scale")
LARGEST_HALF = torch.finfo(torch.float16).max


def write_prediction(path: Path, prediction: Prediction) -> None:
    """Write a prediction atomically; maps as float16, saturated at ±65504.

    Raises:
        OSError: if the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name in HALF:
        value = getattr(prediction, name)
        if value is not None:
            tensors[name] = value.clamp(-LARGEST_HALF, LARGEST_HALF).half()
    for name in FULL:
        value = getattr(prediction, name)
        if value is not None:
            tensors[name] = value.float()
    if prediction.image is not None:
        tensors["image"] = prediction.image
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header: dict[str, Any] = {name: getattr(prediction, name) for name in SCALARS}
    header["transform"] = None if prediction.transform is None else asdict(prediction.transform)
    # One metadata key: several would be written in an order that changes from run to run.
    metadata = {"ttt3r": json.dumps(header, sort_keys=True)}

    content = safetensors.torch.save(tensors, metadata)
    write_atomically(path, lambda file: file.write_bytes(content))


def read_prediction(path: Path) -> Prediction:
    """Read a prediction; maps come back as float32.

    Raises:
        RunError: if the file is missing or damaged.
    """
    header, tensors = _read(path, None)
    transform = header.pop("transform")
    if transform is not None:
        transform = ImageTransform(**{key: tuple(value) for key, value in transform.items()})
    image = tensors.pop("image", None)
    maps: dict[str, Any] = {name: value.float() for name, value in tensors.items()}
    return Prediction(**header, **maps, image=image, transform=transform)


def read_pose(path: Path) -> tuple[float, Tensor | None]:
    """Read only the timestamp and the pose (None if it was not asked for) of a frame.

    Raises:
        RunError: if the file is missing or damaged.
    """
    header, tensors = _read(path, ("world_from_camera",))
    return header["timestamp"], tensors.get("world_from_camera")


def _read(path: Path, wanted: tuple[str, ...] | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["ttt3r"])
            names = [name for name in file.keys() if wanted is None or name in wanted]  # noqa: SIM118
            return header, {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise RunError(
            f"the frame {path} is missing or damaged ({error}); process the input again into a "
            "new folder, or with --overwrite"
        ) from error
