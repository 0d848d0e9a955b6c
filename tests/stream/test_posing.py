"""Where poses come from: the head, the points, or both; and what each network can give."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.networks import random_tiny
from tests.stream.room import SIDE, Room, circle, images
from tests.stream.test_session import assert_same
from tests.stream.test_session import images as pictures
from tests.vggt_networks import random_tiny as random_vggt
from ttt3r.errors import SettingError
from ttt3r.geometry import se3, sim3
from ttt3r.geometry.pointmap_pose import pose_from_points
from ttt3r.models.base import Capabilities
from ttt3r.stream.clips import ClipSession
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.stream.session import Session
from ttt3r.types import Frame, Reading

OFF = sim3.exp(torch.tensor([0.3, -0.1, 0.2, 0.02, 0.05, -0.03, 0.0]).double())


class TwoHeads(Room):
    """Its points are right, in both frames; its pose head is off."""

    capabilities = Capabilities()

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        super().__init__(circle(count, 0.05))
        self.broken = broken

    def step(self, state, tokens, rule, outputs=("points", "pose"), update=None):
        state, said = super().step(state, tokens, rule, ("points", "pose"), update)
        pose = se3.pose_from_encoding(said.pose_encoding.double())
        world = se3.apply(pose, said.points.double()).float()
        number = int((self.features == tokens.features[0, 0]).all(1).nonzero()[0])
        if number in self.broken:
            world = torch.full_like(world, torch.nan)
        encoding = se3.encoding_from_pose(pose @ OFF).float()
        said = replace(
            said, pose_encoding=encoding, world_points=world, world_confidence=said.confidence
        )
        return state, said.only(outputs)


def poses(model: Room, count: int, **settings) -> torch.Tensor:
    session = Session(model, **settings)
    return torch.stack([session.push(image).world_from_camera for image in images(count)])


def test_each_source_says_what_it_says():
    model = TwoHeads(4)
    truth = (se3.invert(model.poses[0]) @ model.poses).float()
    head, points, auto = (poses(model, 4, pose_from=name) for name in ("head", "points", "auto"))
    torch.testing.assert_close(head, truth @ OFF.float(), atol=1e-5, rtol=0)
    # float32 points at 5 units: an eps of 6e-7, and averages of 256 of them.
    torch.testing.assert_close(points, truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(auto[:, :3, :3], head[:, :3, :3], atol=1e-6, rtol=0)
    for pose, said in zip(auto, truth, strict=True):
        own = model.points(0)  # the wall is round, so the camera sees nearly the same everywhere
        assert (pose[:3, 3] - said[:3, 3]).norm() < (OFF[:3, :3] - torch.eye(3)).norm() * own.norm()
    assert torch.equal(poses(model, 4), head)


def test_the_pose_encoding_stays_the_head_s():
    said = [Session(TwoHeads(2), pose_from=name).push(images(1)[0]) for name in ("head", "points")]
    assert torch.equal(said[0].pose_encoding, said[1].pose_encoding)
    assert torch.equal(said[0].points, said[1].points) and said[1].world_points is None


def test_a_frame_without_points_keeps_the_head_s_pose(caplog):
    model = TwoHeads(3, broken=(1,))
    head, points = (poses(model, 3, pose_from=name) for name in ("head", "points"))
    off = (head - points).abs().flatten(1).max(1).values
    assert off[1] < 1e-6 and off[0] > 0.1 and off[2] > 0.1
    assert "frame 1 keeps the pose of the head: only 0 of its points" in caplog.text


def test_known_intrinsics_change_no_pose():
    known = torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]).numpy()
    frame = Frame(images(1)[0], intrinsics=known)
    said = [Session(TwoHeads(2), pose_from="points").push(image) for image in (images(1)[0], frame)]
    assert torch.equal(said[0].world_from_camera, said[1].world_from_camera)
    assert not torch.equal(said[0].points, said[1].points)


def test_segments_are_joined_by_the_poses_that_count():
    model = TwoHeads(7)
    truth = (se3.invert(model.poses[0]) @ model.poses).float()
    found = poses(model, 7, pose_from="points", reset=3)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=0)


def test_weights_may_say_where_poses_come_from():
    model = TwoHeads(2)
    model.weights = replace(Room.weights, pose_from="points")
    assert Session(model).pose_from == "points"
    assert Session(model, pose_from="head").pose_from == "head"
    assert Session(TwoHeads(2)).pose_from == "head"


def test_refused_at_construction():
    with pytest.raises(SettingError, match="one of head, points, auto, not 'tail'"):
        Session(random_tiny(), pose_from="tail")
    with pytest.raises(SettingError, match="no points in the world, only points, pose"):
        Session(Room(circle(2)), pose_from="auto")


def test_resumed_and_forked_are_bit_equal(tmp_path: Path):
    settings = dict(reset=3, outputs=("pose",), pose_from="points")
    model, stream = random_tiny("tiny_linear"), pictures(5)
    whole = Session(model, **settings)
    expected = [whole.push(image) for image in stream]
    half = Session(model, **settings)
    for image in stream[:2]:
        half.push(image)
    half.save(tmp_path / "session")
    for session in (Session.load(tmp_path / "session", model), half.fork()):
        assert session.pose_from == "points"
        for image, prediction in zip(stream[2:], expected[2:], strict=True):
            assert_same(session.push(image), prediction)


def test_an_image_is_located_by_the_same_source():
    session = Session(TwoHeads(3), pose_from="points")
    said = [session.push(image) for image in images(2)]
    assert torch.equal(session.locate(images(2)[1]).world_from_camera, said[1].world_from_camera)


@torch.no_grad()
def test_one_look_at_a_segment(tmp_path: Path):
    model = random_vggt("vggt")
    clip = torch.rand(4, 3, 28, 42)
    session = ClipSession(model, 3, pose_from="points")
    said = list(session.stream(clip))
    whole: Reading = model.predict(clip[None, :3], ("points", "pose", "world"))
    for view in range(3):
        weights = (whole.confidence.log() * whole.world_confidence.log())[0, view].flatten()
        own, world = whole.points[0, view].reshape(-1, 3), whole.world_points[0, view]
        pose = pose_from_points(own, world.reshape(-1, 3), weights)
        # Batches of other sizes round differently; positions are some units large.
        torch.testing.assert_close(said[view].world_from_camera, pose.float(), atol=1e-3, rtol=1e-3)
    session.save(tmp_path / "session")
    assert ClipSession.load(tmp_path / "session", model).pose_from == "points"


def test_a_run_says_where_its_poses_come_from(tmp_path: Path):
    from ttt3r.errors import RunError
    from ttt3r.runs.folder import RunFolder
    from ttt3r.runs.reader import Run

    model, stream = TwoHeads(4), images(4)
    assert stream.shape[1] == SIDE
    list(reconstruct(stream, model=model, out=tmp_path / "head"))
    list(reconstruct(stream, model=model, out=tmp_path / "points", pose_from="points"))
    assert "pose_from" not in Run.open(tmp_path / "head").manifest
    assert Run.open(tmp_path / "points").manifest["pose_from"] == "points"
    again = RunFolder(tmp_path / "points", resume=True)
    with pytest.raises(RunError, match='pose_from: was "points", now null'):
        reconstruct(stream, model=model, out=again)
