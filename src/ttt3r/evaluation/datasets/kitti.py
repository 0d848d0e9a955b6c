"""KITTI's annotated depth: streets as a laser scanner saw them from a moving car."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.sequences import Item, read_depth
from ttt3r.evaluation.text import list_files, require

DRIVES = {
    "2011_09_26": ("0002", "0005", "0013", "0020", "0023", "0036", "0079", "0095", "0113"),
    "2011_09_28": ("0037",),
    "2011_09_29": ("0026",),
    "2011_09_30": ("0016",),
    "2011_10_03": ("0047",),
}
METRES_PER_STEP = 1 / 256
RATE = 10.0  # frames per second


class Kitti(Dataset):
    """The 13 drives of the validation set of KITTI's depth prediction benchmark, left camera.

    The depth is sparse, and begins at frame 5 of a drive. Each depth map goes with the colour image
    of the same number; where that is missing, published preparations went on with unequal numbers
    of images and maps, while this reader refuses. Time is counted from the first image at 10 frames
    per second. Both variants are the same.
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
    names = tuple(f"{date}_drive_{drive}_sync" for date, all_ in DRIVES.items() for drive in all_)

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the frames of a drive that have annotated depth."""
        date = name[: len("2011_09_26")]
        maps = _first_of(
            root, ("val", "data_depth_annotated/val"), f"{name}/proj_depth/groundtruth/image_02"
        )
        images = _first_of(root, ("", "raw"), f"{date}/{name}/image_02/data")
        depths = [path for path in list_files(maps, (".png",)) if path.stem.isdecimal()]
        if not depths:
            raise InputError(f"{maps} holds no depth maps")
        return [
            Item(images / path.name, int(path.stem) / RATE, depth=path)
            for path in selection.pick(depths)
        ]

    def read_depth(self, path: Path) -> Float[np.ndarray, "height width"]:
        """Read a depth map in steps of 1/256 m."""
        return read_depth(path, METRES_PER_STEP)


def _first_of(root: Path, places: tuple[str, ...], rest: str) -> Path:
    """Return the first of the places that exists."""
    found = [root / place / rest for place in places if (root / place / rest).is_dir()]
    return found[0] if found else require(root / places[0] / rest)
