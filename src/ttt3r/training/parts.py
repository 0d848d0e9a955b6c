"""A checkpoint in several small files, for where large ones cannot travel.

Parts hold the weights and their averages, the averages in half precision; the optimiser's moments
stay behind and are gathered anew in the first hundred steps of the next run.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttt3r.errors import InputError

PART_BYTES = 15 * 2**20
PATTERN = "part-*.safetensors"


def split(checkpoint: Path, folder: Path) -> list[Path]:
    """Write the parts of a checkpoint into a folder, each at most 16 MiB with its header.

    Raises:
        InputError: if there is no checkpoint, or the folder holds parts already.
    """
    if not checkpoint.is_file():
        raise InputError(f"there is no checkpoint {checkpoint}")
    if folder.exists() and any(folder.glob(PATTERN)):
        raise InputError(f"{folder} holds parts already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with safe_open(checkpoint, framework="pt") as file:
        header = file.metadata()
        groups: list[dict[str, Tensor]] = [{}]
        size = 0
        for key in sorted(file.keys()):
            kind = key.partition(".")[0]
            if kind not in ("weight", "average"):
                continue
            tensor = file.get_tensor(key)
            tensor = tensor.half() if kind == "average" else tensor
            if size + tensor.nbytes > PART_BYTES and groups[-1]:
                groups.append({})
                size = 0
            groups[-1][key] = tensor
            size += tensor.nbytes
    paths = [folder / f"part-{i:02d}-of-{len(groups):02d}.safetensors" for i in range(len(groups))]
    for path, group in zip(paths, groups, strict=True):
        save_file(group, path, header)
    return paths


def join(folder: Path, checkpoint: Path) -> None:
    """Make a checkpoint of parts, with empty moments.

    Raises:
        InputError: if parts are missing, or there is a checkpoint already.
    """
    paths = sorted(folder.glob(PATTERN))
    count = int(paths[0].stem.rpartition("-")[2]) if paths else 0
    if not paths or len(paths) != count:
        raise InputError(f"{folder} holds {len(paths)} of {count or 'its'} parts")
    if checkpoint.exists():
        raise InputError(f"{checkpoint} exists already; choose another folder")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors |= load_file(path)
    for key in [key for key in tensors if key.startswith("weight.")]:
        name = key.removeprefix("weight.")
        tensors[f"average.{name}"] = tensors[f"average.{name}"].float()
        tensors[f"first.{name}"] = torch.zeros_like(tensors[key])
        tensors[f"second.{name}"] = torch.zeros_like(tensors[key])
        tensors[f"count.{name}"] = torch.zeros(())
    with safe_open(paths[0], framework="pt") as file:
        header = file.metadata()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, checkpoint, header)
