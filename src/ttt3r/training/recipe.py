"""A training recipe: the network, the rendered clips, and the stages to train it through."""

import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.training.losses import LossWeights

Value = TypeVar("Value")


@dataclass(frozen=True)
class ClipSet:
    """A range of synthetic clips, rendered to disk once.

    Attributes:
        clips: how many.
        frames: frames of each.
        first_seed: offset from the start of the seeds for their purpose.
        stride: frames of the camera's path from one frame of a clip to the next.
    """

    clips: int
    frames: int
    first_seed: int = 0
    stride: int = 1


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum.

    Attributes:
        name: unique within the recipe.
        task: "pairs" lets the state stream carry another frame's tokens; "clips" uses the state.
        steps: optimiser steps.
        batch: clips per step; a pair is used in both orders.
        frames: frames per clip.
        size: (height, width).
        clips: names of the clip sets, all with clips of one length.
        learning_rate: peak; it is warmed up first and falls to a tenth along half a cosine.
        warmup: steps.
        span: most frames of a clip between the first and the last one used; 0 for no limit.
        rays: share of later frames given as a ray map, half of them without the image.
        portrait: share of batches whose height and width are exchanged.
        rules: update rules; each step draws one.
        loss: weights of the loss.
    """

    name: str
    task: Literal["pairs", "clips"]
    steps: int
    batch: int
    frames: int
    size: tuple[int, int]
    clips: tuple[str, ...]
    learning_rate: float = 5e-4
    warmup: int = 200
    span: int = 0
    rays: float = 0.0
    portrait: float = 0.15
    rules: tuple[str, ...] = ("overwrite",)
    loss: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training, up to rounding.

    Attributes:
        name: of the recipe.
        seed: of weights and batches.
        network: sizes.
        image: (height, width) of the rendered frames.
        clip_sets: training clips by name.
        validation: clips for validation; their seeds are apart from the training's.
        stages: the curriculum.
        precision: dtype of products in the network.
        ema: decay of the averaged weights.
        weight_decay: of AdamW.
        clip_gradient: largest norm of a gradient.
        compile: compile the blocks of the network; for GPUs.
        render: "disk" renders clips once; "device" renders fresh ones for every step.
    """

    name: str
    seed: int
    network: Cut3rConfig
    image: tuple[int, int]
    clip_sets: dict[str, ClipSet]
    validation: ClipSet
    stages: tuple[Stage, ...]
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    ema: float = 0.999
    weight_decay: float = 0.02
    clip_gradient: float = 1.0
    compile: bool = False
    render: Literal["disk", "device"] = "disk"


def _fill(kind: type[Value], values: dict[str, Any], where: str) -> Value:
    known = {item.name for item in fields(kind)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingError(f"{where} has unknown settings: {', '.join(unknown)}")
    tuples = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
    try:
        return kind(**tuples)
    except TypeError as error:
        raise SettingError(f"{where} cannot be read: {error}") from error


def recipe_from_text(text: str) -> Recipe:
    """Read a recipe from TOML.

    Raises:
        SettingError: if it is no TOML, or a setting is unknown, missing or refers to nothing.
    """
    try:
        values = tomllib.loads(text)
        values["network"] = Cut3rConfig.from_dict(values["network"])
        sets = values["clip_sets"]
        values["clip_sets"] = {key: _fill(ClipSet, sets[key], f"clip set {key}") for key in sets}
        values["validation"] = _fill(ClipSet, values["validation"], "validation")
        stages = []
        for stage in values["stages"]:
            name = f"stage {stage.get('name', '?')}"
            stage["loss"] = _fill(LossWeights, stage.get("loss", {}), name)
            stages.append(_fill(Stage, stage, name))
        values["stages"] = stages
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, WeightsError) as error:
        raise SettingError(f"the recipe cannot be read: {error}") from error
    recipe = _fill(Recipe, values, "the recipe")
    for stage in recipe.stages:
        unknown = [name for name in stage.clips if name not in recipe.clip_sets]
        if unknown or not stage.clips:
            raise SettingError(f"stage {stage.name} names no clip set: {unknown}")
        lengths = {recipe.clip_sets[name].frames for name in stage.clips}
        if len(lengths) > 1 or not 2 <= stage.frames <= min(lengths):
            raise SettingError(
                f"stage {stage.name}: its clips must be of one length, and frames from 2 to that"
            )
    return recipe


def load_recipe(name_or_path: str) -> Recipe:
    """Read one of the recipes that come with the package, or a file.

    Raises:
        SettingError: if there is no such recipe, or it cannot be read.
    """
    own = resources.files("ttt3r.training") / "recipes" / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if own.is_file():
        return recipe_from_text(own.read_text(encoding="utf-8"))
    if not path.is_file():
        raise SettingError(f"no recipe {name_or_path!r}; name a TOML file, 'cpu' or 'gpu'")
    return recipe_from_text(path.read_text(encoding="utf-8"))
