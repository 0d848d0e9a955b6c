"""The test scenes of ScanNet v2: rooms filmed by hand, with the poses of an RGB-D system."""

from pathlib import Path

from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Dataset, Selection
from ttt3r.evaluation.sequences import Item, known
from ttt3r.evaluation.text import list_files, read_matrix, require

FRAMES_PER_SECOND = 30.0


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
    names = tuple(f"scene{number:04d}_00" for number in range(707, 807))
    above = "scans_test"  # the folder that the owners' download script makes for these scenes

    def items(self, root: Path, name: str, selection: Selection) -> list[Item]:
        """Return the selected frames of a scene; no other pose is read."""
        folder = require(root / name)
        images = _numbered(require(folder / "color"), ".jpg")
        poses = _numbered(require(folder / "pose"), ".txt")
        depths = list_files(folder / "depth", (".png",))
        count = min(len(images), len(poses), len(depths) or len(images))
        whole = count // selection.stride * selection.stride
        if not whole:
            raise InputError(
                f"{folder} has {len(images)} images and {len(poses)} poses, of which no frame "
                f"remains with stride {selection.stride}"
            )
        items = []
        for image, pose in selection.pick(list(zip(images[:whole], poses[:whole], strict=True))):
            number, other = int(image.stem), int(pose.stem)
            if number != other:
                raise InputError(f"{folder} lacks the image or the pose {min(number, other)}")
            items.append(Item(image, number / FRAMES_PER_SECOND, known(read_matrix(pose))))
        return items


def _numbered(folder: Path, suffix: str) -> list[Path]:
    """Return files whose names are frame numbers, in the order of these."""
    files = list_files(folder, (suffix,))
    for path in files:
        if not path.stem.isdecimal():
            raise InputError(f"{path} is not named by the number of a frame; take it away")
    return sorted(files, key=lambda path: int(path.stem))
