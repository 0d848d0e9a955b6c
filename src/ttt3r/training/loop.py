"""The training loop: clips through the state, averaged weights, checkpoints that survive a kill.

Every random choice of a step follows from the recipe's seed, the number of the step and the number
of the process, so a training that was interrupted goes on as if it had not been.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttt3r import rules
from ttt3r.errors import InputError
from ttt3r.files import lock, write_atomically
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.nn import backend
from ttt3r.training.data import Batch, Source, draw_batch
from ttt3r.training.initial import initialise
from ttt3r.training.losses import Errors, clip_errors
from ttt3r.training.optimiser import Optimiser, as_named, flat_gradients
from ttt3r.training.recipe import Recipe
from ttt3r.training.team import Alone, Team
from ttt3r.weights import load

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


@dataclass
class Progress:
    """Where a training stands; frames and seconds are those of the whole team."""

    step: int = 0
    seconds: float = 0.0
    frames: int = 0


def starting_network(recipe: Recipe) -> Cut3r:
    """A float32 network with the weights that a recipe begins with.

    Weights to go on from may be those of a network that smooths its maps more or less.

    Raises:
        InputError: if the weights to go on from are those of another network.
        WeightsError: if they cannot be read.
    """
    model = Cut3r(recipe.network)
    initialise(model, recipe.seed)
    if recipe.start:
        other = load(recipe.start, device="cpu", precision="float32")
        alike = isinstance(other, Cut3r) and recipe.network == replace(
            other.config, smoothing=recipe.network.smoothing
        )
        if not alike:
            raise InputError(f"the weights {recipe.start} are of another network than the recipe's")
        model.load_state_dict(other.state_dict())
    return model


class Trainer:
    """Trains a network by a recipe, in a folder, as one of a team of processes.

    Args:
        recipe: what to do.
        folder: receives `log.jsonl` and `checkpoint.safetensors`; a checkpoint there is resumed.
        source: rendered clips.
        team: the processes that train together.
        device: where to train.

    Raises:
        InputError: if a checkpoint there is damaged or of another network.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        source: Source,
        team: Team | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.recipe, self.folder, self.source, self.device = recipe, folder, source, device
        self.team = team or Alone()
        folder.mkdir(parents=True, exist_ok=True)
        self.model = starting_network(recipe).to(device)
        self.weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.average = {name: p.clone() for name, p in self.weights.items()}
        self.optimiser = Optimiser(recipe, self.weights, self.team)
        on_cpu = torch.device(device).type == "cpu"
        halves = not on_cpu or backend.bfloat16_outruns_float32()
        if recipe.precision == "bfloat16" or (recipe.precision == "auto" and halves):
            self.model.set_precision(torch.bfloat16)
        if recipe.compile:
            for blocks in (
                self.model.enc_blocks,
                self.model.dec_blocks,
                self.model.dec_blocks_state,
            ):
                for block in blocks:
                    block.compile(dynamic=True)
        self.progress = Progress()
        if self.checkpoint.exists():
            self._resume()
        self._publish()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.folder / CHECKPOINT

    def run(
        self,
        steps: int | None = None,
        minutes: float = math.inf,
        save_every: int = 250,
        after_save: Callable[["Trainer"], None] | None = None,
    ) -> None:
        """Train until the end of the recipe, of `steps`, or of the time; save on the way.

        Args:
            steps: number of the step to stop before.
            minutes: from now.
            save_every: steps between checkpoints.
            after_save: called in the first process after each checkpoint.

        Raises:
            InputError: if another process is training in the same folder.
        """
        last = self.recipe.steps if steps is None else min(self.recipe.steps, steps)
        began, end = time.monotonic(), time.monotonic() + 60 * minutes
        already = self.progress.seconds
        with self._locked(), ThreadPoolExecutor(1) as ahead:
            for step, batch in self._batches(ahead, last):
                self.one_step(step, batch)
                self.progress.seconds = already + time.monotonic() - began
                finished = self._agree(time.monotonic() > end or step + 1 == last)
                if (step + 1) % save_every == 0 or finished:
                    self.save()
                    if after_save and self.team.rank == 0:
                        after_save(self)
                if finished:
                    break

    def _locked(self) -> AbstractContextManager[Any]:
        """Hold the folder; the first process does so for its team."""
        if self.team.rank:
            return nullcontext()
        held = lock(self.folder / "lock")
        if held is None:
            raise InputError(f"another process is training in {self.folder}")
        return held

    def _agree(self, answer: bool) -> bool:
        """What the first process says."""
        said = torch.tensor([float(answer)])
        self.team.share(said, 0)
        return bool(said)

    def _batches(self, ahead: ThreadPoolExecutor, last: int) -> Iterator[tuple[int, Batch]]:
        """Batches of the coming steps, each drawn while the one before is used."""
        steps = range(self.progress.step, last)
        coming = ahead.submit(self.draw, steps[0]) if steps else None
        for step in steps:
            assert coming is not None
            batch = coming.result()
            if step + 1 < last:
                coming = ahead.submit(self.draw, step + 1)
            yield step, batch.to(self.device)

    def draw(self, step: int) -> Batch:
        """This process's batch of a step."""
        stage, within = self.recipe.stage_at(step)
        return draw_batch(self.source, stage, within, self._random(step, 0))

    def _random(self, step: int, use: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, step, self.team.rank, use])

    def gradient(self, step: int, batch: Batch) -> tuple[Tensor, Errors, float]:
        """Gradient of one batch's loss as a float32 vector, the parts of the loss, and the loss."""
        stage, within = self.recipe.stage_at(step)
        rule = rules.parse(stage.rules[within % len(stage.rules)])
        random = self._random(step, 1)
        offset = (int(random.integers(2)), int(random.integers(2)))
        errors = clip_errors(self.model, batch, rule, offset)
        loss = torch.stack(list(errors.weighted(self.recipe.loss).values())).sum()
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return flat_gradients(parameters, gradients), errors, float(loss.detach())

    def one_step(self, step: int, batch: Batch) -> float:
        """Learn from one batch of this process; returns its loss."""
        flat, errors, loss = self.gradient(step, batch)
        self.team.mean(flat)
        norm = self.optimiser.step(step, as_named(flat, self.weights))
        self._publish()
        decay = self.recipe.average
        if not self.recipe.start:  # the average must forget the starting values
            decay = min(decay, (step + 1) / (step + 10))
        for name, value in self.weights.items():
            self.average[name].lerp_(value, 1 - decay)
        self.progress.step = step + 1
        self.progress.frames += batch.image.shape[0] * batch.image.shape[1] * self.team.size
        if self.team.rank == 0:
            stage, _ = self.recipe.stage_at(step)
            record = {"step": step, "stage": stage.name, "loss": loss, "norm": norm}
            self._log(record | {name: float(part.detach()) for name, part in vars(errors).items()})
        return loss

    @torch.no_grad()
    def _publish(self) -> None:
        """Copy the float32 weights into the network, which may be of lower precision."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.weights[name])

    def averaged(self) -> Cut3r:
        """A float32 network with the averaged weights."""
        model = Cut3r(self.recipe.network)
        model.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return model.eval()

    def _log(self, record: dict) -> None:
        record["seconds"] = round(self.progress.seconds, 1)
        record["frames"] = self.progress.frames
        with (self.folder / LOG).open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(record) + "\n")

    def save(self) -> None:
        """Write the checkpoint; it replaces the last one only when it is complete."""
        optimiser = self.team.collect(self.optimiser.state())
        if self.team.rank:
            return
        tensors = {f"weight.{name}": value for name, value in self.weights.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"optimiser.{name}": value for name, value in optimiser.items()}
        header = {key: str(value) for key, value in vars(self.progress).items()}
        ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        write_atomically(self.checkpoint, lambda path: save_file(ready, path, header))

    @torch.no_grad()
    def _resume(self) -> None:
        """Take up weights, averages and optimiser from the checkpoint."""
        try:
            tensors = load_file(self.checkpoint)
            with safe_open(self.checkpoint, framework="pt") as file:
                header = file.metadata()
        except SafetensorError as error:
            raise InputError(
                f"{self.checkpoint} is damaged ({error}); delete it to start again"
            ) from error
        self.progress = Progress(
            int(header["step"]), float(header["seconds"]), int(header["frames"])
        )
        for name, value in self.weights.items():
            saved = tensors.get(f"weight.{name}")
            if saved is None or saved.shape != value.shape:
                raise InputError(f"{self.checkpoint} is of another network; use another folder")
            value.copy_(saved)
            self.average[name].copy_(tensors[f"average.{name}"])
        prefix = "optimiser."
        self.optimiser.restore(
            {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
        )


def gradient_norms(parts: dict[str, Tensor], of: list[nn.Parameter]) -> dict[str, float]:
    """Norm of the gradient of each part of a loss in some weights; to balance the parts by."""
    norms = {}
    for name, part in parts.items():
        if not part.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(part, of, allow_unused=True, retain_graph=True)
        squares = [g.float().square().sum() for g in gradients if g is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms
