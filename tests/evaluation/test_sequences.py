"""Sequences with known truth: the layout on disk, what it refuses, and the real ones if present."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.arrays import array_sequence
from tests.evaluation.tasks.told import protocol
from tests.goldens import PROJECT_ROOT
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.folders import Folders
from ttt3r.evaluation.sequences import Sequence
from ttt3r.evaluation.tasks import RECORDERS
from ttt3r.types import Preparation

DATA = Path(os.environ.get("TTT3R_DATA") or PROJECT_ROOT.parent / "shared" / "data")
REAL = sorted(path.parent for path in DATA.glob("*/poses.txt"))
HEIGHT, WIDTH = 12, 16


def opened(folder: Path, task="recon") -> Sequence:
    """Open a folder with all its truth."""
    return Folders().open(folder, folder.name, Selection(task))


def write_sequence(folder: Path, frames: int = 4, seed: int = 0, size=(HEIGHT, WIDTH)) -> Path:
    """A miniature in the layout of `Folders`: a camera that turns about y while it moves."""
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


@pytest.mark.parametrize("task", RECORDERS)
def test_transparent_pixels_are_what_a_run_makes_of_them(folder, tmp_path, task):
    """White for VGGT; other networks see the colour, whatever its opacity."""
    pixels = np.full((HEIGHT, WIDTH, 4), 40, np.uint8)
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(folder / "rgb" / "000000.png")
    truth = next(iter(opened(folder)))
    for policy, seen in ((Preparation(28, 14, by_width=True), 255), (Preparation(28, 14), 40)):
        one = RECORDERS[task](protocol(task), opened(folder), policy, tmp_path)
        with contextlib.closing(one):
            assert (one.prepare(truth).image == seen).all()


def test_a_folder_is_read_frame_by_frame(folder: Path):
    sequence = opened(folder)
    assert isinstance(sequence, Sequence)
    assert (sequence.name, len(sequence)) == ("tiny", 4)
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


@pytest.mark.parametrize("pose", ["nan nan nan 0 0 0 1", "1 2 3 0 0 0 0", "1 inf 3 0 0 0 1"])
def test_poses_that_are_not_finite_are_unknown(folder: Path, pose: str):
    lines = (folder / "poses.txt").read_text().splitlines()
    lines[2] = f"0.5 {pose}"
    (folder / "poses.txt").write_text("\n".join(lines))
    known = [frame.world_from_camera is not None for frame in opened(folder)]
    assert known == [True, False, True, True]


def test_a_missing_depth_map(folder: Path):
    (folder / "depth" / "000001.png").unlink()
    with pytest.raises(InputError, match=r"4 images .* 3 maps(?s:.)*expected"):
        opened(folder)


def test_a_missing_pose(folder: Path):
    lines = (folder / "poses.txt").read_text().splitlines()
    (folder / "poses.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match="3 poses for 4 images"):
        opened(folder)


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
        opened(folder)


def test_depth_of_another_size_or_kind(folder: Path):
    path = folder / "depth" / "000000.png"
    Image.fromarray(np.zeros((5, 5), np.uint16)).save(path)
    with pytest.raises(InputError, match="5x5 pixels and its image 16x12"):
        next(iter(opened(folder)))
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    with pytest.raises(InputError, match="not a depth map of 16 bits"):
        next(iter(opened(folder)))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a depth map"):
        next(iter(opened(folder)))


def test_the_first_frames(folder: Path):
    sequence = opened(folder)
    assert len(sequence.first(3)) == 3 and len(list(sequence.first(3))) == 3
    assert len(sequence.first(9)) == 4 and len(list(sequence.first(9))) == 4
    assert sequence.first(3).name == "tiny"


def test_the_digest_tells_data_apart_without_reading_them(folder: Path):
    digest = opened(folder).digest
    assert digest == opened(folder).digest
    (folder / "rgb" / "000001.png").write_bytes(b"of another size")
    assert opened(folder).digest != digest
    assert array_sequence("own", np.zeros((1, 4, 4, 3), np.uint8)).digest == ""


@pytest.mark.skipif(not REAL, reason=f"no real sequences in {DATA}; set TTT3R_DATA")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_sequences_open(path: Path):
    with_depth = (path / "depth").is_dir()
    sequence = opened(path, "recon" if with_depth else "pose")
    assert len(sequence) == len(list((path / "rgb").iterdir()))
    first = next(iter(sequence))
    assert first.intrinsics is not None and first.world_from_camera is not None
    assert first.intrinsics[0, 2] == pytest.approx(first.image.shape[1] / 2, rel=0.1)
    if with_depth:
        assert 0.1 < np.median(first.depth[first.depth > 0]) < 10
