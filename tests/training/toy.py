"""A recipe of toy size."""

from dataclasses import replace
from pathlib import Path

import torch

from ttt3r.models.cut3r_config import Cut3rConfig
from ttt3r.training.feed import DiskFeed
from ttt3r.training.loop import Trainer
from ttt3r.training.losses import LossWeights
from ttt3r.training.recipe import ClipSet, Recipe, Stage

NETWORK = Cut3rConfig(
    image_size=64,
    stem=(8, 8, 8),
    encoder_dim=32,
    encoder_depth=1,
    encoder_heads=2,
    ray_encoder_depth=1,
    ray_encoder_heads=2,
    decoder_dim=32,
    decoder_depth=2,
    decoder_heads=2,
    state_heads=2,
    state_size=12,
    memory_size=4,
    memory_depth=1,
    head="linear",
)


def recipe(pairs: int = 200, clips: int = 30) -> Recipe:
    first = Stage("pairs", "pairs", pairs, 4, 2, (32, 48), ("few",), 2e-3, warmup=10)
    second = replace(
        first,
        name="clips",
        task="clips",
        steps=clips,
        frames=3,
        rays=0.3,
        loss=LossWeights(rgb=0.3),
    )
    return Recipe(
        name="toy",
        seed=3,
        network=NETWORK,
        image=(32, 48),
        clip_sets={"few": ClipSet(6, 4)},
        validation=ClipSet(4, 4),
        stages=(first, second),
        precision="float32",
    )


def trainer(folder: Path, cache: Path, of: Recipe | None = None, workers: int = 1) -> Trainer:
    torch.set_num_threads(1)
    of = of or recipe()
    return Trainer(of, folder, DiskFeed(of, cache, workers=1), workers=workers)
