"""Shards: rendered clips as plain arrays, which a training maps from disk while more are rendered.

The files of a shard, whose first clip has the seed SEED, are

* `SEED.image.npy`: uint8 [clips, frames, 3, height, width], RGB,
* `SEED.depth.npy`: float16 [clips, frames, height, width], z in metres, 0 where nothing is met,
* `SEED.npz`: `pose`, float64 [clips, frames, 4, 4], world from camera, and `intrinsics`, float32
  [clips, 3], the focal length, cx and cy in pixels. It is written last, so a shard that has it is
  whole.

`settings.json` holds what all shards of a folder have in common.
"""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8

from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.files import lock, to_json, write_atomically, write_text
from ttt3r.scenes.clip import Scene, SceneOptions
from ttt3r.training.seeds import LAST_SEED, TEST_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS

SETTINGS = "settings.json"
FRAMES_AT_ONCE = 8
OPEN = 64  # shards whose files stay open; systems allow a process about 1000 files
DEEPEST = 6e4  # metres; float16 ends soon after


@dataclass(frozen=True)
class Settings:
    """What all clips of a folder have in common.

    Attributes:
        frames: of each clip.
        size: (height, width) of the images.
        samples: rays along each side of a pixel.
        fastest: a clip shows every frame of its camera's path, or every second, up to this one;
            which is drawn for each clip, uniformly over the logarithm.
        moving: share of clips in which things move.
        degrees: range of the field of view along the longer side.
        renderer: "fast" or "torch".
        per_shard: clips of a shard.

    Raises:
        SettingError: if a number is out of range.
    """

    frames: int
    size: tuple[int, int]
    samples: int = 2
    fastest: int = 7
    moving: float = 0.2
    degrees: tuple[float, float] = (45.0, 100.0)
    renderer: str = "fast"
    per_shard: int = 16

    def __post_init__(self) -> None:
        if self.fastest < 1:
            raise SettingError(f"the fastest pace is 1 or more frames, not {self.fastest}")
        if self.per_shard < 1:
            raise SettingError(f"a shard holds one clip or more, not {self.per_shard}")
        self.scene(0, 1)  # which checks the rest

    def pace(self, seed: int) -> int:
        """Frames of the path from one frame of a clip to the next."""
        drawn = np.random.default_rng([seed, 0x57A6]).uniform(0, np.log(self.fastest + 0.49))
        return max(1, round(float(np.exp(drawn))))

    def scene(self, seed: int, pace: int) -> Scene:
        """The scene of a clip."""
        options = SceneOptions(moving=self.moving, degrees=self.degrees)
        length = (self.frames - 1) * pace + 1
        return Scene(seed, length, self.size, options, self.renderer, self.samples)


def parse_size(text: str) -> tuple[int, int]:
    """Read (height, width) from a text such as "96x128".

    Raises:
        SettingError: if it is anything else.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise SettingError(f"a size is a height and a width such as 96x128, not {text!r}")
    return int(match[1]), int(match[2])


def shards_of(settings: Settings, seed: int, clips: int, *, validation: bool = False) -> list[int]:
    """The first seeds of the shards that hold a range of clips, whole shards always.

    Args:
        settings: of the clips.
        seed: of the first clip, counted from the first seed for training, or for validation.
        clips: how many, rounded up.
        validation: whether these measure progress; their seeds are never those of training.

    Raises:
        SettingError: if there are not that many seeds, or shards would overlap with others.
    """
    first, end = TRAINING_SEEDS, LAST_SEED
    if validation:
        first, end = VALIDATION_SEEDS, TEST_SEEDS
    each = settings.per_shard
    if clips < 1:
        raise SettingError(f"render at least one clip, not {clips}")
    if seed < 0 or seed % each:
        raise SettingError(f"the seed is a multiple of {each}, the clips per shard, not {seed}")
    starts = list(range(first + seed, first + seed + clips, each))
    if starts[-1] + each > end:
        raise SettingError(f"there are {end - first} seeds; begin lower or render fewer clips")
    return starts


class _StoppedError(Exception):
    """Rendering was interrupted from outside."""


def render_clip(settings: Settings, seed: int, stop: Callable[[], bool]) -> dict[str, np.ndarray]:
    """The arrays of one clip, named as in the files."""
    pace = settings.pace(seed)
    scene = settings.scene(seed, pace)
    images, depths = [], []
    step = FRAMES_AT_ONCE * pace
    for start in range(0, len(scene), step):
        if stop():
            raise _StoppedError
        clip = scene.frames(start, start + step, every=pace)
        images.append(clip.image.movedim(-1, 1).numpy())
        depths.append(clip.depth.clamp(max=DEEPEST).half().numpy())
    return {
        "image": np.concatenate(images),
        "depth": np.concatenate(depths),
        "pose": scene.poses[::pace],
        "intrinsics": scene.intrinsics[[0, 0, 1], [0, 2, 2]].numpy(),
    }


def write_shard(
    folder: Path, settings: Settings, first_seed: int, stop: Callable[[], bool]
) -> None:
    """Render a shard and write its files, the telling one last."""
    seeds = range(first_seed, first_seed + settings.per_shard)
    clips = [render_clip(settings, seed, stop) for seed in seeds]
    arrays = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}

    def write(path: Path, save: Callable, *values: np.ndarray, **named: np.ndarray) -> None:
        def fill(partial: Path) -> None:
            with partial.open("wb") as file:  # given a name, numpy would add an ending
                save(file, *values, **named)

        write_atomically(path, fill)

    for name in ("image", "depth"):
        write(folder / f"{first_seed}.{name}.npy", np.save, arrays[name])
    named = {name: arrays[name] for name in ("pose", "intrinsics")}
    write(folder / f"{first_seed}.npz", np.savez, **named)


@contextmanager
def _settled(folder: Path, settings: Settings) -> Iterator[None]:
    """Hold a folder for writing shards of these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder / ".lock")
    if held is None:
        raise RunError(f"another program renders into {folder}; wait for it or stop it")
    with held:
        path, wanted = folder / SETTINGS, json.loads(to_json(asdict(settings)))
        if not path.exists():
            write_atomically(path, lambda partial: write_text(partial, to_json(wanted, 2)))
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is damaged; choose another folder") from error
        if found != wanted:
            raise SettingError(
                f"{folder} holds clips of other settings, see {path}; choose another"
            )
        yield


def render_shards(
    folder: Path,
    settings: Settings,
    first_seeds: Sequence[int],
    workers: int = 1,
    done: Callable[[int, float], object] = lambda first_seed, seconds: None,
) -> None:
    """Render the shards that are not there yet; those that are stay.

    An interruption (Ctrl-C) leaves no half-written shard; the same call goes on later.

    Args:
        folder: receives the files.
        settings: of the clips.
        first_seeds: the shards, from `shards_of`.
        workers: processes that render.
        done: called for each shard that is ready: its first seed, seconds since the last one.

    Raises:
        SettingError: if the folder holds clips of other settings.
        RunError: if another program renders into the folder.
    """
    with _settled(folder, settings):
        missing = [seed for seed in first_seeds if not (folder / f"{seed}.npz").exists()]
        since = time.monotonic()
        for first_seed in _rendered(folder, settings, missing, min(workers, len(missing))):
            done(first_seed, time.monotonic() - since)
            since = time.monotonic()


def _rendered(
    folder: Path, settings: Settings, first_seeds: Sequence[int], workers: int
) -> Iterator[int]:
    """Write shards, and give each that is ready."""
    if workers <= 1:
        for first_seed in first_seeds:
            write_shard(folder, settings, first_seed, lambda: False)
            yield first_seed
        return
    context = get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _begin, (stop,)) as pool:
        try:
            with _deaf_to_interrupts():  # as the processes are that start now, from the beginning
                futures = {pool.submit(_work, folder, settings, seed): seed for seed in first_seeds}
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others cannot change it
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_stop: list[Callable[[], bool]] = []  # of this process, if it is a worker


def _begin(stop: Any) -> None:
    torch.set_num_threads(1)
    _stop.append(stop.is_set)


def _work(folder: Path, settings: Settings, first_seed: int) -> None:
    write_shard(folder, settings, first_seed, _stop[0])


@dataclass(frozen=True)
class ShardClip:
    """One clip; images and depth are on disk until they are indexed.

    Attributes:
        image: RGB.
        depth: z, metres; 0 where nothing is met.
        pose: world from camera.
        intrinsics: focal length, cx, cy in pixels.
    """

    image: UInt8[np.ndarray, "frames 3 height width"]
    depth: Float16[np.ndarray, "frames height width"]
    pose: Float[np.ndarray, "frames 4 4"]
    intrinsics: Float[np.ndarray, "3"]


class Shards:
    """The clips of a folder, to which others may still be added.

    Args:
        folder: where shards are.

    Raises:
        InputError: if there is no shard yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        self._rows: list[tuple[str, int]] = []
        self._tables: dict[str, dict[str, np.ndarray]] = {}
        self._mapped = lru_cache(OPEN)(self._map)
        if not self.refresh():
            raise InputError(f"there are no shards in {folder}; render some first")

    def __len__(self) -> int:
        return len(self._rows)

    def refresh(self) -> int:
        """Look for shards that have come since; clips known before keep their numbers.

        Returns how many clips are new.

        Raises:
            InputError: if a file is damaged.
        """
        before = len(self)
        for path in sorted(self.folder.glob("*.npz")):
            if path.stem not in self._tables:
                table = self._table(path)
                self._tables[path.stem] = table
                self._rows += [(path.stem, row) for row in range(len(table["pose"]))]
        return len(self) - before

    def __getitem__(self, number: int) -> ShardClip:
        name, row = self._rows[number]
        image, depth = self._mapped(name)
        table = self._tables[name]
        return ShardClip(image[row], depth[row], table["pose"][row], table["intrinsics"][row])

    @property
    def frames(self) -> int:
        """Frames of each clip."""
        return self[0].image.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width = self[0].image.shape[2:]
        return height, width

    def _table(self, path: Path) -> dict[str, np.ndarray]:
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                return {name: file[name] for name in ("pose", "intrinsics")}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise self._damaged(path.stem) from error

    def _map(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            paths = [self.folder / f"{name}.{what}.npy" for what in ("image", "depth")]
            image, depth = (np.load(path, mmap_mode="r") for path in paths)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(name) from error
        if not image.shape[:2] == depth.shape[:2] == self._tables[name]["pose"].shape[:2]:
            raise self._damaged(name)
        return image, depth

    def _damaged(self, name: str) -> InputError:
        return InputError(f"shard {name} in {self.folder} is damaged; delete its files")
