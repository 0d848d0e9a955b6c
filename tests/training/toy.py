"""A recipe of toy size, and clips in memory."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.training.loop import Trainer
from ttt3r.training.recipe import Clips, Recipe, Stage
from ttt3r.training.shards import Settings, ShardClip, render_clip
from ttt3r.training.team import Team

SIZE = (32, 48)
NETWORK = Cut3rConfig(
    image_size=64,
    stem=(8, 8, 8),
    encoder_dim=64,
    encoder_depth=1,
    encoder_heads=2,
    ray_encoder_depth=1,
    ray_encoder_heads=2,
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=2,
    state_heads=2,
    state_size=6,
    state_width=3,
    memory_size=4,
    memory_depth=1,
    head="linear",
)


@dataclass
class Memory:
    """Rendered clips that lie in memory."""

    clips: list[ShardClip]

    @property
    def frames(self) -> int:
        return len(self.clips[0].image)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> ShardClip:
        return self.clips[number]

    @staticmethod
    def render(first_seed: int, count: int, frames: int) -> "Memory":
        settings = Settings(frames, SIZE, samples=1, fastest=1, renderer="torch")
        seeds = range(first_seed, first_seed + count)
        return Memory([ShardClip(**render_clip(settings, seed, lambda: False)) for seed in seeds])


def recipe(pairs: int = 60, triplets: int = 6) -> Recipe:
    return Recipe(
        name="toy",
        seed=3,
        network=NETWORK,
        size=SIZE,
        clips=Clips(count=6, frames=4, validation=4, validation_frames=4),
        stages=(
            Stage("pairs", pairs, 2, 4, (1, 3), ("overwrite",)),
            Stage("triplets", triplets, 3, 3, (3, 3)),
        ),
        learning_rate=2e-3,
        warmup=10,
        precision="float32",
    )


def trainer(
    folder: Path, clips: Memory, of: Recipe | None = None, team: Team | None = None
) -> Trainer:
    torch.set_num_threads(1)
    return Trainer(of or recipe(), folder, clips, team)
