"""Rendered streams whose truth is exact: nothing to download, up to 100 000 frames each."""

from functools import cache
from pathlib import Path

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.sequences import Item, Sequence, TrueFrame
from ttt3r.scenes import Scene, SceneOptions

SEEDS = 3_500_000  # the first; training, validation and tests of networks take others
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
    names = tuple(f"stream-{number}" for number in range(8))
    needs_root = False
    renderer = "torch"

    def open(self, root: Path, sequence: str, selection: Selection) -> Sequence:
        """Open a stream: 1000 frames after the stride unless the selection says otherwise.

        Raises:
            InputError: if there is none of this name.
        """
        if sequence not in self.names:
            known = ", ".join(self.names)
            raise InputError(f"There is no stream {sequence!r}; choose one of {known}.")
        number = self.names.index(sequence)
        count = FRAMES if selection.frames is None else selection.frames
        frames = range(PATH_FRAMES)[:: selection.stride][:count]
        with_depth = selection.task != "pose"
        return Sequence(
            sequence, frames, lambda index: _frame(_scene(number, self.renderer), index, with_depth)
        )

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return nothing: frames are rendered, and do not lie in files."""
        return []


@cache
def _scene(number: int, renderer: str) -> Scene:
    """Return a stream's scene; the seed, the world and the style of the path follow from it."""
    world, style = WORLDS[number % len(WORLDS)], STYLES[number % len(STYLES)]
    options = SceneOptions(world=world, style=style, moving=0.0)
    return Scene(SEEDS + number, PATH_FRAMES, SIZE, options, renderer)


def _frame(scene: Scene, index: int, with_depth: bool) -> TrueFrame:
    clip = scene.frames(index, index + 1)
    return TrueFrame(
        image=clip.image[0].numpy(),
        timestamp=index / RATE,
        depth=clip.depth[0].numpy() if with_depth else None,
        world_from_camera=scene.pose(index).numpy(),
        intrinsics=scene.intrinsics.double().numpy(),
    )
