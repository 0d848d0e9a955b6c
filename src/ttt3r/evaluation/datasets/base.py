"""What every dataset reader has in common."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
from jaxtyping import Float, Float64

from ttt3r.errors import InputError
from ttt3r.evaluation.sequences import Item, Sequence, TrueFrame, read_depth
from ttt3r.evaluation.text import require
from ttt3r.sources.images import read_pixels

Task = Literal["pose", "depth", "recon"]
Variant = Literal["published", "corrected"]
T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """Which frames of a sequence are shown, and what must be known of them.

    Attributes:
        task: what will be measured: "pose" takes true poses, "depth" true depth, "recon" both and
            the intrinsics. Readers do not open what the task does not take.
        stride: every how many-th frame.
        frames: at most this many, counted after the stride; None for all.
        variant: "published" selects frames as published results did, with their oddities;
            "corrected" does without these.
    """

    task: Task
    stride: int = 1
    frames: int | None = None
    variant: Variant = "published"

    def pick(self, things: Items[T]) -> Items[T]:
        """Return every `stride`-th thing, of these the first `frames`."""
        return things[:: self.stride][: self.frames]


class Dataset(abc.ABC):
    """A collection of sequences, in the layout its owners distribute.

    A reader describes itself by the attributes below and returns the frames of one sequence in
    `items`. Every InputError that it raises is completed with `tree` and `page`.

    Attributes:
        name: what protocols call it.
        title: what people call it.
        page: where its owners give it away.
        tree: what the folder must contain, as a drawing.
        tasks: what can be measured on it.
        names: sequences of published tables, in their order.
        prefix: what the names of all its folders begin with; short names leave it out.
        above: folder in which archives put all sequences; looked into where it exists.
        intrinsics: pinhole matrix of all images, pixels; None if it differs or is unknown.
        needs_root: whether it lies in a folder; False if it is made on the fly.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    page: ClassVar[str]
    tree: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    names: ClassVar[tuple[str, ...]] = ()
    prefix: ClassVar[str] = ""
    above: ClassVar[str] = "."
    intrinsics: ClassVar[Float64[np.ndarray, "3 3"] | None] = None
    needs_root: ClassVar[bool] = True

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the names of the sequences that published tables contain, in their order.

        Datasets without a published list return what lies in `root`.

        Raises:
            InputError: if there is no list and `root` holds no sequence.
        """
        return self.names

    def open(self, root: Path, sequence: str, selection: Selection) -> Sequence:
        """Open a sequence; its frames are read one by one while it is iterated over.

        Args:
            root: folder of the dataset.
            sequence: its name, with or without `prefix`.
            selection: which frames.

        Raises:
            InputError: if it is missing, incomplete or damaged; the message shows `tree` and
                `page`.
        """
        name = sequence.removeprefix(self.prefix)
        with self._explained():
            above = require(root) / self.above
            items = self.items(above if above.is_dir() else root, name, selection)
            if selection.task == "pose":
                items = [dataclasses.replace(item, depth=None) for item in items]
            for path in (path for item in items for path in (item.image, item.depth)):
                if path is not None:
                    require(path)
        return Sequence(name, items, self.frame)

    @abc.abstractmethod
    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the selected frames of a sequence, at least one.

        Raises:
            InputError: if it is missing, incomplete or damaged.
        """

    def read_depth(self, path: Path) -> Float[np.ndarray, "height width"]:
        """Read a file of true depth, metres, 0 where unknown."""
        return read_depth(path)

    def frame(self, item: Item) -> TrueFrame:
        """Read a frame.

        Raises:
            InputError: if a file cannot be read.
        """
        with self._explained():
            image, alpha = read_pixels(item.image)
            return TrueFrame(
                image=image,
                timestamp=item.timestamp,
                depth=None if item.depth is None else self.read_depth(item.depth),
                world_from_camera=item.world_from_camera,
                intrinsics=self.intrinsics if item.intrinsics is None else item.intrinsics,
                alpha=alpha,
            )

    @classmethod
    def error(cls, problem: str) -> InputError:
        """Return an error that states the problem, the expected folder and the owners' page."""
        return InputError(
            f"{problem}\n{cls.title} is expected as its owners distribute it:\n{cls.tree}\n"
            f"Get it from {cls.page}"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise self.error(f"{str(error).rstrip('.')}.") from error
