"""Turns a training's checkpoint into a weight file that ships with the package."""

import json
import platform
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ttt3r.errors import InputError
from ttt3r.files import write_atomically
from ttt3r.models.base import WeightsInfo
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.training.calibrate import calibrate
from ttt3r.training.data import Source
from ttt3r.training.loop import CHECKPOINT
from ttt3r.training.recipe import Recipe
from ttt3r.types import Preparation
from ttt3r.weights.card import card_text
from ttt3r.weights.catalogue import PROJECT
from ttt3r.weights.sources import CARD_KEY


def pack(
    recipe: Recipe, folder: Path, out: Path, commit: str = "", clips: Source | None = None
) -> Path:
    """Write the averaged weights of the checkpoint in `folder` as float16, with their description.

    Args:
        recipe: the training's.
        folder: where the training is.
        out: the file to write.
        commit: version of the code that trained.
        clips: clips that were not trained on, to calibrate the confidence on; None leaves it.

    Raises:
        InputError: if there is no checkpoint, or it holds numbers that float16 cannot.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise InputError(f"there is no checkpoint in {folder}; train first")
    prefix, tensors = "average.", {}
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        for key in file.keys():  # noqa: SIM118
            if key.startswith(prefix):
                tensors[key.removeprefix(prefix)] = file.get_tensor(key)
    if clips is not None:
        model = Cut3r(recipe.network).eval()
        model.load_state_dict(tensors)
        calibrate(model, clips)
        tensors = model.state_dict()
    tensors = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
    bad = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise InputError(f"{path} holds numbers too large for float16, in {bad[0]}")
    network = recipe.network
    info = WeightsInfo(
        name="builtin",
        licence="Apache-2.0",
        origin=PROJECT,
        sha256="",
        config=network,
        preparation=Preparation(network.image_size, network.patch_size),
        filename=path.name,
    )
    made = {"recipe": recipe.name, "seed": recipe.seed, "commit": commit} | header
    made |= {"machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}"}
    metadata = {CARD_KEY: card_text(info), "training": json.dumps(made)}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda partial: save_file(tensors, partial, metadata))
    return out
