"""The test scenes of ScanNet v2: rooms filmed by hand, with the poses of an RGB-D system."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ttt3r.evaluation.datasets.base import Dataset, FileSequence, Item, Selection, Task
from ttt3r.evaluation.sequences import list_files, read_numbers

SCENES = tuple(f"scene{number:04d}_00" for number in range(707, 807))
FRAMES_PER_SECOND = 30.0
ABOVE = "scans_test"  # the folder that the owners' download script makes for these scenes


class ScanNet(Dataset):
    """A hundred rooms; the camera's path was estimated by the owners, and is lost here and there.

    Where it is lost the owners write infinities, and the pose of that frame is unknown here. With
    stride s a scene of n frames has at most n // s of them, so its last frame may be left out; n is
    the number of colour images, poses or depth maps, whichever is the least (depth only counts if
    it has been exported, and is not opened). The owners' exporter keeps no stamps; image i gets
    the time i / 30 s, the camera's rate. Both variants are the same.
    """

    name = "scannet"
    title = "ScanNet v2 (test scenes)"
    page = "http://www.scan-net.org"
    tree = """\
  ROOT/                  or ROOT/scans_test/
    scene0707_00/ … scene0806_00/
      color/0.jpg …
      pose/0.txt …       camera-to-world, four lines of four numbers
      depth/0.png …      optional
Downloads are files named *.sens, from which the owners' SensReader (the one in Python, reader.py)
exports these folders."""
    tasks = ("pose",)

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the names of the hundred test scenes."""
        return SCENES

    def open(self, root: Path, sequence: str, selection: Selection) -> FileSequence:
        """Open a scene.

        Raises:
            InputError: if it is missing, incomplete or damaged; the message shows `tree` and
                `page`.
        """
        above = self.require(root) / ABOVE
        folder = self.require((above if above.is_dir() else root) / sequence)
        images = self._numbered(self.require(folder / "color"), ".jpg")
        poses = self._numbered(self.require(folder / "pose"), ".txt")
        depths = list_files(folder / "depth", (".png",))
        count = min(len(images), len(poses), len(depths) or len(images))
        frames = count // selection.stride
        if selection.frames is not None:
            frames = min(frames, selection.frames)
        if not frames:
            raise self.error(
                f"{folder} has {len(images)} images and {len(poses)} poses, of which no frame "
                f"remains with stride {selection.stride}."
            )
        items = []
        for i in range(0, frames * selection.stride, selection.stride):
            (number, image), (other, pose) = images[i], poses[i]
            if number != other:
                raise self.error(f"{folder} lacks the image or the pose {min(number, other)}.")
            items.append(Item(image, number / FRAMES_PER_SECOND, self._read_pose(pose)))
        return FileSequence(sequence, items, error=self.error)

    def _numbered(self, folder: Path, suffix: str) -> list[tuple[int, Path]]:
        """List files whose names are frame numbers, in the order of these."""
        files = list_files(folder, (suffix,))
        for path in files:
            if not path.stem.isdecimal():
                raise self.error(f"{path} is not named by the number of a frame; take it away.")
        return sorted((int(path.stem), path) for path in files)

    def _read_pose(self, path: Path) -> Float64[np.ndarray, "4 4"] | None:
        damaged = str(self.error("the file is damaged."))
        pose = read_numbers(path, columns=4, hint=damaged)
        if len(pose) != 4:
            raise self.error(f"{path} has {len(pose)} lines of numbers instead of four.")
        return pose if np.isfinite(pose).all() else None
