"""Rendered clips on disk: rendering costs more than a training step, so each clip is used often.

A cache is a folder of shards, one file for some tens of clips; a shard that is there is not
rendered again, so an interrupted rendering goes on where it stopped.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttt3r.files import write_atomically
from ttt3r.scenes.clip import Clip, SceneOptions, make_clip

# Seeds are kept apart by what they are for; nothing is ever chosen by looking at test scenes.
TRAINING_SEEDS = 1_000_000
VALIDATION_SEEDS = 2_000_000
TEST_SEEDS = 3_000_000


@dataclass(frozen=True)
class Shard:
    """Clips of consecutive seeds.

    Attributes:
        first_seed: seed of the first clip.
        clips: number of clips.
        frames: frames per clip.
        size: (height, width).
        moving: share of clips in which things move.
        stride: frames of the path from one frame of a clip to the next.
    """

    first_seed: int
    clips: int
    frames: int
    size: tuple[int, int]
    moving: float = 0.2
    stride: int = 1

    @property
    def name(self) -> str:
        """File name."""
        height, width = self.size
        pace = "" if self.stride == 1 else f"by{self.stride}"
        return f"{self.first_seed}-{self.clips}x{self.frames}{pace}-{width}x{height}.safetensors"

    def render(self) -> dict[str, Tensor]:
        """Render all clips, stacked."""
        options = SceneOptions(moving=self.moving)
        clips = [
            make_clip(seed, self.frames, self.size, options, stride=self.stride)
            for seed in range(self.first_seed, self.first_seed + self.clips)
        ]
        stacked = {
            field.name: torch.stack([getattr(clip, field.name) for clip in clips])
            for field in fields(Clip)
        }
        return stacked | {"depth": stacked["depth"].clamp(max=6e4).half()}


def shards(
    first_seed: int,
    clips: int,
    frames: int,
    size: tuple[int, int],
    per_shard: int = 50,
    moving: float = 0.2,
    stride: int = 1,
) -> list[Shard]:
    """Cut a range of seeds into shards."""
    return [
        Shard(first_seed + start, min(per_shard, clips - start), frames, size, moving, stride)
        for start in range(0, clips, per_shard)
    ]


def _make(shard: Shard, folder: Path) -> str:
    torch.set_num_threads(1)
    path = folder / shard.name
    if not path.exists():
        tensors = shard.render()
        write_atomically(path, lambda partial: save_file(tensors, partial))
    return shard.name


def ensure(folder: Path, wanted: Sequence[Shard], workers: int = 2) -> None:
    """Render the shards that are missing, in `workers` processes; those present are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in wanted if not (folder / shard.name).exists()]
    if workers <= 1 or len(missing) <= 1:
        for shard in missing:
            _make(shard, folder)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_make, missing, [folder] * len(missing)):
            pass


def read(folder: Path, shard: Shard) -> dict[str, Tensor]:
    """Return a shard's tensors, mapped from disk."""
    return load_file(folder / shard.name)
