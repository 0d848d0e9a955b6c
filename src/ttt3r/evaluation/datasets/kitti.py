"""KITTI's annotated depth: streets as a laser scanner saw them from a moving car."""

from functools import partial
from pathlib import Path

from ttt3r.evaluation.datasets.base import Dataset, FileSequence, Item, Selection, Task, select
from ttt3r.evaluation.sequences import list_files, read_depth

DRIVES = (
    "2011_09_26_drive_0002_sync",
    "2011_09_26_drive_0005_sync",
    "2011_09_26_drive_0013_sync",
    "2011_09_26_drive_0020_sync",
    "2011_09_26_drive_0023_sync",
    "2011_09_26_drive_0036_sync",
    "2011_09_26_drive_0079_sync",
    "2011_09_26_drive_0095_sync",
    "2011_09_26_drive_0113_sync",
    "2011_09_28_drive_0037_sync",
    "2011_09_29_drive_0026_sync",
    "2011_09_30_drive_0016_sync",
    "2011_10_03_drive_0047_sync",
)
DATE = slice(0, len("2011_09_26"))
DEPTH_FOLDERS = ("val", "data_depth_annotated/val")
RAW_FOLDERS = ("", "raw")
METRES_PER_STEP = 1 / 256
RATE = 10.0  # frames per second


class Kitti(Dataset):
    """The 13 drives of the validation set of KITTI's depth prediction benchmark, left camera.

    The depth is sparse, and begins at frame 5 of a drive. Each depth map goes with the colour image
    of the same number; where that is missing, published preparations went on with unequal numbers
    of images and maps, while this reader refuses. Both variants are the same otherwise.
    """

    name = "kitti"
    title = "KITTI (annotated depth and raw data)"
    page = (
        "https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction "
        "(annotated depth) and https://www.cvlibs.net/datasets/kitti/raw_data.php (images)"
    )
    tree = """\
  ROOT/
    val/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000005.png …
                            annotated depth: uint16, metres = value / 256, 0 = unknown
                            (also found as data_depth_annotated/val/…)
    2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000000.png …
                            raw data, synchronised and rectified: left colour camera
                            (also found as raw/2011_09_26/…)"""
    tasks = ("depth",)

    def sequences(self, root: Path, task: Task) -> tuple[str, ...]:
        """Return the 13 drives."""
        return DRIVES

    def open(self, root: Path, sequence: str, selection: Selection) -> FileSequence:
        """Open a drive; time is counted from its first image at 10 frames per second."""
        maps = self._folder(root, DEPTH_FOLDERS, f"{sequence}/proj_depth/groundtruth/image_02")
        images = self._folder(root, RAW_FOLDERS, f"{sequence[DATE]}/{sequence}/image_02/data")
        items = [
            Item(image=images / path.name, timestamp=int(path.stem) / RATE, depth=path)
            for path in list_files(maps, (".png",))
            if path.stem.isdecimal()
        ]
        if not items:
            raise self.error(f"{maps} holds no depth maps.")
        chosen = select(items, selection)
        for item in chosen:
            self.require(item.image)
        return FileSequence(
            sequence, chosen, partial(read_depth, unit=METRES_PER_STEP), error=self.error
        )

    def _folder(self, root: Path, places: tuple[str, ...], rest: str) -> Path:
        """The first of the places that there is."""
        found = [root / place / rest for place in places if (root / place / rest).is_dir()]
        return found[0] if found else self.require(root / places[0] / rest)
