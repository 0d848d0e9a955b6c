"""What the recorders of all tasks have in common."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ttt3r.errors import InputError
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.results import Status
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.evaluation.spool import Spool
from ttt3r.files import write_atomically
from ttt3r.sources.preprocess import on_white
from ttt3r.types import Frame, Prediction, Preparation


@dataclass(frozen=True)
class Outcome:
    """The errors over the first frames of a sequence; see `results.Score` for the fields."""

    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    weight: float = 1.0


class Recorder(abc.ABC):
    """Keeps what is true and what was predicted of a sequence, and scores it at any length.

    What grows with the length and is not small lies in files. Frames are prepared and predictions
    taken in the same order; a model that looks at a whole clip has all of them prepared before its
    first prediction is taken.

    Args:
        protocol: how to score.
        sequence: what will be shown.
        preparation: how the weights want images prepared.
        folder: exists; for files while the stream runs, and for what `keep` leaves.

    Attributes:
        outputs: what the session must compute.
        size: (height, width) of the images that the network sees; None before the first.
        device: where long fits are computed.
    """

    outputs: ClassVar[tuple[str, ...]]

    def __init__(
        self, protocol: Protocol, sequence: Sequence, preparation: Preparation, folder: Path
    ) -> None:
        self.protocol, self.sequence = protocol, sequence
        self.preparation, self.folder = preparation, folder
        self.count = 0
        self.size: tuple[int, int] | None = None
        self.device = torch.device("cpu")
        self.wrong: list[int] = []  # values of each frame that count and are not finite
        self._spools: list[Spool] = []

    @classmethod
    def check(cls) -> None:
        """Find out before anything runs whether all packages are there.

        Raises:
            MissingExtraError: if one is not.
        """
        return None

    def prepare(self, true: TrueFrame) -> Frame:
        """Take the truth about the next frame, and bring its image to the network's size.

        The network is not told the true intrinsics.

        Raises:
            InputError: if truth that the task needs is missing, or the frame cannot be used.
        """
        if self.preparation.by_width and true.alpha is not None:
            true = replace(true, image=on_white(true.image, true.alpha))
        frame = Frame(true.image, self.count, true.timestamp, true.intrinsics, self.sequence.name)
        frame = self._prepare(true, frame)
        size = (frame.image.shape[0], frame.image.shape[1])
        if self.size not in (None, size):
            raise InputError(
                f"frame {self.count} of {self.sequence.name} has another size than those before"
            )
        self.size, self.count = size, self.count + 1
        return replace(frame, intrinsics=None)

    @abc.abstractmethod
    def _prepare(self, true: TrueFrame, frame: Frame) -> Frame:
        """Keep the truth, and return `frame` (the image as it is) at the network's size."""

    @abc.abstractmethod
    def take(self, prediction: Prediction) -> None:
        """Take what was predicted of the first frame that was prepared and not yet answered for."""

    @abc.abstractmethod
    def score(self, frames: int) -> Outcome:
        """Return the errors over the first frames."""

    @abc.abstractmethod
    def keep(self) -> None:
        """Write what figures are drawn from."""

    def close(self) -> None:
        """Delete the files that were needed only while the stream ran."""
        for spool in self._spools:
            spool.close()

    def _spool(self, name: str, dtype: Any) -> Spool:
        """Open a file that `close` deletes."""
        self._spools.append(Spool(self.folder / f".{name}.tmp", dtype))
        return self._spools[-1]

    def _failure(self, frames: int, what: str) -> Outcome | None:
        """Return what `wrong` predictions among the first frames mean; None if there are none."""
        wrong = sum(self.wrong[:frames])
        if not wrong:
            return None
        first = next(i for i, count in enumerate(self.wrong) if count)
        return Outcome(
            "failed", note=f"{wrong} predicted {what} are not finite, the first in frame {first}"
        )

    def _save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays to a compressed file of numpy's in the folder."""

        def write(path: Path) -> None:
            with path.open("wb") as file:  # given a path, numpy would append an ending
                np.savez_compressed(file, allow_pickle=False, **arrays)

        write_atomically(self.folder / name, write)
