import os

import numpy as np
import pytest

from tests.evaluation.test_sequences import DATA, REAL, write_sequence
from ttt3r.errors import InputError
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.datasets.folders import Folders
from ttt3r.evaluation.sequences import Sequence

FOLDERS = Folders()
TREE = Folders.tree
TASKS = ("pose", "depth", "recon")


@pytest.fixture
def root(tmp_path):
    """Four sequences, of which three lack something, between things that are none."""
    for name in ("whole", "no_depth", "no_poses", "no_intrinsics"):
        write_sequence(tmp_path / name, frames=7)
    for path in (tmp_path / "no_depth" / "depth").iterdir():
        path.unlink()
    (tmp_path / "no_poses" / "poses.txt").unlink()
    (tmp_path / "no_intrinsics" / "intrinsics.txt").unlink()
    (tmp_path / "empty" / "rgb").mkdir(parents=True)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "poses.txt").write_text("none of our business")
    (tmp_path / "README.md").write_text("nothing")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("pose", ("no_depth", "no_intrinsics", "whole")),
        ("depth", ("no_intrinsics", "no_poses", "whole")),
        ("recon", ("whole",)),
    ],
)
def test_sequences_with_the_truth_a_task_takes(root, task, names):
    assert FOLDERS.sequences(root, task) == names
    for name in names:
        assert len(FOLDERS.open(root, name, Selection(task))) == 7


@pytest.mark.parametrize(
    ("task", "name", "lacks"),
    [
        ("pose", "no_poses", "lacks poses.txt, which pose takes"),
        ("depth", "no_depth", "lacks depth/, which depth takes"),
        ("recon", "no_intrinsics", "lacks intrinsics.txt, which recon takes"),
        ("recon", "no_depth", "lacks depth/, which recon takes"),
    ],
)
def test_a_sequence_without_the_truth_is_not_opened(root, task, name, lacks):
    with pytest.raises(InputError) as caught:
        FOLDERS.open(root, name, Selection(task))
    assert lacks in str(caught.value) and TREE in str(caught.value)


@pytest.mark.parametrize(
    ("stride", "frames", "numbers"),
    [(1, None, range(7)), (3, None, [0, 3, 6]), (3, 2, [0, 3]), (2, 50, [0, 2, 4, 6])],
)
def test_frames_are_those_of_the_folder(root, stride, frames, numbers):
    every = list(FOLDERS.open(root, "whole", Selection("recon")))
    sequence = FOLDERS.open(root, "whole", Selection("recon", stride, frames))
    assert isinstance(sequence, Sequence)
    assert (sequence.name, len(sequence)) == ("whole", len(numbers))
    for ours, wanted in zip(sequence, (every[i] for i in numbers), strict=True):
        assert ours.timestamp == wanted.timestamp
        for field in ("image", "depth", "world_from_camera", "intrinsics"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(wanted, field))
    assert len(list(sequence)) == len(numbers)  # may be done again


def test_sequences_come_in_natural_order_without_hidden_ones(tmp_path):
    for name in ("walk10", "walk9", ".walk8"):
        write_sequence(tmp_path / name, frames=3)
    assert FOLDERS.sequences(tmp_path, "pose") == ("walk9", "walk10")


def test_names_of_any_bytes_can_be_reported(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_sequence(folder, frames=3)
    for path in (folder / "rgb").iterdir():
        path.rename(path.with_name(os.fsdecode(b"\xe9") + path.name))
    assert FOLDERS.sequences(tmp_path, "pose") == (r"caf\xe9",)
    sequence = FOLDERS.open(tmp_path, r"caf\xe9", Selection("pose"))
    assert len(list(sequence)) == 3 and len(sequence.digest) == 16


def test_frames_that_are_not_shown_are_not_read(root):
    for i in (1, 2, 4, 5):
        (root / "whole" / "rgb" / f"{i:06d}.png").write_bytes(b"broken")
    assert len(list(FOLDERS.open(root, "whole", Selection("depth", stride=3)))) == 3
    with pytest.raises(InputError, match=r"000001\.png cannot be read as an image"):
        list(FOLDERS.open(root, "whole", Selection("depth")))


def test_depth_is_not_opened_for_poses(root):
    (root / "whole" / "depth" / "000000.png").write_bytes(b"broken")
    frames = list(FOLDERS.open(root, "whole", Selection("pose")))
    assert [frame.depth for frame in frames] == [None] * 7
    with pytest.raises(InputError, match=r"000000\.png cannot be read as a depth map"):
        list(FOLDERS.open(root, "whole", Selection("depth")))


def test_the_root_may_be_the_sequence(root):
    assert FOLDERS.sequences(root / "whole", "recon") == ("whole",)
    assert len(FOLDERS.open(root / "whole", "whole", Selection("recon"))) == 7
    with pytest.raises(InputError, match="holds no sequence 'another'"):
        FOLDERS.open(root / "whole", "another", Selection("recon"))


def test_nothing_there(root):
    for path, message in (
        (root / "nowhere", "nowhere does not exist"),
        (root / "texts", "holds no sequence with the truth that the task pose takes"),
        (root / "no_poses", "holds no sequence with the truth that the task pose takes"),
    ):
        with pytest.raises(InputError) as caught:
            FOLDERS.sequences(path, "pose")
        assert message in str(caught.value) and TREE in str(caught.value)
    for name in ("empty", "..", "texts"):
        with pytest.raises(InputError, match="holds no sequence"):
            FOLDERS.open(root, name, Selection("pose"))


def test_broken_sequences_are_not_passed_over(root):
    (root / "whole" / "poses.txt").write_text("0 1 2\n")
    assert "whole" in FOLDERS.sequences(root, "depth")
    with pytest.raises(InputError) as caught:
        FOLDERS.open(root, "whole", Selection("depth"))
    assert "is not 8 numbers" in str(caught.value) and TREE in str(caught.value)


@pytest.mark.skipif(not REAL, reason=f"no real sequences in {DATA}; set TTT3R_DATA")
def test_real_sequences():
    """What else lies beside them has no truth in this layout."""
    names = sorted(path.name for path in REAL)
    assert FOLDERS.sequences(DATA, "pose") == tuple(names)
    with_depth = tuple(name for name in names if (DATA / name / "depth").is_dir())
    for task in ("depth", "recon"):
        assert FOLDERS.sequences(DATA, task) == with_depth
    frames = list(FOLDERS.open(DATA, with_depth[0], Selection("recon", stride=20, frames=2)))
    assert len(frames) == 2
    for frame in frames:
        assert frame.depth.shape == frame.image.shape[:2]
        assert frame.world_from_camera is not None and frame.intrinsics is not None
