import numpy as np
import pytest

from tests.evaluation.datasets.miniatures_scenes import (
    DRIVE,
    KITTI_DEPTH,
    KITTI_RAW,
    assert_explains,
    shown,
    write_kitti,
)
from tests.evaluation.trajectories import expected
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.kitti import Kitti
from ttt3r.evaluation.sequences import Sequence

KITTI = Kitti()
DEPTH = Selection("depth")


def test_published_drives(tmp_path):
    drives = KITTI.sequences(tmp_path, "depth")
    assert len(drives) == len(set(drives)) == 13 and DRIVE in drives
    assert drives == tuple(sorted(drives))


def test_values(tmp_path):
    sequence = KITTI.open(write_kitti(tmp_path), DRIVE, DEPTH)
    assert isinstance(sequence, Sequence)
    assert (sequence.name, len(sequence)) == (DRIVE, 7)
    assert shown(sequence) == list(range(5, 12))
    third = list(sequence)[2]
    assert third.timestamp == pytest.approx(0.7)
    assert third.depth.dtype == np.float32
    np.testing.assert_array_equal(third.depth[0, :3], [0.0, 1 / 256, 7.0])
    assert third.world_from_camera is third.intrinsics is None


@pytest.mark.parametrize(
    ("stride", "frames", "numbers"),
    [
        (1, 3, [5, 6, 7]),
        (3, None, [5, 8, 11]),
        (3, 2, [5, 8]),
        (1, 500, list(range(5, 12))),
    ],
)
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_selection(tmp_path, stride, frames, numbers, variant):
    chosen = Selection("depth", stride, frames, variant)
    assert shown(KITTI.open(write_kitti(tmp_path), DRIVE, chosen)) == numbers


def test_the_archives_may_lie_apart(tmp_path):
    write_kitti(tmp_path)
    (tmp_path / "data_depth_annotated").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "val").rename(tmp_path / "data_depth_annotated" / "val")
    (tmp_path / "2011_09_26").rename(tmp_path / "raw" / "2011_09_26")
    (tmp_path / "raw" / KITTI_RAW / "._0000000005.png").write_bytes(b"of a Mac")
    (tmp_path / "data_depth_annotated" / KITTI_DEPTH / "._0000000005.png").write_bytes(b"too")
    assert shown(KITTI.open(tmp_path, DRIVE, DEPTH)) == list(range(5, 12))


# Golden


def golden_selection(frames):
    """(depth maps, images) as published preparations chose them, relative to the root."""
    outputs = expected("preprocess")["kitti"]["outputs"]
    return [
        [source for written, source in sorted(outputs.items()) if f"/{kind}_{frames}/" in written]
        for kind in ("groundtruth_depth_gathered", "image_gathered")
    ]


def our_selection(root, frames):
    sequence = KITTI.open(root, DRIVE, Selection("depth", frames=frames))
    return [
        [path.relative_to(root).as_posix() for path in paths]
        for paths in zip(*((item.depth, item.image) for item in sequence.items), strict=True)
    ]


def test_golden_selection(tmp_path):
    images = [i for i in range(22) if i != 9]
    write_kitti(tmp_path, range(5, 17), images)
    assert our_selection(tmp_path, 4) == golden_selection(4)
    # Image 9 is missing. Published preparations took one image less than maps.
    missing = f"{KITTI_RAW}/0000000009.png"
    with pytest.raises(InputError) as caught:
        our_selection(tmp_path, 500)
    assert_explains(caught.value, KITTI, str(tmp_path / missing))
    write_kitti(tmp_path, [], [9])
    maps, images = golden_selection(500)
    assert our_selection(tmp_path, 500) == [maps, sorted([*images, missing])]


# What goes wrong


@pytest.mark.parametrize("lost", ["", "val", "2011_09_26", KITTI_RAW])
def test_missing_folders(tmp_path, lost):
    write_kitti(tmp_path / "kitti")
    (tmp_path / "kitti" / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError) as caught:
        KITTI.open(tmp_path / "kitti", DRIVE, DEPTH)
    assert_explains(caught.value, KITTI, str(tmp_path / "kitti" / lost), "does not exist")


def test_unknown_drive_and_no_maps(tmp_path):
    write_kitti(tmp_path)
    with pytest.raises(InputError, match=r"drive_0001_sync.* does not exist"):
        KITTI.open(tmp_path, "2011_09_26_drive_0001_sync", DEPTH)
    for path in (tmp_path / KITTI_DEPTH).iterdir():
        path.unlink()
    with pytest.raises(InputError) as caught:
        KITTI.open(tmp_path, DRIVE, DEPTH)
    assert_explains(caught.value, KITTI, "holds no depth maps")


def test_damaged_files(tmp_path):
    sequence = KITTI.open(write_kitti(tmp_path), DRIVE, DEPTH)
    depth = tmp_path / KITTI_DEPTH / "0000000005.png"
    depth.write_bytes(depth.read_bytes()[:50])
    with pytest.raises(InputError) as caught:
        list(sequence)
    assert_explains(caught.value, KITTI, str(depth))
    image = tmp_path / KITTI_RAW / "0000000005.png"
    image.write_bytes(b"")
    with pytest.raises(InputError, match=r"0000000005\.png cannot be read as an image"):
        list(sequence)
