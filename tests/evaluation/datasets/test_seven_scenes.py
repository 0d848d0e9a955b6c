from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.datasets.miniatures_scenes import (
    KINECT_SIZE,
    assert_explains,
    shown,
    some_pose,
    write_depth,
    write_matrix,
    write_seven_scenes,
)
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.seven_scenes import (
    COLOR_FROM_DEPTH,
    COLOR_INTRINSICS,
    DEPTH_INTRINSICS,
    SevenScenes,
    project_depth,
)
from ttt3r.evaluation.sequences import Sequence

SCENES = SevenScenes()
NAME = "chess/seq-03"
RECON, POSE = Selection("recon"), Selection("pose")


def first(root: Path, selection: Selection = RECON):
    return next(iter(SCENES.open(root, NAME, selection)))


def test_published_sequences(tmp_path):
    names = SCENES.sequences(tmp_path, "recon")
    assert len(names) == len(set(names)) == 18
    assert names == SCENES.sequences(tmp_path, "pose") == tuple(sorted(names))
    assert names[:3] == ("chess/seq-03", "chess/seq-05", "fire/seq-03")


def test_values(tmp_path):
    sequence = SCENES.open(write_seven_scenes(tmp_path, frames=3), NAME, RECON)
    assert isinstance(sequence, Sequence)
    assert (sequence.name, len(sequence)) == (NAME, 3)
    third = list(sequence)[2]
    assert third.timestamp == pytest.approx(2 / 30)
    np.testing.assert_array_equal(third.intrinsics, COLOR_INTRINSICS)
    np.testing.assert_allclose(third.world_from_camera, some_pose(2), rtol=1e-15)
    flat = np.full(KINECT_SIZE, 1.002, np.float32)
    projected = project_depth(flat, DEPTH_INTRINSICS, COLOR_INTRINSICS, COLOR_FROM_DEPTH)
    np.testing.assert_array_equal(third.depth, projected)
    assert 0.75 < (projected > 0).mean() < 0.85  # (525 / 585)²


@pytest.mark.parametrize(
    ("stride", "frames", "numbers"),
    [(2, None, [0, 2, 4, 6]), (2, 3, [0, 2, 4]), (1, 2, [0, 1]), (2, 200, [0, 2, 4, 6])],
)
@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_selection(tmp_path, stride, frames, numbers, variant):
    chosen = Selection("pose", stride, frames, variant)
    assert shown(SCENES.open(write_seven_scenes(tmp_path), NAME, chosen)) == numbers


def test_a_projected_map_is_read_as_it_is(tmp_path):
    write_seven_scenes(tmp_path, frames=1)
    values = np.full(KINECT_SIZE, 2000)
    values[0, :6] = 0, 1, 9999, 10000, 10001, 65535
    write_depth(tmp_path / NAME / "frame-000000.depth.proj.png", values)
    (tmp_path / NAME / "frame-000000.depth.png").write_bytes(b"not even opened")
    depth = first(tmp_path).depth
    np.testing.assert_allclose(depth[0, :7], [0, 0.001, 9.999, 10, 0, 0, 2], rtol=1e-6)


def test_unknown_depths_are_not_projected(tmp_path):
    """65535 would otherwise be a surface at 65.5 m, beyond and between the others."""
    write_seven_scenes(tmp_path, frames=1)
    values = np.full(KINECT_SIZE, 65535)
    values[240, 320] = 1500
    write_depth(tmp_path / NAME / "frame-000000.depth.png", values)
    depth = first(tmp_path).depth
    assert np.count_nonzero(depth) == 1
    # The centre moves by 525 · (t_x / z + R_02), to the left as the colour camera is to the right.
    row, column = np.argwhere(depth)[0]
    assert column == round(320 + 525 * (-0.02555894 / 1.5 - 0.0079041))
    assert row == round(240 + 525 * (0.0001011 / 1.5 - 0.00815045))
    assert depth.max() == pytest.approx(1.5 * 0.99993555 + 0.00203183, rel=1e-6)


def test_corrected_poses_are_those_of_the_colour_camera(tmp_path):
    """A point of the depth camera is at one place in the world, whichever camera tells of it."""
    write_seven_scenes(tmp_path, frames=2)
    chosen = Selection("pose", variant="corrected")
    corrected = list(SCENES.open(tmp_path, NAME, chosen))[1].world_from_camera
    point = np.array([0.3, -0.2, 1.7, 1.0])
    np.testing.assert_allclose(
        corrected @ (COLOR_FROM_DEPTH @ point), some_pose(1) @ point, atol=1e-12
    )
    offset = np.linalg.inv(some_pose(1)) @ corrected[:, 3]
    assert offset[0] == pytest.approx(0.0256, abs=1e-3)  # to the right


def test_poses_that_are_not_finite_are_unknown(tmp_path):
    write_seven_scenes(tmp_path, frames=2)
    write_matrix(tmp_path / NAME / "frame-000000.pose.txt", np.full((4, 4), np.nan))
    known = [f.world_from_camera is not None for f in SCENES.open(tmp_path, NAME, POSE)]
    assert known == [False, True]


def test_depth_is_not_opened_for_poses(tmp_path):
    write_seven_scenes(tmp_path, frames=2)
    (tmp_path / NAME / "frame-000000.depth.png").write_bytes(b"broken")
    (tmp_path / NAME / "frame-000001.depth.png").unlink()
    frames = list(SCENES.open(tmp_path, NAME, POSE))
    assert [frame.depth for frame in frames] == [None, None]
    with pytest.raises(InputError) as caught:
        SCENES.open(tmp_path, NAME, RECON)
    assert_explains(caught.value, SCENES, "frame-000001.depth.png does not exist")


# TestSplit.txt


def test_the_owners_split_agrees(tmp_path):
    write_seven_scenes(tmp_path, frames=1)
    write_seven_scenes(tmp_path, "chess/seq-01", frames=1)
    (tmp_path / "chess" / "TestSplit.txt").write_text("sequence3\r\nsequence5\r\n")
    assert len(SCENES.open(tmp_path, NAME, POSE)) == 1
    assert len(SCENES.open(tmp_path, "chess/seq-01", POSE)) == 1  # one's own choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"sequence1\nsequence5\n", "does not list chess/seq-03"),
        (b"", "does not list chess/seq-03"),
        (b"sequence3\nseq-05\n", "lines that name no sequence"),
        (b"\xff\xff\x00", "cannot be read"),
    ],
)
def test_the_owners_split_disagrees(tmp_path, text, message):
    write_seven_scenes(tmp_path, frames=1)
    (tmp_path / "chess" / "TestSplit.txt").write_bytes(text)
    with pytest.raises(InputError) as caught:
        SCENES.open(tmp_path, NAME, POSE)
    assert_explains(caught.value, SCENES, message)


# What goes wrong


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("", "does not exist"),
        ("chess", "does not exist"),
        (NAME, "does not exist"),
        (f"{NAME}/frame-000001.color.png", "frame-000001.color.png does not exist"),
        (f"{NAME}/frame-000001.pose.txt", "frame-000001.pose.txt does not exist"),
    ],
)
def test_missing_files(tmp_path, lost, message):
    write_seven_scenes(tmp_path / "scenes", frames=3)
    (tmp_path / "scenes" / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError) as caught:
        SCENES.open(tmp_path / "scenes", NAME, POSE)
    assert_explains(caught.value, SCENES, message)


def test_empty_and_packed_sequences(tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        SCENES.open(tmp_path, NAME, POSE)
    assert_explains(caught.value, SCENES, "holds no images")
    (tmp_path / NAME).rmdir()
    (tmp_path / "chess" / "seq-03.zip").write_bytes(b"PK")
    with pytest.raises(InputError) as caught:
        SCENES.open(tmp_path, NAME, POSE)
    assert_explains(caught.value, SCENES, "seq-03.zip is still packed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 0 0 0\n0 1 0\n0 0 1 0\n0 0 0 1\n", "line 2 of "),
        (b"1 0 0 0\n0 1 0 x\n0 0 1 0\n0 0 0 1\n", "line 2 of "),
        (b"1 0 0 0\n0 1 0 0\n", "has 2 lines of numbers"),
        (b"", "has 0 lines of numbers"),
        (b"\xff\xff", "cannot be read"),
    ],
)
def test_malformed_poses(tmp_path, content, message):
    write_seven_scenes(tmp_path, frames=1)
    (tmp_path / NAME / "frame-000000.pose.txt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        SCENES.open(tmp_path, NAME, POSE)
    assert_explains(caught.value, SCENES, message, "frame-000000.pose.txt")


def test_damaged_files(tmp_path):
    write_seven_scenes(tmp_path, frames=1)
    path = tmp_path / NAME / "frame-000000.depth.png"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as caught:
        first(tmp_path)
    assert_explains(caught.value, SCENES, str(path), "cannot be read")
    write_depth(path, np.full((48, 64), 1000))
    with pytest.raises(InputError) as caught:
        first(tmp_path)
    assert_explains(caught.value, SCENES, "64x48 pixels instead of 640x480")
    image = tmp_path / NAME / "frame-000000.color.png"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(InputError, match=r"frame-000000\.color\.png cannot be read as an image"):
        first(tmp_path)
