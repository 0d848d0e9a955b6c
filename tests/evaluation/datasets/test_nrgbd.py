import numpy as np
import pytest

from tests.evaluation.datasets.miniatures_scenes import (
    assert_explains,
    shown,
    some_pose,
    write_depth,
    write_matrix,
    write_nrgbd,
)
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.nrgbd import FOCAL, Nrgbd
from ttt3r.evaluation.sequences import Sequence

NRGBD = Nrgbd()
NAME = "kitchen"
RECON, POSE = Selection("recon"), Selection("pose")


def test_published_rooms(tmp_path):
    names = NRGBD.sequences(tmp_path, "recon")
    assert len(names) == len(set(names)) == 9 and NAME in names
    assert names == tuple(sorted(names))


def test_values(tmp_path):
    """Twelve images, so that img10 would come before img2 by name."""
    sequence = NRGBD.open(write_nrgbd(tmp_path), NAME, RECON)
    assert isinstance(sequence, Sequence)
    assert (sequence.name, len(sequence)) == (NAME, 12)
    assert shown(sequence) == list(range(12))
    for i, frame in enumerate(sequence):
        assert frame.timestamp == i
        np.testing.assert_allclose(frame.depth, 1 + i / 1000, rtol=1e-6)
        np.testing.assert_allclose(frame.world_from_camera, some_pose(i), atol=1e-15)
        np.testing.assert_array_equal(
            frame.intrinsics, [[FOCAL, 0, 320], [0, FOCAL, 240], [0, 0, 1]]
        )


@pytest.mark.parametrize(
    ("stride", "frames", "numbers"),
    [
        (5, None, [0, 5, 10]),
        (5, 2, [0, 5]),
        (500, None, [0, 6]),  # half of the images at most
        (6, None, [0, 6]),
        (1, 100, list(range(12))),
    ],
)
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_selection(tmp_path, stride, frames, numbers, variant):
    chosen = Selection("recon", stride, frames, variant)
    assert shown(NRGBD.open(write_nrgbd(tmp_path), NAME, chosen)) == numbers


def test_one_image_is_shown(tmp_path):
    assert shown(NRGBD.open(write_nrgbd(tmp_path, frames=1), NAME, Selection("pose", 500))) == [0]


def test_unknown_poses(tmp_path):
    write_nrgbd(tmp_path, frames=3)
    poses = np.loadtxt(tmp_path / NAME / "poses.txt").reshape(-1, 4, 4)
    poses[1] = np.nan
    write_matrix(tmp_path / NAME / "poses.txt", poses.reshape(-1, 4))
    published = [frame.world_from_camera for frame in NRGBD.open(tmp_path, NAME, POSE)]
    # The identity in OpenGL axes, like every stored matrix.
    np.testing.assert_array_equal(published[1], np.diag([1.0, -1.0, -1.0, 1.0]))
    chosen = Selection("pose", variant="corrected")
    corrected = [frame.world_from_camera for frame in NRGBD.open(tmp_path, NAME, chosen)]
    assert corrected[1] is None
    for i in (0, 2):
        np.testing.assert_array_equal(published[i], corrected[i])


def test_depth_rules(tmp_path):
    write_nrgbd(tmp_path, frames=1)
    values = [0, 1, 9999, 10000, 10001, 65535]
    write_depth(tmp_path / NAME / "depth" / "depth0.png", np.tile(values, (4, 1)))
    depth = next(iter(NRGBD.open(tmp_path, NAME, RECON))).depth
    np.testing.assert_allclose(depth[0], [0, 0.001, 9.999, 10, 0, 0], rtol=1e-6)


def test_the_focal_length_in_the_folder_counts(tmp_path):
    write_nrgbd(tmp_path, frames=2)
    (tmp_path / NAME / "focal.txt").write_text("500.5\n")
    frame = next(iter(NRGBD.open(tmp_path, NAME, POSE)))
    np.testing.assert_array_equal(np.diag(frame.intrinsics), [500.5, 500.5, 1.0])


def test_depth_is_not_opened_for_poses(tmp_path):
    write_nrgbd(tmp_path, frames=3)
    (tmp_path / NAME / "depth" / "depth0.png").write_bytes(b"broken")
    (tmp_path / NAME / "depth" / "depth1.png").unlink()
    frames = list(NRGBD.open(tmp_path, NAME, POSE))
    assert [frame.depth for frame in frames] == [None] * 3
    with pytest.raises(InputError) as caught:
        NRGBD.open(tmp_path, NAME, RECON)
    assert_explains(caught.value, NRGBD, "depth1.png does not exist")


def test_stray_files_are_passed_over(tmp_path):
    write_nrgbd(tmp_path, frames=3)
    for name in ("readme.txt", "kitchen/images/img.png", "kitchen/images/thumbs.png"):
        (tmp_path / name).write_text("nothing")
    (tmp_path / "kitchen" / "images" / "7.png").write_text("nothing")
    assert shown(NRGBD.open(tmp_path, NAME, RECON)) == [0, 1, 2]


# What goes wrong


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("", "rooms does not exist"),
        (NAME, "kitchen does not exist"),
        (f"{NAME}/images", "images holds no images"),
        (f"{NAME}/images/img1.png", "img1.png does not exist"),
        (f"{NAME}/images/img2.png", "12 lines for 2 images"),
        (f"{NAME}/poses.txt", "poses.txt does not exist"),
    ],
)
def test_missing_files(tmp_path, lost, message):
    write_nrgbd(tmp_path / "rooms", frames=3)
    (tmp_path / "rooms" / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError) as caught:
        NRGBD.open(tmp_path / "rooms", NAME, POSE)
    assert_explains(caught.value, NRGBD, message)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("poses.txt", b"1 0 0 0\n0 1 0\n0 0 1 0\n0 0 0 1\n", "line 2 of "),
        ("poses.txt", b"1 0 0 0\n0 1 0 y\n0 0 1 0\n0 0 0 1\n", "line 2 of "),
        ("poses.txt", b"", "0 lines for 1 images"),
        ("poses.txt", b"\xff\xff", "cannot be read"),
        ("focal.txt", b"", "not one focal length"),
        ("focal.txt", b"-3\n", "not one focal length"),
        ("focal.txt", b"nan\n", "not one focal length"),
        ("focal.txt", b"554 554\n", "line 1 of "),
    ],
)
def test_malformed_texts(tmp_path, file, content, message):
    write_nrgbd(tmp_path, frames=1)
    (tmp_path / NAME / file).write_bytes(content)
    with pytest.raises(InputError) as caught:
        NRGBD.open(tmp_path, NAME, POSE)
    assert_explains(caught.value, NRGBD, message, file)


def test_damaged_files(tmp_path):
    sequence = NRGBD.open(write_nrgbd(tmp_path, frames=1), NAME, RECON)
    path = tmp_path / NAME / "depth" / "depth0.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError) as caught:
        list(sequence)
    assert_explains(caught.value, NRGBD, str(path), "cannot be read")
    image = tmp_path / NAME / "images" / "img0.png"
    image.write_bytes(image.read_bytes()[:30])
    with pytest.raises(InputError, match=r"img0\.png cannot be read as an image"):
        list(sequence)
