"""The three parts of the model card: held-out clips, long held-out streams, real sequences.

Whatever was measured is stored as JSON at once, so that an interrupted measurement goes on where
it stopped. Results lie under the digest of the weights; other weights begin anew.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import card_data
from benchmarks.card_data import FARTHEST, RenderedStream, TrainingDepth
from benchmarks.card_rows import Row, baseline_rows, placement_row, result_row
from benchmarks.card_streams import Gates, Variant, run_streams
from ttt3r.evaluation.sequences import First, FolderSequence
from ttt3r.evaluation.streaming import collect, score
from ttt3r.files import write_atomically
from ttt3r.stream.session import Session
from ttt3r.training.cache import TEST_SEEDS

PROTOCOL = 1  # counts up whenever stored results would be computed differently
RULES = ("overwrite", "ttt3r")
STREAM_RULES = ("overwrite", "ttt3r", "damped(ttt3r, 0.5)", "damped(ttt3r, 0.3333)")
RESET = "every(100)"
VARIANTS = tuple(Variant(rule, reset) for reset in ("never", RESET) for rule in STREAM_RULES)
GATES_OF = Variant("ttt3r")
# As fast per stream as more of them on a CPU, and little is lost when interrupted.
STREAMS_AT_ONCE = 4
LONG_REAL = ("redkitchen_long",)  # also run with resets


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        clips: number of held-out clips.
        clip_frames: frames of each.
        size: (height, width) of all that is rendered.
        streams: number of held-out streams.
        stream_frames: frames of each.
        prefixes: lengths at which streams are scored.
        real_frames: most frames of a real sequence; None takes all.
        training_clips: how many training clips the baselines know.
    """

    clips: int = 64
    clip_frames: int = 16
    size: tuple[int, int] = (120, 160)
    streams: int = 16
    stream_frames: int = 1000
    prefixes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1000)
    real_frames: int | None = None
    training_clips: int = 200


QUICK = Settings(
    clips=4,
    size=(64, 80),
    streams=2,
    stream_frames=64,
    prefixes=(16, 32, 64),
    real_frames=10,
    training_clips=4,
)


class Store:
    """Results on disk, one JSON file each.

    Args:
        work: the work folder.
        weights: what tells the weights, and how they compute, from all others.
    """

    def __init__(self, work: Path, weights: str) -> None:
        self._folder = work / "results" / f"{weights}-{PROTOCOL}"

    def get(self, part: str, name: str) -> Any:
        """Return what was stored; None if nothing was."""
        path = self._path(part, name)
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def put(self, part: str, name: str, value: Any) -> None:
        """Store a result."""
        path = self._path(part, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=1) + "\n"
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))

    def _path(self, part: str, name: str) -> Path:
        return self._folder / part / f"{name}.json"


class Clock:
    """Says on the standard error how far a part is."""

    def __init__(self, part: str) -> None:
        self._part, self._start, self._last = part, time.perf_counter(), -10.0

    def say(self, text: str, always: bool = True) -> None:
        """Print a line; those that are not to be seen always come every ten seconds at most."""
        now = time.perf_counter() - self._start
        if always or now - self._last >= 10:
            print(f"{self._part}: {text} ({now:.0f} s)", file=sys.stderr, flush=True)
            self._last = now


def measure_clips(
    model: Any, settings: Settings, store: Store, training: TrainingDepth
) -> dict[str, list[Row]]:
    """Part (a): rows of every rule and baseline, one per clip."""
    clock, clips = Clock("clips"), []
    height, width = settings.size
    for i in range(settings.clips):
        seed = TEST_SEEDS + i
        name = f"{seed}-{settings.clip_frames}x{width}x{height}-{training.clips}"
        rows = store.get("clips", name)
        if rows is None:
            rows = _clip_rows(model, seed, settings, training)
            store.put("clips", name, rows)
        clips.append(rows)
        clock.say(f"{i + 1} of {settings.clips}", always=False)
    return {method: [rows[method] for rows in clips] for method in clips[0]}


def _clip_rows(
    model: Any, seed: int, settings: Settings, training: TrainingDepth
) -> dict[str, Row]:
    sequence = card_data.clip(seed, settings.clip_frames, settings.size)
    rows: dict[str, Row] = {}
    record = None
    for rule in RULES:
        record = collect(Session(model, rule), sequence)
        result = score(record, FARTHEST)
        rows[rule] = result_row(result) | placement_row(record, result, FARTHEST)
    assert record is not None
    return rows | baseline_rows(record, training, FARTHEST)


def measure_streams(
    model: Any,
    settings: Settings,
    store: Store,
    training: TrainingDepth,
    work: Path,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Part (b): for every stream, rows of every method at every prefix, and its gates."""
    clock = Clock("streams")
    streams = [
        RenderedStream(
            work / "streams", card_data.STREAM_SEEDS + i, settings.size, settings.stream_frames
        )
        for i in range(settings.streams)
    ]

    def name(stream: RenderedStream) -> str:
        height, width = stream.size
        return f"{stream.seed}-{stream.frames}x{width}x{height}-{training.clips}"

    todo = [stream for stream in streams if store.get("streams", name(stream)) is None]
    for start in range(0, len(todo), STREAMS_AT_ONCE):
        group = todo[start : start + STREAMS_AT_ONCE]
        clock.say(f"rendering {len(group)} streams, if they are not there yet")
        card_data.render_streams(group, workers)
        done = f"{len(streams) - len(todo) + start} of {len(streams)} done; frame"
        records, gates = run_streams(
            model,
            group,
            VARIANTS,
            GATES_OF,
            lambda index, done=done: clock.say(f"{done} {index}", always=False),
        )
        for i, stream in enumerate(group):
            of_stream = {variant: found[i] for variant, found in records.items()}
            rows = _stream_rows(of_stream, gates, i, settings, training)
            options = stream.options
            rows |= {"seed": stream.seed, "world": options.world, "style": options.style}
            store.put("streams", name(stream), rows)
    return [store.get("streams", name(stream)) for stream in streams]


def _stream_rows(
    records: dict[str, Any], gates: Gates, stream: int, settings: Settings, training: TrainingDepth
) -> dict[str, Any]:
    prefixes: dict[str, dict[str, Row]] = {}
    for frames in settings.prefixes:
        cut = {variant: record.first(frames) for variant, record in records.items()}
        rows = {variant: result_row(score(record, FARTHEST)) for variant, record in cut.items()}
        rows |= baseline_rows(next(iter(cut.values())), training, FARTHEST)
        prefixes[str(frames)] = rows
    return {"prefixes": prefixes, "gate": gates.statistics(stream)}


def real_folders(data: Path) -> list[Path]:
    """Folders of real sequences whose poses are known."""
    return sorted(path.parent for path in data.glob("*/poses.txt"))


def measure_real(
    model: Any, settings: Settings, store: Store, training: TrainingDepth, data: Path
) -> list[dict[str, Any]]:
    """Part (c): for every folder with poses, rows of every method; [] if there is none."""
    clock, found = Clock("real"), []
    for folder in real_folders(data):
        sequence = First(FolderSequence(folder), settings.real_frames or sys.maxsize)
        variants = [Variant(rule) for rule in RULES]
        if folder.name in LONG_REAL:
            variants += [Variant(rule, RESET) for rule in RULES]
        rows: dict[str, Row] = {}
        others: dict[str, Row] = {}
        size: list[int] = []
        for variant in variants:
            clock.say(f"{folder.name}, {variant.name}, {len(sequence)} frames")
            name = f"{folder.name}-{len(sequence)}-{training.clips}-{_plain(variant.name)}"
            part = store.get("real", name)
            if part is None:
                record = collect(Session(model, variant.rule, variant.reset), sequence)
                part = {
                    "row": result_row(score(record)),
                    "baselines": baseline_rows(record, training),
                    "size": list(record.size),
                }
                store.put("real", name, part)
            rows[variant.name] = part["row"]
            others, size = part["baselines"], part["size"]
        rows |= others
        found.append({"name": folder.name, "frames": len(sequence), "size": size, "rows": rows})
    return found


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
