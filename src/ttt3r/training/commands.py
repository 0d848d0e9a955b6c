"""Make weights by a recipe.

For example: ``python -m ttt3r.training train more --folder runs/more --minutes 120``.
"""

import json
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ttt3r import rules
from ttt3r.errors import InputError, Ttt3rError
from ttt3r.files import with_user_paths
from ttt3r.training.loop import Trainer, gradient_norms
from ttt3r.training.losses import clip_errors
from ttt3r.training.pack import pack
from ttt3r.training.plot import VALIDATION
from ttt3r.training.recipe import Recipe, load_recipe
from ttt3r.training.shards import Settings, Shards, parse_size, render_shards, shards_of
from ttt3r.training.team import Team, run_together
from ttt3r.training.validate import validate

RecipeName = Annotated[str, tyro.conf.Positional]
CLIPS, TRAINING_CLIPS, VALIDATION_CLIPS = "clips", "training", "validation"


def render_all(recipe: Recipe, folder: Path, workers: int, most: int) -> None:
    """Render what is missing of a recipe's clips: those for validation, then those for training."""
    clips = recipe.clips
    count = min(most, clips.count)
    for name, frames, number in (
        (VALIDATION_CLIPS, clips.validation_frames, clips.validation),
        (TRAINING_CLIPS, clips.frames, count),
    ):
        settings = Settings(frames, recipe.size)
        seeds = shards_of(settings, 0, number, validation=name == VALIDATION_CLIPS)
        render_shards(folder / name, settings, seeds, workers, partial(_ready, settings))


def _ready(settings: Settings, first_seed: int, seconds: float) -> None:
    rate = settings.per_shard * settings.frames / max(seconds, 1e-9)
    print(f"shard {first_seed}: {rate:.0f} frames/s", flush=True)


@dataclass(frozen=True)
class Render:
    """Render clips for training into a folder of shards; what is there already stays."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Receives the shards."""
    clips: int
    """How many in all, rounded up to whole shards; a later call may ask for more."""
    frames: int = 64
    """Frames of each clip."""
    size: str = "96x128"
    """Height and width of the images, multiples of 8."""
    seed: int = 0
    """The first clip's, counted from the first seed for training: a multiple of --per-shard."""
    validation: bool = False
    """Take seeds for validation, which training never sees."""
    samples: int = 2
    """Rays along each side of a pixel, whose light is averaged."""
    fastest: int = 7
    """Each clip shows every frame of its camera's path, or every second, up to this one."""
    moving: float = 0.2
    """Share of clips in which things move."""
    degrees: tuple[float, float] = (45.0, 100.0)
    """Range of the field of view along the longer side."""
    renderer: str = "fast"
    """"fast" (needs numba), or "torch"."""
    per_shard: int = 16
    """Clips of a shard."""
    workers: int = 2
    """Processes that render."""

    def run(self) -> None:
        """Render them."""
        size = parse_size(self.size)
        settings = Settings(
            self.frames, size, self.samples, self.fastest, self.moving, self.degrees,
            self.renderer, self.per_shard,
        )  # fmt: skip
        seeds = shards_of(settings, self.seed, self.clips, validation=self.validation)
        frames, ready = settings.per_shard * settings.frames, []

        def done(first_seed: int, seconds: float) -> None:
            ready.append(first_seed)
            print(f"shard {first_seed}: {frames / max(seconds, 1e-9):.0f} frames/s", flush=True)

        render_shards(self.folder, settings, seeds, self.workers, done)
        print(f"rendered {len(ready)} of {len(seeds)} shards, the others were there")


@dataclass(frozen=True)
class Train:
    """Train by a recipe; a folder that holds a checkpoint goes on where it stopped."""

    recipe: RecipeName
    """"cpu", "more", "gpu", or a TOML file."""
    folder: Path
    """Receives checkpoint.safetensors, log.jsonl and validation.jsonl."""
    clips: Path | None = None
    """Rendered clips; by default FOLDER/clips."""
    first: int = 1024
    """So many clips are rendered before the training begins, if they are not there."""
    minutes: float = math.inf
    """Stop after so long; a later call goes on."""
    steps: int | None = None
    """Stop at this step."""
    device: str = "cpu"
    workers: int = 2
    """Processes that train together on CPUs, and that render."""
    validate_every: int = 250
    """Steps between validations, at each of which the checkpoint is saved too."""

    def run(self) -> None:
        """Train."""
        recipe = load_recipe(self.recipe)
        clips = self.clips or self.folder / CLIPS
        render_all(recipe, clips, self.workers, self.first)
        size = self.workers if self.device == "cpu" else 1
        run_together(partial(_train, self, recipe, clips), size)


def _train(command: Train, recipe: Recipe, clips: Path, team: Team) -> None:
    """What each process of a team does."""
    trainer = Trainer(recipe, command.folder, Shards(clips / TRAINING_CLIPS), team, command.device)
    trainer.run(
        command.steps,
        command.minutes,
        save_every=command.validate_every,
        after_save=partial(report, Shards(clips / VALIDATION_CLIPS)),
    )


def report(clips: Shards, trainer: Trainer) -> None:
    """Add a line to validation.jsonl, and show the most important figures."""
    model = trainer.averaged()
    figures = validate(model, clips)
    batch, parameters = trainer.draw(trainer.progress.step - 1), list(model.enc_blocks.parameters())
    parts = clip_errors(model, batch, rules.parse("ttt3r")).weighted(trainer.recipe.loss)
    norms = gradient_norms(parts, [*model.patch_embed.parameters(), *parameters])
    record = vars(trainer.progress) | figures | {f"norm.{k}": v for k, v in norms.items()}
    with (trainer.folder / VALIDATION).open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(record) + "\n")
    text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
    rate = trainer.progress.frames / max(trainer.progress.seconds, 1e-9)
    print(f"step {trainer.progress.step}  {text}  {rate:.0f} frames/s", flush=True)


@dataclass(frozen=True)
class Pack:
    """Write a training's averaged weights as a float16 file that can be loaded."""

    recipe: RecipeName
    folder: Path
    """Where the training is."""
    out: Path
    """The file to write, ending in .safetensors."""
    commit: str = ""
    """Version of the code that trained, for the record."""
    clips: Path | None = None
    """Clips for validation, to calibrate the confidence on, such as clips/validation."""

    def run(self) -> None:
        """Write the file."""
        clips = None if self.clips is None else Shards(self.clips)
        path = pack(load_recipe(self.recipe), self.folder, self.out, self.commit, clips)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True)
class Plot:
    """Draw a training's log: losses, and errors on validation clips."""

    folder: Path
    """Where the training is."""
    out: Path | None = None
    """Picture to write; by default FOLDER/log.png."""

    def run(self) -> None:
        """Draw it."""
        from ttt3r.training.plot import plot

        print(plot(self.folder, self.out or self.folder / "log.png"))


COMMANDS: dict[str, Callable] = {"render": Render, "train": Train, "pack": Pack, "plot": Plot}


def main(words: list[str]) -> int:
    """Run a command; returns the exit status, 2 for a fault that the user can fix."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=words, prog="python -m ttt3r.training", description=__doc__
    )
    try:
        with_user_paths(command).run()
    except Ttt3rError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {InputError(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0
