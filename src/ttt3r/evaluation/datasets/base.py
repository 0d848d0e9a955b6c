"""What every dataset reader has in common."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.sequences import Sequence as FrameSequence
from ttt3r.evaluation.sequences import TrueFrame, content_digest, read_depth
from ttt3r.sources.images import read_image

Task = Literal["pose", "depth", "recon"]
Variant = Literal["published", "corrected"]

DepthReader = Callable[[Path], Float[np.ndarray, "height width"]]


@dataclass(frozen=True)
class Selection:
    """Which frames of a sequence are shown, and what must be known of them.

    Attributes:
        task: what will be measured: "pose" takes true poses, "depth" true depth, "recon" both and
            the intrinsics. Readers do not open what the task does not take.
        stride: every how many-th frame.
        frames: at most this many, counted after the stride; None for all.
        variant: "published" selects frames as published results did, with their oddities,
            "corrected" without these.
    """

    task: Task
    stride: int = 1
    frames: int | None = None
    variant: Variant = "published"


class Dataset(abc.ABC):
    """A collection of sequences, in the layout its owners distribute.

    Attributes:
        name: what protocols call it.
        title: what people call it.
        page: where its owners give it away.
        tree: what the folder must contain, as a drawing.
        tasks: what can be measured on it.
        needs_root: whether it lies in a folder; False if it is made on the fly.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    page: ClassVar[str]
    tree: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    needs_root: ClassVar[bool] = True

    @abc.abstractmethod
    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the names of the sequences that published tables contain, in their order.

        Datasets without a published list return what lies in `root`.

        Raises:
            InputError: if there is no list and `root` holds no sequence.
        """

    @abc.abstractmethod
    def open(self, root: Path, sequence: str, selection: Selection) -> FrameSequence:
        """Open a sequence; its frames are read one by one while it is iterated over.

        Raises:
            InputError: if it is missing, incomplete or damaged; the message shows `tree` and
                `page`.
        """

    @classmethod
    def error(cls, problem: str) -> InputError:
        """Return an error that states the problem, the expected folder and the owners' page."""
        return InputError(
            f"{problem}\n{cls.title} is expected as its owners distribute it:\n{cls.tree}\n"
            f"Get it from {cls.page}"
        )

    def require(self, path: Path) -> Path:
        """Return a path that exists.

        Raises:
            InputError: if it does not.
        """
        if not path.exists():
            raise self.error(f"{path} does not exist.")
        return path


@dataclass(frozen=True)
class Item:
    """Where one frame lies.

    Attributes:
        image: file of the image.
        timestamp: seconds, from an origin of the sequence's own.
        world_from_camera: true pose; None if unknown.
        depth: file of the true depth; None if there is none or nobody asked for it.
        intrinsics: pinhole matrix, pixels, where it differs from frame to frame.
    """

    image: Path
    timestamp: float
    world_from_camera: Float64[np.ndarray, "4 4"] | None = None
    depth: Path | None = None
    intrinsics: Float64[np.ndarray, "3 3"] | None = None


class FileSequence:
    """A sequence whose frames are files, read when their turn comes.

    Args:
        name: what to call it.
        items: one per frame, in order.
        read_depth: turns a depth file into metres, 0 where unknown.
        intrinsics: pinhole matrix of the images without one of their own, pixels; None if unknown.
        error: makes an error of a problem with a file; see `Dataset.error`.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        read_depth: DepthReader = read_depth,
        intrinsics: Float64[np.ndarray, "3 3"] | None = None,
        error: Callable[[str], InputError] = InputError,
    ) -> None:
        self.name = name
        self.items = tuple(items)
        self._read_depth, self._intrinsics, self._error = read_depth, intrinsics, error

    def __len__(self) -> int:
        return len(self.items)

    @property
    def digest(self) -> str:
        """What tells this sequence from others of its name; see `content_digest`."""
        files = [path for item in self.items for path in (item.image, item.depth)]
        known = [
            array for item in self.items for array in (item.world_from_camera, item.intrinsics)
        ]
        return content_digest(files, [*known, self._intrinsics])

    def __iter__(self) -> Iterator[TrueFrame]:
        for item in self.items:
            yield TrueFrame(
                image=self._read(read_image, item.image),
                timestamp=item.timestamp,
                depth=None if item.depth is None else self._read(self._read_depth, item.depth),
                world_from_camera=item.world_from_camera,
                intrinsics=self._intrinsics if item.intrinsics is None else item.intrinsics,
            )

    def _read(self, read: Callable[[Path], Any], path: Path) -> Any:
        try:
            return read(path)
        except InputError as error:
            raise self._error(f"{error}.") from error


def select(items: Sequence[Item], selection: Selection) -> list[Item]:
    """Return every `stride`-th item, of these the first `frames`; without depth for "pose"."""
    chosen = list(items[:: selection.stride][: selection.frames])
    if selection.task == "pose":
        return [dataclasses.replace(item, depth=None) for item in chosen]
    return chosen
