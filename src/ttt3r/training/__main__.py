"""``python -m ttt3r.training``: make weights by a recipe.

For example: ``python -m ttt3r.training train cpu --folder runs/cpu --minutes 120``.
"""

import json
import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ttt3r.errors import InputError, Ttt3rError
from ttt3r.training.confidence import refit_checkpoint
from ttt3r.training.data import Clips
from ttt3r.training.feed import DeviceFeed, DiskFeed
from ttt3r.training.loop import CHECKPOINT, Trainer
from ttt3r.training.pack import pack
from ttt3r.training.parts import join, split
from ttt3r.training.recipe import load_recipe
from ttt3r.training.validate import validate

Recipe = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class Train:
    """Train by a recipe; a folder that holds a checkpoint goes on where it stopped."""

    recipe: Recipe
    """"cpu", "gpu", or a TOML file."""
    folder: Path
    """Receives checkpoint.safetensors, log.jsonl and validation.jsonl."""
    cache: Path | None = None
    """Rendered clips; by default FOLDER/cache."""
    minutes: float = math.inf
    """Stop after so long; a later call goes on."""
    steps: int | None = None
    """Stop at this step."""
    device: str = "cpu"
    workers: int = 2
    """Threads that share each batch on the CPU, and processes that render."""
    validate_every: int = 250
    """Steps between validations, at each of which the checkpoint is saved too."""

    def run(self) -> None:
        """Train."""
        recipe = load_recipe(self.recipe)
        cache = self.cache or self.folder / "cache"
        if recipe.render == "device":
            feed = DeviceFeed(recipe, cache, self.device)
        else:
            feed = DiskFeed(recipe, cache, self.workers)
        clips = feed.validation()
        on_cpu = self.device == "cpu"
        if on_cpu:  # small products: single threads side by side beat threads within a product
            torch.set_num_threads(1)
        workers = self.workers if on_cpu else 1
        trainer = Trainer(recipe, self.folder, feed, self.device, workers)
        last = trainer.total_steps if self.steps is None else min(self.steps, trainer.total_steps)
        end = time.monotonic() + 60 * self.minutes
        while trainer.progress.step < last and time.monotonic() < end:
            until = min(last, trainer.progress.step + self.validate_every)
            left = (end - time.monotonic()) / 60
            trainer.run(until, left, save_every=self.validate_every)
            self._report(trainer, clips)

    def _report(self, trainer: Trainer, clips: Clips) -> None:
        stage, _ = trainer.stage_at(trainer.progress.step - 1)
        figures = validate(trainer.averaged(), clips, stage.task, stage.size, stage.frames)
        record = vars(trainer.progress) | {"stage": stage.name} | figures
        with (self.folder / "validation.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        rate = trainer.progress.frames / max(trainer.progress.seconds, 1e-9)
        print(f"{stage.name} {trainer.progress.step}  {text}  {rate:.0f} frames/s", flush=True)


@dataclass(frozen=True)
class Confidence:
    """Fit the confidence of a checkpoint's weights anew; nothing else about them changes."""

    recipe: Recipe
    folder: Path
    """Where the training is."""
    cache: Path | None = None
    """Rendered clips; by default FOLDER/cache."""

    def run(self) -> None:
        """Fit it."""
        recipe = load_recipe(self.recipe)
        feed = DiskFeed(recipe, self.cache or self.folder / "cache")
        print(refit_checkpoint(recipe, self.folder / CHECKPOINT, feed))


@dataclass(frozen=True)
class Pack:
    """Write a training's averaged weights as a float16 file that can be loaded."""

    recipe: Recipe
    folder: Path
    """Where the training is."""
    out: Path
    """The file to write, ending in .safetensors."""
    commit: str = ""
    """Version of the code that trained, for the record."""

    def run(self) -> None:
        """Write the file."""
        path = pack(load_recipe(self.recipe), self.folder, self.out, self.commit)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True)
class Split:
    """Write a checkpoint as parts of at most 16 MiB, without the optimiser's moments."""

    folder: Path
    """Where the training is."""
    out: Path
    """Folder for the parts."""

    def run(self) -> None:
        """Write the parts."""
        for path in split(self.folder / CHECKPOINT, self.out):
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


@dataclass(frozen=True)
class Join:
    """Make a checkpoint of parts, from which a training goes on."""

    parts: Path
    """Folder that holds the parts."""
    folder: Path
    """Where the training shall be."""

    def run(self) -> None:
        """Write the checkpoint."""
        join(self.parts, self.folder / CHECKPOINT)


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


COMMANDS = {
    "train": Train,
    "confidence": Confidence,
    "pack": Pack,
    "split": Split,
    "join": Join,
    "plot": Plot,
}


def main(words: list[str]) -> int:
    """Run a command; returns the exit status, 2 for what the user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, args=words, prog="python -m ttt3r.training", description=__doc__
    )
    try:
        command.run()
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
