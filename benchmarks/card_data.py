"""What the model card is measured on: held-out clips and streams, and the training set's depths."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ttt3r.evaluation.baselines import best_constant_depth, mean_depth_image
from ttt3r.evaluation.sequences import ArraySequence, TrueFrame
from ttt3r.files import write_atomically
from ttt3r.scenes.clip import Scene, SceneOptions, make_clip
from ttt3r.training import cache

STREAM_SEEDS = cache.TEST_SEEDS + 1000
WORLDS = ("room", "interior", "desktop", "corridor")
STYLES = ("hand", "walk", "orbit", "pan")  # all of them are periodic
STREAM_FRAMES = 1000  # of the path, however many are measured
PART = 32  # frames per file
FARTHEST = 60.0  # metres; true depths of this value and beyond do not count
TRAINING_STEP = 4  # every fourth row and column counts for the best constant


def clip(seed: int, frames: int, size: tuple[int, int]) -> ArraySequence:
    """A held-out synthetic clip, rendered now."""
    rendered = make_clip(seed, frames, size)
    return ArraySequence(
        f"clip {seed}",
        rendered.image.numpy(),
        rendered.depth.numpy(),
        rendered.world_from_camera.double().numpy(),
        rendered.intrinsics.numpy(),
    )


@dataclass(frozen=True)
class RenderedStream:
    """A long held-out stream, rendered to files of `PART` frames and read from them one by one.

    Attributes:
        folder: where the files are.
        seed: of the scene, the world and the style.
        size: (height, width).
        frames: how many of the path's frames belong to the sequence.
    """

    folder: Path
    seed: int
    size: tuple[int, int]
    frames: int

    @property
    def name(self) -> str:
        """What to call it."""
        return f"stream {self.seed}"

    @property
    def options(self) -> SceneOptions:
        """What it shows: an indoor world and a periodic path, both drawn by the seed; no motion."""
        random = np.random.default_rng([self.seed, 0x57])
        return SceneOptions(
            world=str(random.choice(WORLDS)), style=str(random.choice(STYLES)), moving=0.0
        )

    def path(self, start: int) -> Path:
        """The file of the part that begins with frame `start`."""
        height, width = self.size
        return self.folder / f"{self.seed}-{width}x{height}-{start:04d}.safetensors"

    def missing(self) -> list[int]:
        """First frames of the parts that are still to be rendered."""
        return [s for s in range(0, self.frames, PART) if not self.path(s).is_file()]

    def render(self) -> None:
        """Render the parts that are missing."""
        torch.set_num_threads(1)
        starts = self.missing()
        if not starts:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        scene = Scene(self.seed, STREAM_FRAMES, self.size, self.options)
        for start in starts:
            part = scene.frames(start, start + PART)
            tensors = {
                "image": part.image,
                "depth": part.depth.clamp(max=6e4).half(),
                "world_from_camera": part.world_from_camera,
                "intrinsics": part.intrinsics,
            }
            packed = {key: tensor.contiguous() for key, tensor in tensors.items()}
            write_atomically(self.path(start), lambda file, t=packed: save_file(t, file))

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[TrueFrame]:
        for start in range(0, self.frames, PART):
            part = load_file(self.path(start))
            for i in range(min(PART, self.frames - start)):
                yield TrueFrame(
                    image=part["image"][i].numpy(),
                    timestamp=float(start + i),
                    depth=part["depth"][i].float().numpy(),
                    world_from_camera=part["world_from_camera"][i].double().numpy(),
                    intrinsics=part["intrinsics"][i].numpy(),
                )


def render_streams(streams: Sequence[RenderedStream], workers: int) -> None:
    """Render what is missing of the streams; what is there is kept."""
    todo = [stream for stream in streams if stream.missing()]
    if workers <= 1 or len(todo) <= 1:
        for stream in todo:
            stream.render()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(RenderedStream.render, todo))


@dataclass(frozen=True)
class TrainingDepth:
    """What the training set alone says about depth.

    Attributes:
        clips: how many training clips were looked at.
        constant: the constant with the least mean relative error on them, metres.
        image: mean of their depth maps, metres, [height, width].
    """

    clips: int
    constant: float
    image: np.ndarray


def training_depth(
    work: Path, cached: Path, clips: int, size: tuple[int, int], frames: int = 8
) -> TrainingDepth:
    """Return the statistics of the first training clips, from `work` if they are there.

    Shards that the training left in `cached` are read; others are rendered into `work`.
    """
    path = work / f"training-depth-{clips}-{size[1]}x{size[0]}.npz"
    if not path.is_file():
        wanted = cache.shards(cache.TRAINING_SEEDS, clips, frames, size)
        own = work / "training-clips"
        folders = [cached if (cached / shard.name).is_file() else own for shard in wanted]
        cache.ensure(own, [s for s, f in zip(wanted, folders, strict=True) if f == own], 1)

        def maps(step: int = 1) -> Iterator[np.ndarray]:
            for shard, folder in zip(wanted, folders, strict=True):
                for clip_maps in cache.read(folder, shard)["depth"]:
                    yield from clip_maps[:, ::step, ::step].float().numpy()

        constant = best_constant_depth(maps(TRAINING_STEP), FARTHEST)
        image = mean_depth_image(maps(), *size, FARTHEST)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, constant=constant, image=image)

        write_atomically(path, write)
    with np.load(path) as stored:
        return TrainingDepth(clips, float(stored["constant"]), stored["image"])


def weights_facts(model: Any, source: str) -> dict[str, Any]:
    """Name, licence, sizes and history of a set of weights, as far as they are known."""
    config, info = model.config, model.weights
    state = model.initial_state(_overwrite())
    history = _metadata(source)
    facts = {key: history.get(key) or "unknown" for key in ("recipe", "commit", "machine")}
    return facts | {
        "frames_trained": _number(history.get("frames")),
        "seconds_trained": _number(history.get("seconds")),
        "name": info.name,
        "sha256": info.sha256,
        "licence": info.licence,
        "origin": info.origin,
        "trained": info.trained,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "image_size": model.image_policy.size,
        "patch_size": config.patch_size,
        "state_tokens": config.state_size,
        "state_bytes": sum(t.numel() * t.element_size() for t in state.to_tensors().values()),
        "encoder": f"{config.encoder_depth} blocks of {config.encoder_dim} channels",
        "decoders": f"two of {config.decoder_depth} blocks of {config.decoder_dim} channels",
        "head": config.head,
    }


def _overwrite() -> Any:
    from ttt3r import rules

    return rules.parse("overwrite")


def _metadata(source: str) -> dict[str, str]:
    """What the safetensors file behind a name or path says of its training; {} if nothing.

    `ttt3r.training.pack` writes it as JSON under "training"; single keys are read as well.
    """
    from ttt3r.weights.catalogue import CATALOGUE, find_on_disk

    path = Path(source)
    if source in CATALOGUE:
        path = find_on_disk(CATALOGUE[source]) or path
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file() or path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        found = dict(file.metadata() or {})
    with contextlib.suppress(ValueError, TypeError):
        found |= json.loads(found.pop("training", "{}"))
    return {key: str(value) for key, value in found.items()}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
