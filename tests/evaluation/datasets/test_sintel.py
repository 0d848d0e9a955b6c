"""The training scenes of MPI Sintel and their binary files."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.datasets.miniatures_rgbd import (
    HEIGHT,
    WIDTH,
    sintel_camera,
    write_sintel,
)
from tests.goldens import goldens
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.sintel import Sintel, read_camera, read_depth
from ttt3r.geometry import se3

SCENE = "alley_2"
POSE, DEPTH = Selection("pose"), Selection("depth")
HELP = r"(?s:.)*camdata_left/alley_1(?s:.)*sintel\.is\.tue\.mpg\.de"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sintel(tmp_path, SCENE, 5)


def replace_by_rubbish(folder: Path) -> None:
    for path in folder.rglob("frame_*"):
        path.write_bytes(b"not to be opened")


def test_depth(root: Path):
    replace_by_rubbish(root / "training" / "camdata_left")
    sequence = Sintel().open(root, SCENE, DEPTH)
    assert (sequence.name, len(sequence)) == (SCENE, 5)
    frames = list(sequence)
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 1, 2, 3, 4]  # the final rendering
    depth = frames[3].depth
    assert depth.dtype == np.float32 and depth.shape == (HEIGHT, WIDTH)
    assert depth[0, 0] == 1e4 and (depth.ravel()[1:] == 3.5).all()
    assert frames[3].timestamp == 3 / 24
    assert frames[3].world_from_camera is frames[3].intrinsics is None


def test_poses(root: Path):
    replace_by_rubbish(root / "training" / "depth")
    sequence = Sintel().open(root, SCENE, POSE)
    assert (sequence.name, len(sequence)) == (SCENE, 5)
    for i, frame in enumerate(sequence):
        matrix, camera_from_world = sintel_camera(i)
        np.testing.assert_array_equal(frame.intrinsics, matrix)
        product = camera_from_world @ frame.world_from_camera
        np.testing.assert_allclose(product, np.eye(4)[:3], atol=1e-12)
        assert frame.depth is None and frame.image[0, 0, 0] == i


def test_poses_take_no_depth_files(root: Path):
    folder = root / "training" / "depth"
    folder.rename(root / "elsewhere")
    assert len(Sintel().open(root, SCENE, POSE)) == 5
    with pytest.raises(InputError, match=f"alley_2 does not exist{HELP}"):
        Sintel().open(root, SCENE, DEPTH)


@pytest.mark.parametrize("variant", ["published", "corrected"])
@pytest.mark.parametrize("task", ["pose", "depth"])
@pytest.mark.parametrize(
    "stride, frames, chosen",
    [(1, 2, [0, 1]), (2, None, [0, 2, 4]), (2, 2, [0, 2]), (3, 9, [0, 3]), (1, 50, range(5))],
)
def test_stride_and_number(root: Path, task, stride, frames, chosen, variant):
    sequence = list(Sintel().open(root, SCENE, Selection(task, stride, frames, variant)))
    assert [frame.image[0, 0, 0] for frame in sequence] == list(chosen)
    if task == "pose":
        focals = [frame.intrinsics[0, 0] for frame in sequence]
        assert focals == [688.0 + i for i in chosen]
    else:
        assert [frame.depth[1, 1] for frame in sequence] == [i + 0.5 for i in chosen]


def test_the_published_scenes(root: Path):
    everything, poses = Sintel().sequences(root, "depth"), Sintel().sequences(root, "pose")
    assert len(set(everything)) == 23 and len(set(poses)) == 14
    assert set(poses) < set(everything)
    assert list(everything) == sorted(everything) and list(poses) == sorted(poses)


def test_golden_depth():
    folder = goldens("eval") / "depth"
    expected = np.load(folder / "sample_dpt.npy")
    depth = read_depth(folder / "sample.dpt")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, expected)


def test_golden_cameras(tmp_path: Path):
    folder = goldens("eval") / "pose"
    golden = json.loads((folder / "expected.json").read_text())["cases"]["sintel"]
    expected = np.array(golden["loaded_xyz_qwxyz"])
    training = tmp_path / "training"
    (training / "final" / SCENE).mkdir(parents=True)
    (training / "camdata_left").mkdir()
    (training / "camdata_left" / SCENE).symlink_to(folder / golden["gt"])
    for stamp in golden["loaded_stamps"]:
        (training / "final" / SCENE / f"frame_{int(stamp):04d}.png").touch()
    sequence = Sintel().open(tmp_path, SCENE, POSE)
    poses = np.stack([item.world_from_camera for item in sequence.items])
    poses[:, :3, 3] -= poses[:, :3, 3].mean(0)
    rotations = se3.pose_from_encoding(torch.from_numpy(expected)).numpy()[:, :3, :3]
    np.testing.assert_allclose(poses[:, :3, 3], expected[:, :3], atol=1e-9)
    np.testing.assert_allclose(poses[:, :3, :3], rotations, atol=1e-9)


def test_a_missing_root_or_scene(root: Path):
    with pytest.raises(InputError, match=f"nowhere does not exist{HELP}"):
        Sintel().open(root / "nowhere", SCENE, POSE)
    with pytest.raises(InputError, match=f"training does not exist{HELP}"):
        Sintel().open(root / "training", SCENE, POSE)
    with pytest.raises(InputError, match=f"temple_2 does not exist{HELP}"):
        Sintel().open(root, "temple_2", POSE)
    (root / "training" / "final" / "temple_2").mkdir()
    with pytest.raises(InputError, match=f"temple_2 has no images{HELP}"):
        Sintel().open(root, "temple_2", POSE)


@pytest.mark.parametrize(
    "task, folder, name", [("pose", "camdata_left", "3.cam"), ("depth", "depth", "3.dpt")]
)
def test_unequal_counts_and_names(root: Path, task, folder, name):
    path = root / "training" / folder / SCENE / f"frame_000{name}"
    path.rename(path.with_stem("frame_0033"))
    with pytest.raises(InputError, match=f"5 files for the 5 images{HELP}"):
        Sintel().open(root, SCENE, Selection(task))
    path.with_stem("frame_0033").unlink()
    with pytest.raises(InputError, match=f"4 files for the 5 images{HELP}"):
        Sintel().open(root, SCENE, Selection(task))


def test_damaged_files_of_a_scene(root: Path):
    camera = root / "training" / "camdata_left" / SCENE / "frame_0002.cam"
    camera.write_bytes(camera.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"frame_0002\.cam has 171 bytes{HELP}"):
        Sintel().open(root, SCENE, POSE)
    assert len(Sintel().open(root, SCENE, Selection("pose", frames=1))) == 1  # is not read
    depth = root / "training" / "depth" / SCENE / "frame_0002.dpt"
    depth.write_bytes(depth.read_bytes()[:-1])
    frames = iter(Sintel().open(root, SCENE, DEPTH))
    next(frames)
    with pytest.raises(InputError, match=rf"frame_0002\.dpt has 203 bytes.*8x6 depths{HELP}"):
        next(frames)
    image = root / "training" / "final" / SCENE / "frame_0001.png"
    image.write_bytes(image.read_bytes()[:40])
    with pytest.raises(InputError, match=r"frame_0001\.png cannot be read as an image"):
        next(iter(Sintel().open(root, SCENE, DEPTH)))


TAG = struct.pack("<f", 202021.25)


@pytest.mark.parametrize("read", [read_camera, read_depth])
@pytest.mark.parametrize("content", [b"", TAG[:3], struct.pack(">f", 202021.25) + bytes(168)])
def test_files_without_the_tag(tmp_path: Path, read, content: bytes):
    path = tmp_path / "file"
    with pytest.raises(InputError, match="file cannot be read"):
        read(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match="does not begin with the tag"):
        read(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\1\0\0\0\1\0\0", "ends within its header"),
        (struct.pack("<ii", 2, 2) + bytes(12), "not those of 2x2"),
        (struct.pack("<ii", 2, 2) + bytes(20), "not those of 2x2"),
        (struct.pack("<ii", -1, -1) + bytes(4), "not those of -1x-1"),
        (struct.pack("<ii", 0, 5), "not those of 0x5"),
        (struct.pack("<ii", 2**31 - 1, 2**31 - 1), "not those of 2147483647"),
    ],
)
def test_depth_files_of_another_length(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "file").write_bytes(TAG + content)
    with pytest.raises(InputError, match=message):
        read_depth(tmp_path / "file")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_cameras_without_a_pose(tmp_path: Path, value: float):
    (tmp_path / "file").write_bytes(TAG + np.full(21, value).tobytes())
    with pytest.raises(InputError, match="holds no camera"):
        read_camera(tmp_path / "file")
