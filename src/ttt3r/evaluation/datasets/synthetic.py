"""Rendered streams whose truth is exact: nothing to download, up to 100 000 frames each."""

from collections.abc import Iterator
from pathlib import Path

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection, Task
from ttt3r.evaluation.sequences import TrueFrame
from ttt3r.scenes import Scene, SceneOptions

SEEDS = 3_500_000  # the first; training, validation and tests of networks take others
STREAMS = 8
WORLDS = ("room", "corridor", "interior")
STYLES = ("hand", "walk", "orbit", "pan")  # of paths that return to where they were
SIZE = (120, 160)  # height and width
FRAMES = 1000
PATH_FRAMES = 100_000  # of every path, however many are shown, as its length shapes the scene
RATE = 30.0  # frames per second


class Synthetic(Dataset):
    """Eight indoor streams on periodic paths in which nothing moves; no network of ours was
    trained on them.

    Frames are rendered one by one while they are asked for, so memory does not grow with their
    number, and a frame is the same however many others are shown. Both variants are the same.
    """

    name = "synthetic"
    title = "Synthetic streams"
    page = "rendered by ttt3r itself"
    tree = "  (no folder is needed)"
    tasks = ("pose", "depth", "recon")
    needs_root = False

    @classmethod
    def error(cls, problem: str) -> InputError:
        """Return an error that states the problem, which is never a matter of folders."""
        return InputError(problem)

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return "stream-0" to "stream-7", whatever lies in `root`."""
        return tuple(f"stream-{number}" for number in range(STREAMS))

    def open(self, root: Path, sequence: str, selection: Selection) -> "RenderedStream":
        """Open a stream: 1000 frames after the stride unless the selection says otherwise.

        Raises:
            InputError: if there is none of this name.
        """
        names = self.sequences(root, selection.task)
        if sequence not in names:
            raise self.error(f"There is no stream {sequence!r}; choose one of {', '.join(names)}.")
        count = FRAMES if selection.frames is None else selection.frames
        frames = range(PATH_FRAMES)[:: selection.stride][:count]
        with_depth = selection.task != "pose"
        return RenderedStream(sequence, names.index(sequence), frames, with_depth)


class RenderedStream:
    """A stream, rendered anew whenever it is iterated over.

    Args:
        name: what to call it.
        number: which one; the seed, the world and the style of the path follow from it.
        frames: which frames of the path.
        with_depth: whether frames tell their depth.
    """

    def __init__(self, name: str, number: int, frames: range, with_depth: bool) -> None:
        self.name = name
        self._number, self._frames, self._with_depth = number, frames, with_depth

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[TrueFrame]:
        scene = Scene(
            SEEDS + self._number,
            PATH_FRAMES,
            SIZE,
            SceneOptions(
                world=WORLDS[self._number % len(WORLDS)],
                style=STYLES[self._number % len(STYLES)],
                moving=0.0,
            ),
        )
        intrinsics = scene.intrinsics.double().numpy()
        for index in self._frames:
            clip = scene.frames(index, index + 1)
            yield TrueFrame(
                image=clip.image[0].numpy(),
                timestamp=index / RATE,
                depth=clip.depth[0].numpy() if self._with_depth else None,
                world_from_camera=scene.pose(index).numpy(),
                intrinsics=intrinsics,
            )
