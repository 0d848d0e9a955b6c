"""A run that was moved after it was made is read where it was moved to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.geometry.samples import random_rigid, random_similarity
from ttt3r.errors import RunError
from ttt3r.geometry import se3
from ttt3r.runs.frame_file import write_prediction
from ttt3r.runs.manifest import MANIFEST
from ttt3r.runs.placement import PLACEMENT, Placement
from ttt3r.runs.reader import FRAMES, Run, frame_path
from ttt3r.types import Prediction


def make_run(folder: Path) -> None:
    """Four frames in two segments."""
    (folder / FRAMES).mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"format": 1}))
    generator = torch.Generator().manual_seed(0)
    for index in range(4):
        pose = random_rigid(index, 1)[0].float()
        points = torch.rand(2, 3, 3, generator=generator) + 1
        write_prediction(
            frame_path(folder, index),
            Prediction(
                index=index,
                timestamp=index / 10,
                segment=index // 2,
                points=points,
                confidence=torch.ones(2, 3),
                world_points=se3.apply(pose, points),
                world_from_camera=pose,
            ),
        )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run."""
    make_run(tmp_path / "run")
    return tmp_path / "run"


def test_points_and_poses_move_together(run: Path) -> None:
    segments = tuple(random_similarity(1, 2))
    placement = Placement(segments, "two loops", random_similarity(2, 1)[0], "by hand", True)
    before = list(Run.open(run))
    placement.write(run)
    opened = Run.open(run)
    for read, was in zip(opened, before, strict=True):
        moved = placement.world @ segments[was.segment]
        expected = se3.apply(moved.float(), se3.apply(was.world_from_camera, was.points))
        # Maps are stored as float16: about 1e-3 of their size.
        torch.testing.assert_close(
            se3.apply(read.world_from_camera, read.points), expected, rtol=0, atol=1e-4
        )
        torch.testing.assert_close(read.world_points, expected, rtol=0, atol=5e-2)
        rotation = read.world_from_camera[:3, :3]
        torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3), rtol=0, atol=1e-5)
        assert read.scale == pytest.approx(was.scale * float(se3.similarity_scale(moved)))
    poses = torch.stack([prediction.world_from_camera for prediction in opened])
    assert torch.equal(opened.trajectory().world_from_camera, poses)
    assert torch.equal(opened[2].world_from_camera, poses[2])


def test_what_was_written_is_read_again(run: Path) -> None:
    one = random_similarity(3, 1)[0]
    for placement in (
        Placement(),
        Placement((one,), "loops"),
        Placement(world=one, world_text="aligned", metric=True),
    ):
        placement.write(run)
        back = Placement.read(run)
        assert replace(back, segments=(), world=None) == replace(placement, segments=(), world=None)
        for segment in (0, 1):
            a, b = back.of(segment), placement.of(segment)
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b))


def test_segments_beyond_the_corrected_ones_stay(run: Path) -> None:
    before = list(Run.open(run))
    Placement((se3.assemble(2 * torch.eye(3).double(), torch.ones(3).double()),)).write(run)
    after = list(Run.open(run))
    assert not torch.equal(after[1].points, before[1].points)
    for index in (2, 3):
        assert torch.equal(after[index].points, before[index].points)
        assert torch.equal(after[index].world_from_camera, before[index].world_from_camera)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"segments": [[1, 2]]},
        {"segments": 3},
        {"world": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"world": [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"world": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]},
        {"world": "here"},
        {"metric": "yes"},
    ],
)
def test_a_damaged_placement_is_refused(run: Path, change: dict) -> None:
    Placement(world=torch.eye(4).double()).write(run)
    said = json.loads((run / PLACEMENT).read_text())
    (run / PLACEMENT).write_text(json.dumps(said | change))
    with pytest.raises(RunError, match=r"placement\.json is damaged"):
        Run.open(run)


def test_half_a_file_is_refused(run: Path) -> None:
    (run / PLACEMENT).write_text('{"format": 1, "segm')
    with pytest.raises(RunError, match="delete it to use the run as it was made"):
        Run.open(run)
