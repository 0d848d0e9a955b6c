"""``ttt3r.compare``: which update rule suits an input."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import degrees
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ttt3r import values, weights
from ttt3r.comparison.streams import Streams
from ttt3r.comparison.truth import Errors, errors_of, read_truth
from ttt3r.errors import InputError, SettingError
from ttt3r.files import write_atomically
from ttt3r.geometry.agreement import agreement, some_points
from ttt3r.geometry.rotation import angle
from ttt3r.models.base import SetModel, StreamModel
from ttt3r.sources import Source, open_source, prefetch, prepare_frame
from ttt3r.summary.comparison import draw_comparison
from ttt3r.summary.samples import Thinned
from ttt3r.types import Prediction

RULES = ("overwrite", "ttt3r", "ttsa3r", "filt3r", "recal3r", "brake", "ortho", "memix")
EVERY = 8  # of so many frames, two neighbours are compared in depth
POINTS = 768  # of the first, which the second is compared with
WAY_BACK = 128  # frames at most by which the loop goes back
DECODE_AHEAD = 4


@dataclass(frozen=True)
class Score:
    """What one rule made of the input; NaN where it cannot be said.

    Attributes:
        rule: as text.
        poses: of all frames, camera-to-world; the world is the first frame's camera.
        path_length: of the camera, in the unit of the weights.
        agreement: share of pixels whose depth, carried to the next frame, is the one found there,
            within 10 %; mean over pairs of neighbours.
        loop_translation: how far from its first position the camera ends after the way back, as a
            share of the path's length.
        loop_rotation: the angle between its first and its last rotation then, degrees.
        errors: from the truth; None without one.
        note: why errors are missing; "" if none are.
    """

    rule: str
    poses: Float64[np.ndarray, "frames 4 4"]
    path_length: float
    agreement: float
    loop_translation: float = float("nan")
    loop_rotation: float = float("nan")
    errors: Errors | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Rules on one input.

    Attributes:
        scores: one for each rule, in the order asked for.
        stamps: times of the frames, seconds.
        truth: true poses; NaN where unknown, None without a truth.
        metric: whether the weights' lengths are metres.
    """

    scores: tuple[Score, ...]
    stamps: Float64[np.ndarray, " frames"]
    truth: Float64[np.ndarray, "frames 4 4"] | None = None
    metric: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All numbers but the paths, as JSON values; None where something cannot be said."""
        return {
            "frames": len(self.stamps),
            "metric": self.metric,
            "rules": [_as_json(score) for score in self.scores],
        }

    def write_png(self, path: str | Path) -> None:
        """Draw paths, and errors against time, and write the picture atomically.

        Raises:
            OSError: if it cannot be written.
        """
        judged = {s.rule: s.errors for s in self.scores if s.errors is not None}
        paths = {score.rule: score.poses[:, :3, 3] for score in self.scores}
        paths |= {rule: errors.positions for rule, errors in judged.items()}
        if self.truth is not None:
            paths["truth"] = self.truth[:, :3, 3]
        errors = {rule: errors.over_time for rule, errors in judged.items()}
        picture = draw_comparison(paths, self.stamps, errors, "m" if judged or self.metric else "")
        write_atomically(Path(path), lambda file: picture.save(file, "PNG"))


def compare(
    source: "str | Path | Source | Iterable[Any]",
    rules: Sequence[Any] = RULES,
    *,
    model: str | Path | StreamModel | SetModel = "builtin",
    truth: str | Path | None = None,
    loop: bool = False,
    size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    done: Callable[[int], object] = lambda frames: None,
) -> Comparison:
    """Run an input under several rules at once, and say how well each one did.

    Each frame is encoded once; the rules' streams go through the decoders as one batch. There are
    no resets. Poses of all frames are kept in memory, 128 bytes for each rule and frame.

    Args:
        source: what `ttt3r.open_source` takes, or returns.
        rules: as `Session` takes them; at least one, all different.
        model: a streaming model, or what `ttt3r.load` takes.
        truth: file or folder with true poses, see `ttt3r.comparison.truth.read_truth`.
        loop: afterwards show the frames once more from the last to the first, at most 128 of them,
            so that the true path closes, and measure whether the estimated one does.
        size: longer image side in pixels; None takes what the weights were trained with.
        device: where to load a model that is given by name or path, see `ttt3r.load`.
        precision: likewise.
        done: called with the number of frames taken in.

    Raises:
        SettingError: if a rule is none of the model's family, or comes twice; or the model looks
            at all views at once.
        InputError: if the source or the truth cannot be read, or there are no frames.
    """
    frames = open_source(source)
    if isinstance(model, str | Path):
        model = weights.load(model, device, precision)
    if not isinstance(model, StreamModel):
        raise SettingError(
            "this model looks at all views at once and has no update rules to compare; choose one "
            "of the families CUT3R, Point3R or StreamVGGT"
        )
    streams = Streams(model, rules)
    names = [values.to_text(rule) for rule in streams.rules]
    if not names or len(set(names)) < len(names):
        raise SettingError(f"give at least one rule, and each only once: {', '.join(names)}")
    policy = model.preparation if size is None else replace(model.preparation, size=size)
    followers = [_Follower() for _ in names]
    kept: Thinned[np.ndarray] = Thinned(WAY_BACK)
    stamps: list[float] = []
    prepared = prefetch((prepare_frame(frame, policy) for frame in frames.frames(0)), DECODE_AHEAD)
    try:
        for index, frame in enumerate(prepared):
            outputs = ("points", "pose") if index % EVERY < 2 else ("pose",)
            for follower, said in zip(followers, streams.push(frame, outputs), strict=True):
                follower.add(said)
            if loop:
                kept.offer(index, lambda image=frame.image: image)
            stamps.append(float(frame.timestamp))
            done(index + 1)
    finally:
        prepared.close()
    if not stamps:
        raise InputError("the input holds no frames, so there is nothing to compare")
    scores = [f.score(name) for f, name in zip(followers, names, strict=True)]
    if loop:
        scores = _closed(streams, list(kept), len(stamps) - 1, kept.stride, scores)
    return _judged(scores, np.array(stamps), truth, model)


def _judged(
    scores: list[Score],
    stamps: Float64[np.ndarray, " frames"],
    truth: str | Path | None,
    model: StreamModel,
) -> Comparison:
    """Compare with the truth, if there is one."""
    metric = model.capabilities.metric_scale and model.weights.trained
    if truth is None:
        return Comparison(tuple(scores), stamps, None, metric)
    poses = read_truth(truth, stamps)
    judged = []
    for score in scores:
        errors, note = errors_of(score.poses, poses)
        judged.append(replace(score, errors=errors, note=note))
    return Comparison(tuple(judged), stamps, poses, metric)


def _closed(
    streams: Streams, images: list[np.ndarray], last: int, stride: int, scores: list[Score]
) -> list[Score]:
    """Go back to the first frame, and say how far from it each stream believes to be."""
    if last % stride == 0:  # the last frame was just seen
        images = images[:-1]
    ends = [torch.from_numpy(score.poses[-1]) for score in scores]
    for image in reversed(images):
        said = streams.push(image, ("pose",))
        ends = [_pose(prediction) for prediction in said]
    found = []
    for score, end in zip(scores, ends, strict=True):
        first = torch.from_numpy(score.poses[0])
        apart = float((end[:3, 3] - first[:3, 3]).norm())
        turn = degrees(float(angle(first[:3, :3].mT @ end[:3, :3])))
        share = apart / score.path_length if score.path_length else float("nan")
        found.append(replace(score, loop_translation=share, loop_rotation=turn))
    return found


@dataclass
class _Follower:
    """Collects what one stream says."""

    poses: list[Tensor] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    points: Tensor | None = None

    def add(self, said: Prediction) -> None:
        """Take in the next frame."""
        pose = _pose(said)
        self.poses.append(pose)
        if said.depth is not None and said.points is not None and said.intrinsics is not None:
            if self.points is not None and len(self.points):
                place = pose.to(said.points), said.intrinsics
                self.agreements.append(agreement(self.points, *place, said.depth))
                self.points = None
            else:
                self.points = some_points(said.points, pose, POINTS)

    def score(self, rule: str) -> Score:
        """What can be said of the stream alone."""
        poses = torch.stack(self.poses).numpy()
        agreed = np.array(self.agreements)
        known = agreed[np.isfinite(agreed)]
        length = float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())
        return Score(rule, poses, length, float(known.mean()) if len(known) else float("nan"))


def _pose(said: Prediction) -> Tensor:
    assert said.world_from_camera is not None
    return said.world_from_camera.double()


def _as_json(score: Score) -> dict[str, Any]:
    numbers = {
        "path_length": score.path_length,
        "agreement": score.agreement,
        "loop_translation": score.loop_translation,
        "loop_rotation": score.loop_rotation,
    }
    if score.errors is not None:
        names = ("ate", "rpe_translation", "rpe_rotation", "rotation")
        numbers |= {name: getattr(score.errors, name) for name in names}
    finite = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
    return {"rule": score.rule, **finite, "note": score.note}
