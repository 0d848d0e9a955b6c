"""Depth of a video: one alignment per sequence, errors over all its valid pixels."""

from collections import deque
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ttt3r.errors import InputError
from ttt3r.evaluation.baselines import best_constant_depth
from ttt3r.evaluation.metrics import depth as scores
from ttt3r.evaluation.metrics.depth import DepthErrors
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.results import DEPTH_ALIGNMENTS
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.evaluation.spool import Spool
from ttt3r.evaluation.store import MAPS
from ttt3r.evaluation.tasks.base import Outcome, Recorder, save_arrays
from ttt3r.files import write_atomically
from ttt3r.sources import prepare_frame
from ttt3r.types import Frame, ImagePolicy, Prediction

KEPT_FRAMES = 3
CONSTANT_VALUES = 4_000_000  # that the best constant is fitted to, at most


class DepthRecorder(Recorder):
    """Depth at the pixels of known depth, at the resolution of the truth; see `Recorder`."""

    outputs: ClassVar[tuple[str, ...]] = ("points",)

    def __init__(
        self, protocol: Protocol, sequence: Sequence, policy: ImagePolicy, folder: Path
    ) -> None:
        super().__init__(protocol, sequence, policy, folder)
        self.rule = protocol.depth_rule
        self.truth = Spool(folder / ".truth.tmp", np.float64 if self.rule.double else np.float32)
        self.estimate = Spool(folder / ".estimate.tmp", np.float32)
        self.until: list[int] = []  # values up to and with each frame
        self.wrong: list[int] = []  # predictions that are not finite, of each frame
        last = len(sequence) - 1
        self.shown = {round(last * i / (KEPT_FRAMES - 1)) for i in range(KEPT_FRAMES)}
        self.maps: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        self._waiting: deque[TrueFrame] = deque()  # for what a clip's look will say of them
        self._scale = 1.0

    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Keep the true depth; images are squeezed to the network's size, so nothing is cut."""
        if true.depth is None:
            raise InputError(
                f"frame {self.count} of {self.sequence.name} has no true depth. Take a protocol "
                "for poses, or other sequences."
            )
        self._waiting.append(true)
        return prepare_frame(frame, self.policy, crop=False)

    def take(self, prediction: Prediction) -> None:
        """Take the predicted depth at the valid pixels."""
        true = self._waiting.popleft()
        assert prediction.depth is not None and true.depth is not None
        depth = prediction.depth.float().cpu().numpy()
        self.wrong.append(int((~np.isfinite(depth)).sum()))
        depth = scores.resize_depth(np.nan_to_num(depth), *true.depth.shape)
        valid = scores.valid_pixels(
            true.depth,
            self.rule.max_depth,
            allow_infinite=self.protocol.variant == "published",
        )
        self.truth.append(true.depth[valid])
        self.estimate.append(depth[valid])
        self.until.append(self.truth.count)
        if len(self.until) - 1 in self.shown:
            known = np.where(valid, true.depth, 0.0).astype(np.float32)
            self.maps.append((len(self.until) - 1, true.image, known, depth))

    def score(self, frames: int) -> Outcome:
        """Align and compare, in each of the three ways."""
        wrong = sum(self.wrong[:frames])
        if wrong:
            first = next(i for i, count in enumerate(self.wrong) if count)
            note = f"{wrong} predicted depths are not finite, the first in frame {first}"
            return Outcome("failed", note=note)
        until = self.until[frames - 1]
        if not until:
            return Outcome("dropped", note="no true depth is valid")
        estimate, truth = self.estimate.rows(until), self.truth.rows(until)
        metrics: dict[str, float] = {}
        for alignment in DEPTH_ALIGNMENTS:
            try:
                errors = scores.depth_errors(
                    estimate,
                    truth,
                    alignment,
                    post_clip_max=self.rule.clip,
                    compat=self.protocol.variant == "published",
                )
            except InputError as error:
                return Outcome("failed", note=str(error))
            metrics |= _named(alignment, errors)
            if alignment == "scale" and errors.affine is not None:
                self._scale = errors.affine.scale
        metrics["constant/abs_rel"] = _constant_error(truth)
        bad = [name for name, value in metrics.items() if not np.isfinite(value)]
        if bad:
            return Outcome("failed", note=f"not finite: {', '.join(bad)}")
        return Outcome("ok", metrics, weight=float(until))

    def keep(self) -> None:
        """Write a few frames with the true and the predicted depth, scaled as scored last."""
        if not self.maps:
            return
        arrays = {"frames": np.array([frame for frame, *_ in self.maps])}
        for frame, image, truth, estimate in self.maps:  # sizes may differ
            arrays[f"image_{frame}"], arrays[f"truth_{frame}"] = image, truth
            arrays[f"prediction_{frame}"] = (estimate * self._scale).astype(np.float32)
        write_atomically(self.folder / MAPS, lambda path: save_arrays(path, arrays))

    def close(self) -> None:
        """Delete the spools."""
        self.truth.close()
        self.estimate.close()


def _constant_error(truth: Float[np.ndarray, " values"]) -> float:
    """Return the AbsRel of the constant that suits a sequence best, over enough of its pixels."""
    some = np.asarray(truth[:: -(-len(truth) // CONSTANT_VALUES)], dtype=np.float64)
    some = some[np.isfinite(some)]
    return float(np.mean(np.abs(best_constant_depth([some]) - some) / some))


def _named(alignment: str, errors: DepthErrors) -> dict[str, float]:
    return {f"{alignment}/{name}": float(getattr(errors, name)) for name in scores.METRICS}
