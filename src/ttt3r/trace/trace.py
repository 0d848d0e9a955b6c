"""The trace of a stream: what is kept of it, and what the next frame is measured against."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from math import degrees
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.geometry.agreement import agreement, some_points
from ttt3r.geometry.rotation import angle
from ttt3r.tensor_files import read_tensors, write_tensors
from ttt3r.trace.health import HEALTHS, Judge
from ttt3r.trace.horizon import Horizon
from ttt3r.trace.series import PLACES, SERIES, VALUES, RowMaker
from ttt3r.trace.sketch import Bin, Sketch
from ttt3r.types import Prediction, Quality

POINTS = 768  # of a frame, which the next one is compared with

NO_POSE, NO_POINTS = torch.full((4, 4), torch.nan), torch.zeros(0, 3)


@dataclass(frozen=True)
class Change:
    """What one frame did to what is remembered.

    Attributes:
        start: tensors before any frame, by name: "state", "pose_memory", or none of them.
        before: the same before the frame.
        after: the same after it.
        nbytes: of all that is remembered.
    """

    start: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    nbytes: int


@dataclass(frozen=True)
class _Header:
    """What the file of a trace says beside its tensors: its series, so that more can be added."""

    format: Literal["ttt3r-trace-1"]
    series: dict[str, int]


@dataclass(frozen=True)
class Trace:
    """A trace so far; a value, so that sessions can be saved and forked.

    Attributes:
        sketch: series over time.
        horizon: of each token.
        judge: what the next frame is judged against.
        pose: of the last frame; NaN if it has none.
        points: some of the last frame, in the world.
        segment: of the last frame; -1 before the first.
    """

    sketch: Sketch = field(default_factory=Sketch)
    horizon: Horizon = field(default_factory=Horizon.none)
    judge: Judge = field(default_factory=Judge)
    pose: Float[Tensor, "4 4"] = NO_POSE
    points: Float[Tensor, "n 3"] = NO_POINTS
    segment: int = -1

    def observe(
        self, prediction: Prediction, change: Change | None = None
    ) -> "tuple[Trace, Quality]":
        """Take in the next frame.

        Args:
            prediction: what was said of it; what it lacks is not followed.
            change: what it did to the state; None if that is not known.

        Returns:
            The trace with it, and a judgement of the frame.
        """
        row = RowMaker()
        fresh = prediction.segment != self.segment
        horizon = self.horizon.restarted() if fresh else self.horizon
        if prediction.gate is not None:
            gate = prediction.gate.double().cpu().numpy()
            horizon = horizon.after(gate)
            row.put_tokens("gate", gate)
            row.put_tokens("horizon", horizon.frames)
        for name, value in _changes(change).items():
            row.put(name, value)
        confidence, agreed, pose = self._maps(prediction)
        for name, value in self._step(pose).items():
            row.put(name, value)
        judge, quality = (Judge() if fresh else self.judge).look(agreed, confidence)
        row.put("confidence", confidence)
        row.put("agreement", agreed)
        row.put("segment", prediction.segment)
        if quality.health is not None:
            row.put("health", HEALTHS.index(quality.health))
        points = prediction.points
        kept = NO_POINTS if points is None else some_points(points, pose.to(points), POINTS).cpu()
        after = Trace(self.sketch.add(row.row), horizon, judge, pose, kept, prediction.segment)
        return after, quality

    def _maps(self, prediction: Prediction) -> tuple[float, float, Tensor]:
        """Mean confidence, agreement with the frame before, and pose."""
        pose, depth = prediction.world_from_camera, prediction.depth
        here = NO_POSE if pose is None else pose.float().cpu()
        said = prediction.confidence
        confidence = float("nan") if said is None else float(said.float().mean())
        agreed = float("nan")
        if depth is not None and prediction.intrinsics is not None and len(self.points):
            place = here.to(depth), prediction.intrinsics.to(depth)
            agreed = agreement(self.points.to(depth), *place, depth)
        return confidence, agreed, here

    def _step(self, pose: Tensor) -> dict[str, float]:
        """How far the camera went and turned since the frame before."""
        before, now = self.pose.double(), pose.double()
        turn = angle(before[:3, :3].mT @ now[:3, :3])
        step = (now[:3, 3] - before[:3, 3]).norm()
        return {"translation": float(step), "rotation": degrees(float(turn))}

    @property
    def frames(self) -> int:
        """Number of frames taken in."""
        return self.sketch.frames

    def column(self, name: str) -> Bin:
        """One series over time, [bins, rows], see `SERIES`."""
        return self.sketch.column(PLACES[name])

    def known(self, name: str) -> bool:
        """Whether a series was known in any frame."""
        return bool(self.frames) and bool(self.column(name).known.any())

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything as tensors."""
        lists = {"horizon": np.stack(astuple(self.horizon)), "judge": np.array(astuple(self.judge))}
        return {
            **{f"sketch.{name}": item for name, item in self.sketch.to_tensors().items()},
            **{name: torch.from_numpy(item) for name, item in lists.items()},
            "pose": self.pose,
            "points": self.points,
            "segment": torch.tensor(self.segment),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Trace":
        """Read what `to_tensors` gave.

        Raises:
            KeyError, ValueError: if it is something else.
        """
        sketch = Sketch.from_tensors(
            {
                name.removeprefix("sketch."): item
                for name, item in tensors.items()
                if name.startswith("sketch.")
            }
        )
        if sketch.bins and sketch.bins[0].known.shape != (VALUES,):
            raise ValueError(f"it holds {sketch.bins[0].known.shape} values, not {VALUES}")
        return cls(
            sketch,
            Horizon(*tensors["horizon"].numpy()),
            Judge(*tensors["judge"].tolist()),
            tensors["pose"],
            tensors["points"],
            int(tensors["segment"]),
        )

    def write(self, path: Path) -> None:
        """Write the trace, atomically.

        Raises:
            OSError: if it cannot be written.
        """
        header = _Header("ttt3r-trace-1", {name: item.rows for name, item in SERIES.items()})
        write_tensors(path, self.to_tensors(), header)

    @classmethod
    def read(cls, path: Path) -> "Trace":
        """Read a trace.

        Raises:
            RunError: if the file is missing or damaged.
        """
        try:
            header, tensors = read_tensors(path, _Header)
            return cls.from_tensors(_grown(tensors, header.series))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"the trace {path} is missing or damaged ({error}); delete it to see what the "
                "frames of the run tell"
            ) from error


def _changes(change: Change | None) -> dict[str, float]:
    """Norms over all entries; those of one frame are fetched from the device together."""
    if change is None:
        return {}
    norms: dict[str, Tensor] = {}
    for name, after in change.after.items():
        norms[f"{name}_step"] = (after - change.before[name]).norm()
        norms[f"{name}_drift"] = (after - change.start[name]).norm()
    if "state" in change.after:
        norms["state_norm"] = change.after["state"].norm()
    values = torch.stack(list(norms.values())).double().tolist() if norms else []
    return {**dict(zip(norms, values, strict=True)), "state_bytes": float(change.nbytes)}


def _grown(tensors: dict[str, Tensor], series: dict[str, int]) -> dict[str, Tensor]:
    """The tensors of an older file, with the series that were added since; never known in it."""
    known = dict(list(SERIES.items())[: len(series)])
    if {name: item.rows for name, item in known.items()} != series:
        raise ValueError(f"it holds other series: {', '.join(series)}")
    missing = VALUES - sum(series.values())
    if not missing:
        return tensors
    fill = {"known": 0, "total": 0.0, "least": float("nan"), "most": float("nan")}
    grown = {
        f"sketch.{name}": torch.nn.functional.pad(
            tensors[f"sketch.{name}"], (0, missing), value=value
        )
        for name, value in fill.items()
        if f"sketch.{name}" in tensors
    }
    return tensors | grown


def trace_of(predictions: Iterable[Prediction]) -> Trace:
    """The trace of predictions that are there already; of the state they tell only the gate."""
    trace = Trace()
    for prediction in predictions:
        trace, _ = trace.observe(prediction)
    return trace
