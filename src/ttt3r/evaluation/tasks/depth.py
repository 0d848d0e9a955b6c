"""Depth of a video: one alignment per sequence, errors over all its valid pixels."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics import depth as scores
from ttt3r.evaluation.metrics.depth_fits import weighted_median
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.results import DEPTH_ALIGNMENTS
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.evaluation.store import MAPS
from ttt3r.evaluation.tasks.base import Outcome, Recorder
from ttt3r.sources import prepare_frame
from ttt3r.types import Frame, Prediction, Preparation

KEPT_FRAMES = 3
CONSTANT_VALUES = 4_000_000  # that the best constant is fitted to, at most


class DepthRecorder(Recorder):
    """Depth at the pixels of known depth, at the resolution of the truth; see `Recorder`."""

    outputs: ClassVar[tuple[str, ...]] = ("points",)

    def __init__(
        self, protocol: Protocol, sequence: Sequence, preparation: Preparation, folder: Path
    ) -> None:
        super().__init__(protocol, sequence, preparation, folder)
        self.rule = protocol.depth_rule
        self.truth = self._spool("truth", np.float64 if self.rule.double else np.float32)
        self.estimate = self._spool("estimate", np.float32)
        self.valid = self._spool("valid", np.bool_)  # of all pixels of all frames
        self.shapes: list[tuple[int, int]] = []  # of the true depth of each frame
        self.starts = [0]  # of each frame's pixels in `valid`, and where the next will start
        self.until: list[int] = []  # values up to and with each frame
        last = len(sequence) - 1
        self.shown = {round(last * i / (KEPT_FRAMES - 1)) for i in range(KEPT_FRAMES)}
        self.maps: dict[str, np.ndarray] = {}
        self._scale = 1.0

    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Keep the true depth; images are squeezed to the network's size, so nothing is cut."""
        if true.depth is None:
            raise InputError(
                f"frame {self.count} of {self.sequence.name} has no true depth. Take a protocol "
                "for poses, or other sequences."
            )
        published = self.protocol.variant == "published"
        valid = scores.valid_pixels(true.depth, self.rule.max_depth, allow_infinite=published)
        self.truth.append(true.depth[valid])
        self.valid.append(valid.ravel())
        self.shapes.append((valid.shape[0], valid.shape[1]))
        self.starts.append(self.valid.count)
        if self.count in self.shown:
            self.maps[f"image_{self.count}"] = true.image
            self.maps[f"truth_{self.count}"] = np.where(valid, true.depth, 0.0).astype(np.float32)
        return prepare_frame(frame, self.preparation, crop=False)

    def take(self, prediction: Prediction) -> None:
        """Take the predicted depth at the valid pixels."""
        assert prediction.depth is not None
        frame = len(self.until)
        pixels = slice(self.starts[frame], self.starts[frame + 1])
        valid = self.valid.rows(pixels.stop)[pixels].reshape(self.shapes[frame])
        depth, bad = _resized(prediction.depth.float().cpu().numpy(), *self.shapes[frame])
        self.wrong.append(int((bad & valid).sum()))
        self.estimate.append(depth[valid])
        self.until.append(self.estimate.count)
        if frame in self.shown:
            self.maps[f"prediction_{frame}"] = depth

    def score(self, frames: int) -> Outcome:
        """Align and compare, in each of the three ways."""
        failure = self._failure(frames, "depths")
        if failure is not None:
            return failure
        until = self.until[frames - 1]
        if not until:
            return Outcome("dropped", note="no true depth is valid")
        estimate, truth = self.estimate.rows(until), self.truth.rows(until)
        metrics = {"constant/abs_rel": constant_error(truth)}
        for alignment in DEPTH_ALIGNMENTS:
            try:
                errors = scores.depth_errors(
                    estimate,
                    truth,
                    alignment,
                    post_clip_max=self.rule.clip,
                    compat=self.protocol.variant == "published",
                    device=self.device,
                )
            except InputError as error:
                return Outcome("failed", note=str(error))
            for name in scores.METRICS:
                metrics[f"{alignment}/{name}"] = float(getattr(errors, name))
            if alignment == "scale" and errors.affine is not None:
                self._scale = errors.affine.scale
        bad = [name for name, value in metrics.items() if not np.isfinite(value)]
        if bad:
            return Outcome("failed", note=f"not finite: {', '.join(bad)}")
        return Outcome("ok", metrics, weight=float(until))

    def keep(self) -> None:
        """Write a few frames with the true and the predicted depth, scaled as scored last."""
        frames = sorted(frame for frame in self.shown if frame < len(self.until))
        if frames:
            scaled = {
                name: (array * self._scale).astype(np.float32)
                for name, array in self.maps.items()
                if name.startswith("prediction")
            }
            self._save(MAPS, {"frames": np.array(frames)} | self.maps | scaled)


def _resized(
    depth: Float[np.ndarray, "old_height old_width"], height: int, width: int
) -> tuple[Float[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """Resize a depth map, and say which pixels depend on values that are not finite."""
    bad = ~np.isfinite(depth)
    resized = scores.resize_depth(np.where(bad, np.float32(0.0), depth), height, width)
    if not bad.any():
        return resized, np.zeros((height, width), bool)
    return resized, scores.resize_depth(bad.astype(np.float32), height, width) != 0.0


def constant_error(truth: Float[np.ndarray, " values"]) -> float:
    """Return the AbsRel of the best constant depth of a sequence, over enough of its pixels.

    Σ |c − g| / g is least at the median of g weighted by 1/g.
    """
    some = np.asarray(truth[:: -(-len(truth) // CONSTANT_VALUES)], dtype=np.float64)
    some = some[np.isfinite(some)]
    if not len(some):
        return float("nan")
    return float(np.mean(np.abs(weighted_median(some, 1.0 / some) - some) / some))
