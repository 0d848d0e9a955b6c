"""The TUM RGB-D recordings with moving people."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.datasets.miniatures_rgbd import START, write_tum
from tests.goldens import goldens
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.tum import TumDynamics, associate_one_to_one

FOLDER = "rgbd_dataset_freiburg3_walking_xyz"
POSE = Selection("pose")
HELP = r"(?s:.)*groundtruth\.txt(?s:.)*rgbd-dataset/download"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    # The third image has no pose; the last pose no image.
    write_tum(tmp_path / FOLDER, [0.0, 0.03, 0.06, 0.2, 0.23], [0.002, 0.031, 0.199, 0.234, 0.3])
    return tmp_path


def names(sequence) -> list[str]:
    return [item.image.name for item in sequence.items]


def test_images_go_with_their_poses(root: Path):
    sequence = TumDynamics().open(root, "walking_xyz", POSE)
    assert (sequence.name, len(sequence)) == ("walking_xyz", 4)
    frames = list(sequence)
    assert [frame.image[0, 0, 0] for frame in frames] == [0, 1, 3, 4]
    assert [frame.timestamp for frame in frames] == [
        START + s for s in (0.002, 0.031, 0.199, 0.234)
    ]
    third = frames[2]
    c, s = np.cos(0.4), np.sin(0.4)
    expected = [[c, 0, s, 2], [0, 1, 0, 1], [-s, 0, c, -2], [0, 0, 0, 1]]
    np.testing.assert_allclose(third.world_from_camera, expected, atol=1e-8)
    assert third.depth is None
    np.testing.assert_array_equal(third.intrinsics[0], [535.4, 0, 320.1])


def test_the_eight_recordings_are_known_by_short_and_long_names(root: Path):
    sequences = TumDynamics().sequences(root, "pose")
    assert len(set(sequences)) == 8
    assert sequences[0] == "sitting_static" and "walking_xyz" in sequences
    assert TumDynamics().open(root, FOLDER, POSE).name == "walking_xyz"


@pytest.mark.parametrize("variant", ["published", "corrected"])
@pytest.mark.parametrize(
    "stride, frames, chosen",
    [(1, None, [0, 1, 3, 4]), (1, 3, [0, 1, 3]), (2, 5, [0, 3]), (2, 1, [0]), (3, None, [0, 4])],
)
def test_stride_and_number_count_images_with_poses(root: Path, stride, frames, chosen, variant):
    sequence = TumDynamics().open(root, "walking_xyz", Selection("pose", stride, frames, variant))
    assert [frame.image[0, 0, 0] for frame in sequence] == chosen


def test_a_pose_that_is_no_rotation_is_unknown(root: Path):
    path = root / FOLDER / "groundtruth.txt"
    lines = path.read_text().splitlines()
    lines[3] = f"{START + 0.002:.4f} 1 2 3 0 0 0 0"
    path.write_text("\n".join(lines))
    known = [f.world_from_camera is not None for f in TumDynamics().open(root, FOLDER, POSE)]
    assert known == [False, True, True, True]


def slow_association(images: list[float], poses: list[float], most_apart: float):
    """The rule word for word: look through all pairs for the closest, until none is left."""
    free_images, free_poses = set(range(len(images))), set(range(len(poses)))
    pairs = []
    while True:
        best = None
        for i in free_images:
            for j in free_poses:
                key = (abs(images[i] - poses[j]), images[i], poses[j])
                if key[0] < most_apart and (best is None or key < best[0]):
                    best = (key, i, j)
        if best is None:
            return sorted(pairs, key=lambda pair: images[pair[0]])
        _, i, j = best
        free_images.remove(i)
        free_poses.remove(j)
        pairs.append((i, j))


@pytest.mark.parametrize("seed", range(20))
def test_association_is_that_of_the_slow_twin(seed: int):
    random = np.random.default_rng(seed)
    # Multiples of 1/64 s are exact, so that there are ties and differences of exactly the limit.
    images = random.choice(40, 15, replace=False) / 64
    poses = random.choice(40, 20, replace=False) / 64
    pairs = associate_one_to_one(images, poses, most_apart=3 / 64)
    assert pairs == slow_association(images.tolist(), poses.tolist(), 3 / 64)
    assert len(pairs) > 5


def test_association_by_hand():
    # 1.0 is nearest to 1.5, which belongs to 1.75; what remains for 1.0 is exactly at the limit.
    images, poses = np.array([1.75, 1.0]), np.array([1.5, 0.0])
    assert associate_one_to_one(images, poses, most_apart=1.0) == [(0, 0)]
    assert associate_one_to_one(images, poses, most_apart=1.1) == [(1, 1), (0, 0)]
    assert (
        associate_one_to_one(np.zeros(0), poses)
        == associate_one_to_one(images, np.array([np.nan]))
        == []
    )


def test_golden_association_and_selection(tmp_path: Path):
    golden = json.loads((goldens("eval") / "preprocess" / "expected.json").read_text())["tum"]
    folder = tmp_path / "rgbd_dataset_freiburg3_test"
    (folder / "rgb").mkdir(parents=True)
    (folder / "rgb.txt").write_text(golden["rgb_txt"])
    (folder / "groundtruth.txt").write_text(golden["groundtruth_txt"])
    stamps = {}
    for line in golden["rgb_txt"].splitlines()[3:]:
        stamp, file = line.split()
        stamps[file] = float(stamp)
        (folder / file).touch()
    everything = TumDynamics().open(tmp_path, folder.name, POSE)
    pairs = [[stamps[f"rgb/{i.image.name}"], i.timestamp] for i in everything.items]
    assert pairs == golden["association_max_dt_0_02"]
    for target in golden["targets"]:
        prefix = f"long_tum_s1/{folder.name}/"
        written = [n for n in golden["outputs"] if n.startswith(f"{prefix}rgb_{target}/")]
        text = golden["outputs"][f"{prefix}groundtruth_{target}.txt"]["text"]
        rows = np.array([[float(word) for word in line.split()] for line in text.splitlines()])
        sequence = TumDynamics().open(tmp_path, "test", Selection("pose", frames=target))
        assert names(sequence) == [Path(name).name for name in sorted(written)]
        assert [item.timestamp for item in sequence.items] == rows[:, 0].tolist()
        positions = np.array([item.world_from_camera[:3, 3] for item in sequence.items])
        np.testing.assert_array_equal(positions, rows[:, 1:4])


def test_a_missing_root_or_recording(root: Path):
    with pytest.raises(InputError, match=f"nowhere does not exist{HELP}"):
        TumDynamics().open(root / "nowhere", "walking_xyz", POSE)
    with pytest.raises(InputError, match=f"freiburg3_walking_rpy does not exist{HELP}"):
        TumDynamics().open(root, "walking_rpy", POSE)


@pytest.mark.parametrize("name", ["rgb.txt", "groundtruth.txt", f"rgb/{START + 0.2:.6f}.png"])
def test_a_missing_file(root: Path, name: str):
    (root / FOLDER / name).unlink()
    with pytest.raises(InputError, match=rf"{name} does not exist{HELP}"):
        TumDynamics().open(root, "walking_xyz", POSE)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("rgb.txt", f"# color images\n{START}\n", r"line 2 of .*rgb\.txt is not a stamp"),
        ("rgb.txt", "today rgb/1.png\n", r"line 1 of .*rgb\.txt is not a stamp"),
        ("rgb.txt", f"{START} rgb/1.png more\n", r"line 1 of .*rgb\.txt is not a stamp"),
        ("groundtruth.txt", f"{START} 1 2 3\n", r"line 1 of .*groundtruth\.txt is not 8 numbers"),
        ("groundtruth.txt", "1.0 1 2 3 0 0 0 x\n", r"line 1 of .*groundtruth\.txt is not 8"),
        ("rgb.txt", "", r"0 images, 5 poses"),
        ("groundtruth.txt", "# nothing\n", r"5 images, 0 poses"),
        ("groundtruth.txt", "0.0 1 2 3 0 0 0 1\n", r"5 images, 1 poses"),
    ],
)
def test_damaged_lists(root: Path, name: str, text: str, message: str):
    (root / FOLDER / name).write_text(text)
    with pytest.raises(InputError, match=message + HELP):
        TumDynamics().open(root, "walking_xyz", POSE)


def test_a_list_that_is_no_text(root: Path):
    (root / FOLDER / "rgb.txt").write_bytes(b"\xff\xff\x00")
    with pytest.raises(InputError, match=rf"rgb\.txt cannot be read{HELP}"):
        TumDynamics().open(root, "walking_xyz", POSE)


def test_a_truncated_image(root: Path):
    path = root / FOLDER / "rgb" / f"{START:.6f}.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=f"{path.name} cannot be read as an image"):
        next(iter(TumDynamics().open(root, "walking_xyz", POSE)))
