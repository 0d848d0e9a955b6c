"""Sequences with known truth: the layout on disk, what it refuses, and the real ones if present."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.goldens import PROJECT_ROOT
from ttt3r.errors import InputError
from ttt3r.evaluation.sequences import ArraySequence, First, FolderSequence, Sequence

DATA = Path(os.environ.get("TTT3R_DATA") or PROJECT_ROOT.parent / "shared" / "data")
REAL = sorted(path.parent for path in DATA.glob("*/poses.txt"))
HEIGHT, WIDTH = 12, 16


def write_sequence(folder: Path, frames: int = 4, seed: int = 0, size=(HEIGHT, WIDTH)) -> Path:
    """A miniature in the layout of `TREE`: a camera that turns about y while it moves."""
    random = np.random.default_rng(seed)
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    lines = ["# stamp tx ty tz qx qy qz qw"]
    for i in range(frames):
        pixels = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "rgb" / f"{i:06d}.png")
        depth = random.integers(500, 4000, size).astype(np.uint16)
        depth[0, 0] = 0
        Image.fromarray(depth).save(folder / "depth" / f"{i:06d}.png")
        half = 0.05 * i
        numbers = [0.5 * i, 0.1 * i, 0.02 * i**2, 0.3 * i, 0, np.sin(half), 0, np.cos(half)]
        lines.append(" ".join(f"{n:.9f}" for n in numbers))
    (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    (folder / "intrinsics.txt").write_text("20 21 7.5 5.5\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / "tiny")


def test_a_folder_is_read_frame_by_frame(folder: Path):
    sequence = FolderSequence(folder)
    assert isinstance(sequence, Sequence)
    assert (sequence.name, len(sequence), sequence.has_depth, sequence.has_poses) == (
        "tiny",
        4,
        True,
        True,
    )
    frames = list(sequence)
    assert len(frames) == 4 and len(list(sequence)) == 4  # may be done again
    third = frames[2]
    assert third.image.shape == (HEIGHT, WIDTH, 3) and third.image.dtype == np.uint8
    assert third.timestamp == 1.0
    assert third.depth.dtype == np.float32 and third.depth[0, 0] == 0
    stored = np.array(Image.open(folder / "depth" / "000002.png"))
    np.testing.assert_allclose(third.depth, stored / 1000, rtol=1e-6)
    c, s = np.cos(0.2), np.sin(0.2)
    rotation = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    np.testing.assert_allclose(third.world_from_camera[:3, :3], rotation, atol=1e-8)
    np.testing.assert_allclose(third.world_from_camera[:3, 3], [0.2, 0.08, 0.6], atol=1e-8)
    np.testing.assert_array_equal(third.intrinsics, [[20, 0, 7.5], [0, 21, 5.5], [0, 0, 1]])


def test_all_but_images_may_be_missing(folder: Path):
    for path in (folder / "depth").iterdir():
        path.unlink()
    (folder / "depth").rmdir()
    (folder / "poses.txt").unlink()
    (folder / "intrinsics.txt").unlink()
    sequence = FolderSequence(folder)
    assert not sequence.has_depth and not sequence.has_poses
    for i, frame in enumerate(sequence):
        assert frame.timestamp == i
        assert frame.depth is frame.world_from_camera is frame.intrinsics is None


@pytest.mark.parametrize("pose", ["nan nan nan 0 0 0 1", "1 2 3 0 0 0 0", "1 inf 3 0 0 0 1"])
def test_poses_that_are_not_finite_are_unknown(folder: Path, pose: str):
    lines = (folder / "poses.txt").read_text().splitlines()
    lines[2] = f"0.5 {pose}"
    (folder / "poses.txt").write_text("\n".join(lines))
    known = [frame.world_from_camera is not None for frame in FolderSequence(folder)]
    assert known == [True, False, True, True]


def test_no_images(tmp_path: Path):
    with pytest.raises(InputError, match=r"no images in rgb(?s:.)*intrinsics\.txt"):
        FolderSequence(tmp_path)


def test_a_missing_depth_map(folder: Path):
    (folder / "depth" / "000001.png").unlink()
    with pytest.raises(InputError, match=r"4 images .* 3 maps(?s:.)*expected"):
        FolderSequence(folder)


def test_a_missing_pose(folder: Path):
    lines = (folder / "poses.txt").read_text().splitlines()
    (folder / "poses.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="3 poses for 4 images"):
        FolderSequence(folder)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("poses.txt", "0 1 2\n", "line 1 of .* is not 8 numbers"),
        ("poses.txt", "# none\n0 1 2 3 0 0 0 x\n", "line 2 of .* is not 8 numbers"),
        ("intrinsics.txt", "1 2 3 4\n1 2 3 4\n", "2 lines"),
    ],
)
def test_broken_texts(folder: Path, name: str, text: str, message: str):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        FolderSequence(folder)


def test_depth_of_another_size_or_kind(folder: Path):
    path = folder / "depth" / "000000.png"
    Image.fromarray(np.zeros((5, 5), np.uint16)).save(path)
    with pytest.raises(InputError, match="5x5 pixels and its image 16x12"):
        next(iter(FolderSequence(folder)))
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    with pytest.raises(InputError, match="no depth map of 16 bits"):
        next(iter(FolderSequence(folder)))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a depth map"):
        next(iter(FolderSequence(folder)))


def test_the_first_frames(folder: Path):
    sequence = FolderSequence(folder)
    assert len(First(sequence, 3)) == 3 and len(list(First(sequence, 3))) == 3
    assert len(First(sequence, 9)) == 4 and len(list(First(sequence, 9))) == 4
    assert First(sequence, 3).name == "tiny"


def test_arrays(folder: Path):
    frames = list(FolderSequence(folder))
    poses = np.stack([frame.world_from_camera for frame in frames])
    poses[1] = np.nan
    sequence = ArraySequence("own", np.stack([f.image for f in frames]), world_from_camera=poses)
    assert isinstance(sequence, Sequence) and len(sequence) == 4
    second = list(sequence)[1]
    assert second.world_from_camera is None and second.depth is None
    np.testing.assert_array_equal(second.image, frames[1].image)


@pytest.mark.skipif(not REAL, reason=f"no real sequences in {DATA}; set TTT3R_DATA")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_sequences_open(path: Path):
    sequence = FolderSequence(path)
    assert len(sequence) == len(list((path / "rgb").iterdir()))
    assert sequence.has_poses
    assert sequence.has_depth == (path / "depth").is_dir()
    first = next(iter(sequence))
    assert first.intrinsics is not None and first.world_from_camera is not None
    assert first.intrinsics[0, 2] == pytest.approx(first.image.shape[1] / 2, rel=0.1)
    if sequence.has_depth:
        assert 0.1 < np.median(first.depth[first.depth > 0]) < 10
