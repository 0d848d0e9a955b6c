"""The training loop: pairs and clips, averaged weights, checkpoints that survive a kill.

Every random choice of a step follows from the recipe's seed and the number of the step, so a
training that was interrupted goes on as if it had not been.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttt3r import rules
from ttt3r.errors import InputError
from ttt3r.files import lock, write_atomically
from ttt3r.geometry.camera import ray_map
from ttt3r.models.base import Tokens, Views
from ttt3r.models.cut3r import Cut3r
from ttt3r.models.cut3r_state import state_positions
from ttt3r.training.data import Batch, relative_to_first
from ttt3r.training.initial import initialise
from ttt3r.training.losses import frame_loss
from ttt3r.training.matching import MatchingProbe, matches
from ttt3r.training.recipe import Recipe, Stage

CHECKPOINT = "checkpoint.safetensors"
Draw = Callable[[Stage, torch.Generator], Batch]


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step."""
    return torch.Generator().manual_seed(seed * 1_000_000_007 + step)


def outputs_of(stage: Stage) -> tuple[str, ...]:
    """What the loss of a stage needs of the network."""
    return ("points", "pose", "world", *(("rgb",) if stage.loss.rgb > 0 else ()))


def pair_loss(model: Cut3r, batch: Batch, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of two-frame clips, each frame read against the other."""
    count = len(batch.image)
    tokens = model.encode(Views(image=torch.cat((batch.image[:, 0], batch.image[:, 1]))))
    first = Tokens(tokens.features.roll(count, 0), tokens.size, tokens.has_image)
    reverse = backwards(batch)
    patch = model.config.patch_size
    probe = MatchingProbe(torch.cat((matches(reverse, patch), matches(batch, patch))))
    output = model.compare(first, tokens, outputs_of(stage), probe)
    there, back = batch.target(1), reverse.target(1)
    pairs = zip(vars(back).values(), vars(there).values(), strict=True)
    target = replace(there, **dict(zip(vars(there), map(torch.cat, pairs), strict=True)))
    loss, parts = frame_loss(output, target, stage.loss)
    matching = probe.loss()
    parts["matching"] = matching.detach()
    return loss + stage.loss.matching * matching, parts


def backwards(batch: Batch) -> Batch:
    """The same clips with time reversed, relative to what is now the first frame."""
    flipped = [value.flip(1) for value in vars(batch).values()]
    turned = Batch(*flipped)
    return replace(turned, world_from_camera=relative_to_first(turned.world_from_camera))


def clip_loss(
    model: Cut3r, batch: Batch, stage: Stage, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss over the frames of clips, streamed through the state."""
    count, frames = batch.image.shape[:2]
    pick = int(torch.randint(len(stage.rules), (), generator=generator))
    rule = rules.parse(stage.rules[pick])
    draw = torch.rand(frames, count, generator=generator).to(batch.image.device)
    draw[0] = 1.0  # the first frame is always seen
    all_tokens = model.encode(Views(image=batch.image.flatten(0, 1)))
    features = all_tokens.features.unflatten(0, (count, frames))
    state = model.initial_state(rule, count)
    total, parts = batch.image.new_zeros(()), []
    for frame in range(frames):
        tokens = Tokens(features[:, frame], all_tokens.size, draw[frame] >= stage.rays * 0.75)
        if stage.rays > 0 and frame > 0:
            rays = ray_map(
                batch.world_from_camera[:, frame], batch.intrinsics[:, frame], all_tokens.size
            )
            given = Views(batch.image[:, frame], rays, tokens.has_image, draw[frame] < stage.rays)
            tokens = model.encode(given, absent="token")
        probe = state_probe(model, batch, frame) if frame and stage.loss.matching else None
        state, output = model.step(state, tokens, rule, outputs_of(stage), image_probe=probe)
        loss, part = frame_loss(output, batch.target(frame), stage.loss)
        if probe is not None:
            matching = probe.loss()
            loss = loss + stage.loss.matching * matching
            part["matching"] = matching.detach()
        total = total + loss / frames
        parts.append(part)
    later = parts[1:]  # the first frame's pose is trivial
    return total, {name: torch.stack([p[name] for p in later]).mean() for name in later[0]}


def state_probe(model: Cut3r, batch: Batch, frame: int) -> MatchingProbe | None:
    """Lets state tokens stand for the patches of the first frame at their own places.

    None if the state's grid is too small for the frame's patches.
    """
    patch, places = model.config.patch_size, state_positions(model.config.state_size)
    rows, columns = (int(side) // patch for side in batch.image.shape[-2:])
    width = int(places[:, 1].max()) + 1
    if columns > width or rows * width > len(places):
        return None
    return MatchingProbe(matches(batch, patch, frame, width))


@dataclass
class Progress:
    """Where a training stands."""

    step: int = 0
    seconds: float = 0.0
    frames: int = 0


class Trainer:
    """Trains a network by a recipe, in a folder.

    Args:
        recipe: what to do.
        folder: receives `log.jsonl` and `checkpoint.safetensors`; a checkpoint there is resumed.
        draw: makes the batch of a stage.
        device: where to train.
        workers: threads that share the batch of a step; for CPUs, where two single-threaded workers
            outrun one with two threads, as products are small.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        draw: Draw,
        device: torch.device | str = "cpu",
        workers: int = 1,
    ) -> None:
        self.recipe, self.folder, self.draw, self.device = recipe, folder, draw, device
        self.pool = ThreadPoolExecutor(workers)
        self.workers = workers
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        model = Cut3r(recipe.network)
        initialise(model, recipe.seed)
        self.model = model.to(device)
        self.master = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.average = {name: p.clone() for name, p in self.master.items()}
        decayed = [p for p in self.master.values() if p.ndim > 1]
        plain = [p for p in self.master.values() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
        for parameter in self.master.values():
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        if recipe.precision == "bfloat16":
            self.model.set_precision(torch.bfloat16)
        if recipe.compile:
            for block in (
                *self.model.enc_blocks,
                *self.model.dec_blocks,
                *self.model.dec_blocks_state,
            ):
                block.compile(dynamic=True)
        self.progress = Progress()
        if self.checkpoint.exists():
            self._resume()
        self._publish()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return self.folder / CHECKPOINT

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.recipe.stages)

    def stage_at(self, step: int) -> tuple[Stage, int]:
        """The stage that a step belongs to, and the number of the step in it."""
        for stage in self.recipe.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise InputError("the recipe has no such step")

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a tenth."""
        stage, within = self.stage_at(step)
        rise = min(1.0, (within + 1) / max(stage.warmup, 1))
        fall = 0.55 + 0.45 * math.cos(math.pi * within / stage.steps)
        return stage.learning_rate * rise * fall

    def run(
        self, steps: int | None = None, minutes: float = math.inf, save_every: int = 250
    ) -> None:
        """Train until the end of the recipe, of `steps`, or of the time; save on the way.

        Raises:
            InputError: if another process is training in the same folder.
        """
        held = lock(self.folder / "lock")
        if held is None:
            raise InputError(f"another process is training in {self.folder}")
        last = self.total_steps if steps is None else min(self.total_steps, steps)
        began, end = time.monotonic(), time.monotonic() + 60 * minutes
        already = self.progress.seconds
        with held, ThreadPoolExecutor(1) as ahead:
            for step, batch in self._batches(ahead, last):
                self.one_step(step, batch)
                self.progress.seconds = already + time.monotonic() - began
                finished = time.monotonic() > end or step + 1 == last
                if (step + 1) % save_every == 0 or finished:
                    self.save()
                if finished:
                    break

    def _batches(self, ahead: ThreadPoolExecutor, last: int) -> Iterator[tuple[int, Batch]]:
        """Batches of the coming steps, each drawn while the one before is used."""
        steps = range(self.progress.step, last)

        def draw(step: int) -> Batch:
            return self.draw(self.stage_at(step)[0], step_generator(self.recipe.seed, step))

        coming = ahead.submit(draw, steps[0]) if steps else None
        for step in steps:
            assert coming is not None
            batch = coming.result()
            if step + 1 < last:
                coming = ahead.submit(draw, step + 1)
            yield step, batch.to(self.device)

    def one_step(self, step: int, batch: Batch) -> float:
        """Learn from one batch; returns the loss."""
        stage, _ = self.stage_at(step)
        shares = batch.split(self.workers)
        results = list(self.pool.map(self._gradients, [step] * len(shares), range(99), shares))
        loss = sum(float(result[0]) for result in results) / len(shares)
        parts = results[0][2]
        for index, parameter in enumerate(self.master.values()):
            found = [g.float() for r in results if (g := r[1][index]) is not None]
            parameter.grad = torch.stack(found).sum(0) / len(shares) if found else None
        values = list(self.master.values())
        norm = nn.utils.clip_grad_norm_(values, self.recipe.clip_gradient)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        if torch.isfinite(norm):  # a single broken batch must not end hours of work
            self.optimizer.step()
        self._publish()
        decay = min(self.recipe.ema, (step + 1) / (step + 10))
        for average, value in zip(self.average.values(), self.master.values(), strict=True):
            average.lerp_(value, 1 - decay)
        self.progress.step = step + 1
        self.progress.frames += batch.image.shape[0] * batch.image.shape[1]
        record = {"step": step, "stage": stage.name, "loss": loss, "norm": float(norm)}
        self._log(record | {name: float(value) for name, value in parts.items()})
        return loss

    def _gradients(
        self, step: int, share: int, batch: Batch
    ) -> tuple[Tensor, list[Tensor | None], dict[str, Tensor]]:
        """Loss, gradients and parts of the loss for one worker's share of a batch."""
        stage, _ = self.stage_at(step)
        if stage.task == "pairs":
            loss, parts = pair_loss(self.model, batch, stage)
        else:
            generator = step_generator(self.recipe.seed + 1 + share, step)
            loss, parts = clip_loss(self.model, batch, stage, generator)
        weights = list(self.model.parameters())
        return loss.detach(), list(torch.autograd.grad(loss, weights, allow_unused=True)), parts

    @torch.no_grad()
    def _publish(self) -> None:
        """Copy the float32 weights into the network, which may be of lower precision."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.master[name])

    def averaged(self) -> Cut3r:
        """A float32 network with the averaged weights."""
        model = Cut3r(self.recipe.network)
        model.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return model.eval()

    def _log(self, record: dict) -> None:
        record["seconds"] = round(self.progress.seconds, 1)
        record["frames"] = self.progress.frames
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def save(self) -> None:
        """Write the checkpoint; it replaces the last one only when it is complete."""
        tensors = {}
        for name, parameter in self.master.items():
            state = self.optimizer.state[parameter]
            tensors[f"weight.{name}"] = parameter
            tensors[f"average.{name}"] = self.average[name]
            tensors[f"first.{name}"] = state["exp_avg"]
            tensors[f"second.{name}"] = state["exp_avg_sq"]
            tensors[f"count.{name}"] = state["step"]
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
                f"{self.checkpoint} is damaged ({error}); delete it to begin anew"
            ) from error
        self.progress = Progress(
            int(header["step"]), float(header["seconds"]), int(header["frames"])
        )
        for name, parameter in self.master.items():
            if (
                f"weight.{name}" not in tensors
                or tensors[f"weight.{name}"].shape != parameter.shape
            ):
                raise InputError(f"{self.checkpoint} is of another network; use another folder")
            parameter.copy_(tensors[f"weight.{name}"])
            self.average[name].copy_(tensors[f"average.{name}"])
            state = self.optimizer.state[parameter]
            state["exp_avg"].copy_(tensors[f"first.{name}"])
            state["exp_avg_sq"].copy_(tensors[f"second.{name}"])
            state["step"].copy_(tensors[f"count.{name}"])
