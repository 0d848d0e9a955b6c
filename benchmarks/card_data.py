"""What the model card says of the weights themselves, and what is rendered to measure them on."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ttt3r import rules
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.datasets.synthetic import Synthetic
from ttt3r.evaluation.sequences import Item, Sequence, TrueFrame
from ttt3r.files import write_atomically
from ttt3r.scenes.clip import Clip, make_clip
from ttt3r.sources import prepare_frame
from ttt3r.stream.session import Session
from ttt3r.training.seeds import TEST_SEEDS, TRAINING_SEEDS
from ttt3r.types import Frame
from ttt3r.weights.catalogue import CATALOGUE, find_on_disk

CLIPS, CLIP_FRAMES, SIZE = 64, 16, (120, 160)  # size: height and width
FARTHEST = 60.0  # metres; true depths of this value and beyond count as unknown
MIB = 2.0**20


class Streams(Synthetic):
    """The synthetic streams; each frame is rendered once and kept in a file in the folder."""

    name = "kept-streams"
    renderer = "fast"

    def open(self, root: Path, sequence: str, selection: Selection) -> Sequence:
        """Open a stream; see `Synthetic.open`."""
        stream = super().open(root, sequence, replace(selection, task="depth"))

        def read(index: int) -> TrueFrame:
            return kept(root / f"{sequence}-{index:05d}.npz", lambda: stream.read(index))

        return Sequence(sequence, stream.items, read)


class HeldOut(Dataset):
    """Synthetic clips that no network of ours was trained on: every kind of world, some motion.

    Each frame is rendered once and kept in a file in the folder.
    """

    name = "held-out"
    title = "Held-out clips"
    page = "rendered by ttt3r itself"
    tree = "  (no folder is needed)"
    tasks = ("pose", "depth")
    names = tuple(f"clip-{number}" for number in range(CLIPS))
    needs_root = False

    def open(self, root: Path, sequence: str, selection: Selection) -> Sequence:
        """Open a clip.

        Raises:
            InputError: if there is none of this name.
        """
        if sequence not in self.names:
            raise InputError(f"there is no clip {sequence!r}; choose {self.names[0]} and so on")
        number = self.names.index(sequence)

        def read(index: int) -> TrueFrame:
            return kept(root / f"{sequence}-{index:05d}.npz", lambda: _frame(number, index))

        return Sequence(sequence, selection.pick(range(CLIP_FRAMES)), read)

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return nothing: frames are rendered, and do not lie in files."""
        return []


def kept(path: Path, render: Callable[[], TrueFrame]) -> TrueFrame:
    """Return the frame in a file; render and write it if there is none."""
    if not path.is_file():
        values = {k: v for k, v in asdict(render()).items() if v is not None}
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(partial: Path) -> None:
            with partial.open("wb") as file:  # given a path, numpy would append an ending
                np.savez(file, **values)

        write_atomically(path, write)
    with np.load(path) as stored:
        return TrueFrame(**{**stored, "timestamp": float(stored["timestamp"])})


@lru_cache(maxsize=1)
def _clip(number: int) -> Clip:
    return make_clip(TEST_SEEDS + number, CLIP_FRAMES, SIZE, renderer="fast")


def _frame(number: int, index: int) -> TrueFrame:
    clip = _clip(number)
    depth = clip.depth[index].numpy()
    return TrueFrame(
        image=clip.image[index].numpy(),
        timestamp=float(index),
        depth=np.where(depth < FARTHEST, depth, np.float32(0.0)),
        world_from_camera=clip.world_from_camera[index].double().numpy(),
        intrinsics=clip.intrinsics[index].numpy(),
    )


def weights_rows(model: Any, source: str) -> list[tuple[str, str]]:
    """Return name, licence, sizes and history of a set of weights, as rows of a table.

    Args:
        model: the network.
        source: name or path that it was loaded by.
    """
    config, info, history = model.config, model.weights, _history(source)
    state = model.initial_state(rules.parse("overwrite"))
    count = sum(p.numel() for p in model.parameters())
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    state_size = sum(t.numel() * t.element_size() for t in state.to_tensors().values())
    frames, seconds = (_number(history.get(key)) for key in ("frames", "seconds"))
    return [
        ("weights", f"{info.name}, SHA-256 {info.sha256}"),
        ("licence", f"{info.licence}, by {info.origin}"),
        ("parameters", f"{count / 1e6:.2f} million, {size / MIB:.1f} MiB in memory"),
        ("encoder", f"{config.encoder_depth} blocks of {config.encoder_dim} channels"),
        (
            "decoders",
            f"two of {config.decoder_depth} blocks of {config.decoder_dim} channels, "
            f"{config.head} head",
        ),
        ("state", f"{config.state_size} tokens, {state_size / 1024:.0f} KiB in all"),
        (
            "images",
            f"longer side {model.preparation.size}, patches of {config.patch_size} pixels",
        ),
        ("training data", f"synthetic scenes of ttt3r.scenes, seeds from {TRAINING_SEEDS} on"),
        ("recipe", history.get("recipe", "unknown")),
        ("presentations of frames", "unknown" if frames is None else f"{frames:,.0f}"),
        ("training time", "unknown" if seconds is None else f"{seconds / 3600:.1f} hours"),
        ("training machine", history.get("machine", "unknown")),
        ("training commit", history.get("commit", "unknown")),
    ]


def gates_text(model: Any, frames: int) -> str:
    """Say how the gate of the rule ttt3r is distributed over one stream of at least two frames."""
    sequence = Synthetic().open(Path(), "stream-0", Selection("pose", frames=frames))
    session = Session(model, rule="ttt3r", outputs=("pose",))
    found = []
    for index, true in enumerate(sequence):
        frame = prepare_frame(Frame(true.image, index, true.timestamp), model.preparation)
        gate = session.push(frame).gate
        if gate is not None:
            found.append(gate.float().cpu().numpy().ravel())
    gates = np.stack(found).astype(np.float64)
    low, median, high = np.percentile(gates, (5, 50, 95))
    return (
        f"On {frames} frames of stream-0 the gate β of `ttt3r` has the median {median:.3f} (5 % "
        f"are below {low:.3f}, 5 % above {high:.3f}). Its standard deviation over the tokens of a "
        f"frame is {gates.std(1).mean():.3f}, over the frames of a token "
        f"{gates.std(0).mean():.3f}."
    )


def _history(source: str) -> dict[str, str]:
    """Return what the file of some weights says of their training; empty if it says nothing.

    `ttt3r.training.pack` writes it as JSON under "training".
    """
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
    with contextlib.suppress(ValueError, TypeError):
        return float(text)  # pyright: ignore[reportArgumentType]
    return None
