"""What the recorders of all tasks have in common."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from ttt3r.errors import InputError
from ttt3r.evaluation.protocols import Protocol
from ttt3r.evaluation.results import Status
from ttt3r.evaluation.sequences import Sequence, TrueFrame
from ttt3r.types import Frame, ImagePolicy, Prediction


@dataclass(frozen=True)
class Outcome:
    """The errors over the first frames of a sequence; see `results.Score` for the fields."""

    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    weight: float = 1.0


class Recorder(abc.ABC):
    """Keeps what is true and what was predicted of a sequence, and scores it at any length.

    What grows with the length and is not small lies in files.

    Args:
        protocol: how to score.
        sequence: what will be shown.
        policy: how the weights want images prepared.
        folder: exists; for files while the stream runs, and for what `keep` leaves.

    Attributes:
        outputs: what the session must compute.
        size: (height, width) of the images that the network sees; None before the first.
    """

    outputs: ClassVar[tuple[str, ...]]

    def __init__(
        self, protocol: Protocol, sequence: Sequence, policy: ImagePolicy, folder: Path
    ) -> None:
        self.protocol, self.sequence, self.policy, self.folder = protocol, sequence, policy, folder
        self.count = 0
        self.size: tuple[int, int] | None = None

    @classmethod
    def check(cls, device: str) -> None:
        """Find out before anything runs whether all packages are there.

        Raises:
            MissingExtraError: if one is not.
        """
        return None

    def prepare(self, true: TrueFrame) -> Frame:
        """Take the truth about the next frame, and bring its image to the network's size.

        Raises:
            InputError: if truth that the task needs is missing, or the frame cannot be used.
        """
        frame = self._prepare(
            true,
            Frame(
                image=true.image,
                index=self.count,
                timestamp=true.timestamp,
                intrinsics=true.intrinsics,
                name=self.sequence.name,
            ),
        )
        size = (frame.image.shape[0], frame.image.shape[1])
        if self.size not in (None, size):
            raise InputError(
                f"frame {self.count} of {self.sequence.name} has another size than those before"
            )
        self.size, self.count = size, self.count + 1
        return frame

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
        """Write what figures are drawn from, for good."""

    def close(self) -> None:
        """Delete the files that were needed only while the stream ran."""
        return None


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a compressed file of numpy's."""
    with path.open("wb") as file:  # given a path, numpy would append an ending
        np.savez_compressed(file, allow_pickle=False, **arrays)
