"""Where batches come from: clips rendered to disk once, or fresh ones rendered on the device."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from ttt3r.scenes.clip import Clip, make_clip
from ttt3r.training.cache import TRAINING_SEEDS, VALIDATION_SEEDS, ensure, shards
from ttt3r.training.data import Batch, Clips, draw_batch
from ttt3r.training.recipe import ClipSet, Recipe, Stage

logger = logging.getLogger("ttt3r.training")


def _turned(stage: Stage, generator: torch.Generator) -> tuple[int, int]:
    """The stage's image size, or its portrait form for some batches."""
    height, width = stage.size
    is_turned = float(torch.rand((), generator=generator)) < stage.portrait
    return (width, height) if is_turned else (height, width)


def open_clips(
    folder: Path, wanted: Sequence[ClipSet], size: tuple[int, int], seeds: int, workers: int
) -> Clips:
    """Render what is missing of sets of clips, and open them together."""
    parts = [
        shard
        for one in wanted
        for shard in shards(seeds + one.first_seed, one.clips, one.frames, size, stride=one.stride)
    ]
    ensure(folder, parts, workers)
    return Clips(folder, parts)


class DiskFeed:
    """Draws from clips on disk, rendering each set when a stage first asks for it.

    Args:
        recipe: names the sets.
        folder: the cache.
        workers: processes that render.
    """

    def __init__(self, recipe: Recipe, folder: Path, workers: int = 2) -> None:
        self.recipe, self.folder, self.workers = recipe, folder, workers
        self.sets: dict[tuple[str, ...], Clips] = {}

    def __call__(self, stage: Stage, generator: torch.Generator) -> Batch:
        """Draw the batch of one step."""
        if stage.clips not in self.sets:
            wanted = [self.recipe.clip_sets[name] for name in stage.clips]
            logger.info("opening %d clips", sum(one.clips for one in wanted))
            self.sets[stage.clips] = open_clips(
                self.folder, wanted, self.recipe.image, TRAINING_SEEDS, self.workers
            )
        size = _turned(stage, generator)
        clips = self.sets[stage.clips]
        return draw_batch(clips, stage.batch, stage.frames, size, generator, stage.span)

    def validation(self) -> Clips:
        """The clips that measure progress."""
        wanted, size = self.recipe.validation, self.recipe.image
        return open_clips(self.folder, [wanted], size, VALIDATION_SEEDS, self.workers)


class Pool(Clips):
    """A ring of clips in memory, of which the oldest are replaced by newly rendered ones.

    Args:
        wanted: sets whose clips take turns; their sizes together are the pool's.
        size: (height, width) of the frames.
        device: where to render.
    """

    def __init__(
        self, wanted: Sequence[ClipSet], size: tuple[int, int], device: torch.device | str
    ) -> None:
        self.wanted, self.size, self.device = wanted, size, device
        self.parts: list[dict[str, Tensor]] = []
        self.index: list[tuple[int, int]] = []
        self.capacity = sum(one.clips for one in wanted)
        self.rendered = 0

    def grow(self, clips: int) -> None:
        """Render so many clips more."""
        for _ in range(clips):
            turn, of = divmod(self.rendered, len(self.wanted))
            one = self.wanted[of]
            seed = TRAINING_SEEDS + one.first_seed + turn
            clip = make_clip(seed, one.frames, self.size, device=self.device, stride=one.stride)
            part = {field.name: getattr(clip, field.name)[None] for field in fields(Clip)}
            if len(self.parts) < self.capacity:
                self.index.append((len(self.parts), 0))
                self.parts.append(part)
            else:
                self.parts[self.rendered % self.capacity] = part
            self.rendered += 1


class DeviceFeed(DiskFeed):
    """Draws from a pool of clips that is renewed all the time.

    Args:
        recipe: names the sets; `clips` of a set is the size of its pool.
        folder: the cache, for validation clips only.
        device: where to render.
        first: clips to render before the first step.
        each: clips to render for every step.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device | str,
        first: int = 64,
        each: int = 1,
    ) -> None:
        super().__init__(recipe, folder)
        self.device, self.first, self.each = device, first, each

    def __call__(self, stage: Stage, generator: torch.Generator) -> Batch:
        """Draw the batch of one step."""
        if stage.clips not in self.sets:
            wanted = [self.recipe.clip_sets[name] for name in stage.clips]
            pool = Pool(wanted, self.recipe.image, self.device)
            pool.grow(min(self.first, pool.capacity))
            self.sets[stage.clips] = pool
        pool = self.sets[stage.clips]
        assert isinstance(pool, Pool)
        pool.grow(self.each)
        size = _turned(stage, generator)
        return draw_batch(pool, stage.batch, stage.frames, size, generator, stage.span)
