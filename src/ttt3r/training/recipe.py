"""A training recipe: the network, the rendered clips, the losses, and the stages to go through."""

import tomllib
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from ttt3r import rules
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.cut3r.config import Cut3rConfig

Value = TypeVar("Value")


@dataclass(frozen=True)
class Clips:
    """Synthetic clips, rendered to disk once (`python -m ttt3r.training render`).

    Attributes:
        count: clips for training.
        frames: frames of each.
        validation: clips for validation; their seeds are apart from those for training.
        validation_frames: frames of each of these.
    """

    count: int
    frames: int
    validation: int = 64
    validation_frames: int = 16


@dataclass(frozen=True)
class LossWeights:
    """How much each part of the loss counts; `training.losses` says what the parts are."""

    points: float = 1.0
    world: float = 3.0
    direction: float = 2.0
    translation: float = 3.0
    rotation: float = 6.0
    matching: float = 1.0
    descriptor: float = 1.0
    scale: float = 0.1
    confidence: float = 0.02
    gate: float = 0.3


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum.

    Attributes:
        name: unique within the recipe.
        steps: optimiser steps.
        frames: frames of a clip.
        batch: clips of one worker in one step.
        span: most frames from the first to the last of a clip, when the stage begins and when it
            ends; it grows evenly in between.
        rules: update rules, one after the other.
    """

    name: str
    steps: int
    frames: int
    batch: int
    span: tuple[int, int]
    rules: tuple[str, ...] = ("overwrite", "ttt3r")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training, up to rounding.

    Attributes:
        name: of the recipe.
        seed: of starting values and batches.
        network: sizes.
        size: (height, width) of the rendered frames.
        clips: what is rendered.
        stages: the curriculum.
        start: weights to go on from, as `ttt3r.load` names them; "" begins with starting values.
        loss: weights of the loss.
        learning_rate: of AdamW; matrices inside the blocks learn by Muon at twice this rate.
        warmup: steps over which the rate rises from 0.
        cooldown: share of all steps, at the end, over which it falls to a fiftieth.
        weight_decay: of both optimisers.
        clip_gradient: largest norm of a gradient.
        average: decay of the averaged weights, which are the ones that are kept.
        precision: dtype of products in the network; "auto" is bfloat16 where that is faster.
        compile: compile the blocks of the network; for GPUs.
    """

    name: str
    seed: int
    network: Cut3rConfig
    size: tuple[int, int]
    clips: Clips
    stages: tuple[Stage, ...]
    start: str = ""
    loss: LossWeights = field(default_factory=LossWeights)
    learning_rate: float = 5e-4
    warmup: int = 20
    cooldown: float = 0.3
    weight_decay: float = 0.05
    clip_gradient: float = 1.0
    average: float = 0.995
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and the number of the step in that stage.

        Raises:
            SettingError: if the recipe has no such step.
        """
        within = step
        for stage in self.stages:
            if within < stage.steps:
                return stage, within
            within -= stage.steps
        raise SettingError(
            f"the recipe {self.name} has {self.steps} steps, and none numbered {step}"
        )

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step: warm-up, constant, then a fall to a fiftieth."""
        left = (self.steps - step) / max(self.cooldown * self.steps, 1.0)
        return min(1.0, (step + 1) / max(self.warmup, 1)) * max(min(1.0, left), 0.02)


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
        SettingError: if it is not TOML, or a setting is unknown, missing or makes no sense.
    """
    try:
        values = tomllib.loads(text)
        values["network"] = Cut3rConfig.from_dict(values["network"])
        values["clips"] = _fill(Clips, values["clips"], "clips")
        values["loss"] = _fill(LossWeights, values.get("loss", {}), "loss")
        values["stages"] = [
            _fill(Stage, stage, f"stage {stage.get('name', '?')}") for stage in values["stages"]
        ]
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, WeightsError) as error:
        raise SettingError(f"the recipe cannot be read: {error}") from error
    recipe = _fill(Recipe, values, "the recipe")
    for stage in recipe.stages:
        _check(stage, recipe.clips.frames)
    if not recipe.stages:
        raise SettingError("the recipe has no stages")
    return recipe


def _check(stage: Stage, longest: int) -> None:
    where = f"stage {stage.name}"
    if not 2 <= stage.frames <= longest:
        raise SettingError(f"{where}: frames must be from 2 to {longest}, the length of the clips")
    if stage.steps < 1 or stage.batch < 1:
        raise SettingError(f"{where}: steps and batch must be at least 1")
    if len(stage.span) != 2 or min(stage.span) < stage.frames - 1:
        raise SettingError(
            f"{where}: span must be two numbers, each at least {stage.frames - 1}, from the first "
            "frame to the last"
        )
    for rule in stage.rules:
        rules.parse(rule)


def load_recipe(name_or_path: str) -> Recipe:
    """Read one of the recipes that come with the package, or a file.

    Raises:
        SettingError: if there is no such recipe, or it cannot be read.
    """
    own = resources.files("ttt3r.training") / "recipes"
    names = sorted(Path(entry.name).stem for entry in own.iterdir() if entry.name.endswith(".toml"))
    if name_or_path in names:
        return recipe_from_text((own / f"{name_or_path}.toml").read_text(encoding="utf-8"))
    path = Path(name_or_path)
    if not path.is_file():
        raise SettingError(
            f"no recipe {name_or_path!r}; name a TOML file, or one of: {', '.join(names)}"
        )
    return recipe_from_text(path.read_text(encoding="utf-8"))
