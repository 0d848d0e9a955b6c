"""The test scenes of ScanNet, as the owners' exporter writes them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.datasets.miniatures_rgbd import write_scannet
from tests.goldens import goldens
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.scannet import ScanNet

SCENE = "scene0707_00"
POSE = Selection("pose")
HELP = r"(?s:.)*pose/0\.txt(?s:.)*\.sens(?s:.)*scan-net\.org"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_scannet(tmp_path / SCENE, 12, lost=(6,))
    return tmp_path


def numbers(sequence) -> list[int]:
    return [int(item.image.stem) for item in sequence.items]


def test_frames(root: Path):
    sequence = ScanNet().open(root, SCENE, POSE)
    assert (sequence.name, len(sequence)) == (SCENE, 12)
    frames = list(sequence)  # depth maps of the miniature cannot be opened
    assert numbers(sequence) == list(range(12))  # by number: 10 does not come before 2
    assert frames[10].timestamp == pytest.approx(10 / 30)
    np.testing.assert_allclose(frames[10].world_from_camera[:, 3], [10, 5, -10, 1])
    assert abs(int(frames[10].image[0, 0, 0]) - 10) <= 2  # JPEG
    assert frames[10].depth is None and frames[10].intrinsics is None
    assert [f.world_from_camera is None for f in frames] == [i == 6 for i in range(12)]


def test_the_hundred_scenes(root: Path):
    scenes = ScanNet().sequences(root, "pose")
    assert len(scenes) == 100
    assert (scenes[0], scenes[-1]) == ("scene0707_00", "scene0806_00")


def test_scenes_may_lie_where_the_download_puts_them(tmp_path: Path):
    write_scannet(tmp_path / "scans_test" / SCENE, 3)
    assert len(ScanNet().open(tmp_path, SCENE, POSE)) == 3


@pytest.mark.parametrize("variant", ["published", "corrected"])
@pytest.mark.parametrize(
    "stride, frames, chosen",
    [
        (3, None, [0, 3, 6, 9]),
        (3, 2, [0, 3]),
        (3, 1000, [0, 3, 6, 9]),
        (5, None, [0, 5]),  # frame 10 is not shown: 12 // 5 frames
        (1, 3, [0, 1, 2]),
    ],
)
def test_stride_and_number(root: Path, stride, frames, chosen, variant):
    selection = Selection("pose", stride, frames, variant)
    assert numbers(ScanNet().open(root, SCENE, selection)) == chosen


@pytest.mark.parametrize(
    "folder, suffix, frames",
    [("color", "jpg", 9), ("pose", "txt", 9), ("depth", "png", 9)],
)
def test_the_shortest_list_counts(root: Path, folder: str, suffix: str, frames: int):
    for i in range(frames, 12):
        (root / SCENE / folder / f"{i}.{suffix}").unlink()
    assert len(ScanNet().open(root, SCENE, POSE)) == frames
    assert numbers(ScanNet().open(root, SCENE, Selection("pose", 2))) == [0, 2, 4, 6]


def test_depth_need_not_be_exported(root: Path):
    for path in (root / SCENE / "depth").iterdir():
        path.unlink()
    (root / SCENE / "depth").rmdir()
    assert len(ScanNet().open(root, SCENE, POSE)) == 12


@pytest.mark.parametrize("frames", [4, 90])
def test_golden_selection(tmp_path: Path, frames: int):
    golden = json.loads((goldens("eval") / "preprocess" / "expected.json").read_text())["scannet"]
    assert frames in golden["targets"]
    write_scannet(tmp_path / "scene0707_00", 20, lost=(6,))
    write_scannet(tmp_path / "scene0708_00", 11, lost=(6,))
    for scene in ("scene0707_00", "scene0708_00"):
        prefix = f"long_scannet_s3/{scene}/"
        outputs = {n: v for n, v in sorted(golden["outputs"].items()) if n.startswith(prefix)}
        images = [v for n, v in outputs.items() if n.startswith(f"{prefix}color_{frames}/")]
        sequence = ScanNet().open(tmp_path, scene, Selection("pose", 3, frames))
        found = [item.image.relative_to(tmp_path).as_posix() for item in sequence.items]
        assert found == images
        rows = outputs[f"{prefix}pose_{frames}.txt"]["text"].splitlines()
        for item, row in zip(sequence.items, rows, strict=True):
            pose = np.array(row.split(), dtype=np.float64).reshape(4, 4)
            if np.isfinite(pose).all():
                np.testing.assert_array_equal(item.world_from_camera, pose)
            else:
                assert item.world_from_camera is None


def test_a_missing_root_scene_or_folder(root: Path):
    with pytest.raises(InputError, match=f"nowhere does not exist{HELP}"):
        ScanNet().open(root / "nowhere", SCENE, POSE)
    with pytest.raises(InputError, match=f"scene0800_00 does not exist{HELP}"):
        ScanNet().open(root, "scene0800_00", POSE)
    (root / "scene0800_00").mkdir()
    (root / "scene0800_00" / "scene0800_00.sens").touch()
    with pytest.raises(InputError, match=f"color does not exist{HELP}"):
        ScanNet().open(root, "scene0800_00", POSE)


@pytest.mark.parametrize("name", ["color/4.jpg", "pose/4.txt"])
def test_a_missing_file(root: Path, name: str):
    (root / SCENE / name).unlink()
    with pytest.raises(InputError, match=f"lacks the image or the pose 4{HELP}"):
        ScanNet().open(root, SCENE, POSE)


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 0 0 0\n0 1 0 0\n", "2 lines of numbers instead of 4"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0", "line 4 of .* is not 4 numbers"),
        ("1 0 0 0\n0 1 0 0\n0 0 one 0\n0 0 0 1", "line 3 of .* is not 4 numbers"),
        ("", "0 lines of numbers"),
    ],
)
def test_damaged_poses(root: Path, text: str, message: str):
    (root / SCENE / "pose" / "3.txt").write_text(text)
    with pytest.raises(InputError, match=message + HELP):
        ScanNet().open(root, SCENE, POSE)
    assert len(ScanNet().open(root, SCENE, Selection("pose", frames=3))) == 3  # is not read


def test_no_frames_and_other_names(root: Path):
    with pytest.raises(InputError, match=f"12 images and 12 poses.* stride 13{HELP}"):
        ScanNet().open(root, SCENE, Selection("pose", 13))
    (root / SCENE / "color" / "frame-000000.color.jpg").touch()
    with pytest.raises(InputError, match=f"not named by the number of a frame{HELP}"):
        ScanNet().open(root, SCENE, POSE)


def test_a_truncated_image(root: Path):
    (root / SCENE / "color" / "0.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"0\.jpg cannot be read as an image"):
        next(iter(ScanNet().open(root, SCENE, POSE)))
