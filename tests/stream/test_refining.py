"""Refined poses in a stream: better where pixels say so, and never at the state's expense."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.stream.room import Room
from tests.stream.test_session import assert_same
from tests.textured import seen_from
from tests.vggt_networks import random_tiny as random_vggt
from ttt3r.errors import RunError, SettingError
from ttt3r.geometry import se3, sim3
from ttt3r.geometry.camera import unproject
from ttt3r.models.base import Capabilities, Tokens
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.reader import Run
from ttt3r.stream.clips import ClipSession, open_session
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.stream.refining import Key
from ttt3r.stream.session import Session
from ttt3r.types import Frame, Preparation, Reading

COUNT, SIZE = 6, (48, 64)


def path(count: int) -> Tensor:
    """A camera that moves to the right and turns."""
    steps = torch.tensor([0.06, -0.02, 0.03, 0.005, 0.015, -0.005, 0.0]).double()
    return torch.stack([sim3.exp(steps * number) for number in range(count)])


class Watcher(Room):
    """Its depth is exact; its poses are off by another motion in each frame but the first."""

    capabilities = Capabilities()
    preparation = Preparation(size=64, patch=16)

    def __init__(self, count: int = COUNT, known: bool = True) -> None:
        super().__init__(path(count))
        self.seen = [seen_from(pose) for pose in self.poses]
        self.known = known
        generator = torch.Generator().manual_seed(0)
        tangents = 0.015 * torch.randn(count, 7, generator=generator, dtype=torch.float64)
        tangents[:, 6], tangents[0] = 0.0, 0.0
        self.off = sim3.exp(tangents)

    def images(self) -> list[np.ndarray]:
        greys = [(255 * grey).round().byte().numpy() for grey, _, _ in self.seen]
        return [np.stack([grey] * 3, -1) for grey in greys]

    def encode(self, views) -> Tokens:
        brightness = (views.image[0].mean(0) + 1) / 2
        ways = [float((grey - brightness).abs().mean()) for grey, _, _ in self.seen]
        number = int(torch.tensor(ways).argmin())
        features = self.features[number][None, None]
        return Tokens(features, tuple(views.image.shape[-2:]), torch.tensor([True]))

    def step(self, state, tokens, rule, outputs=("points", "pose"), update=None):
        number = int((self.features == tokens.features[0, 0]).all(1).nonzero()[0])
        first = number if int(state.age) == 0 else int(state.first)
        pose = se3.invert(self.poses[first]) @ self.poses[number] @ self.off[number]
        _, depth, intrinsics = self.seen[number]
        points = unproject(depth, intrinsics)[None]
        reading = Reading(
            points=points,
            confidence=torch.full((1, *SIZE), 3.0),
            pose_encoding=se3.encoding_from_pose(pose)[None].float(),
            world_points=se3.apply(pose.float(), points[0])[None],
            world_confidence=torch.full((1, *SIZE), 3.0),
        )
        after = replace(state, first=torch.tensor([first]), age=state.age + 1)
        if update is not None and not bool(update):
            after = state
        return after, reading.only(outputs)


def pushed(model: Watcher, **settings):
    session = Session(model, **settings)
    return session, [session.push(image) for image in model.images()]


def off(model: Watcher, poses: list[Tensor]) -> Tensor:
    """How far positions are off."""
    truth = (se3.invert(model.poses[0]) @ model.poses)[:, :3, 3]
    return (torch.stack(poses)[:, :3, 3].double() - truth).norm(dim=1)


def test_poses_get_better_and_nothing_else_changes():
    model = Watcher()
    plain, said = pushed(model)
    session, refined = pushed(model, refine=True)
    before, after = (off(model, [p.world_from_camera for p in each]) for each in (said, refined))
    # The last bits of brightness (1/255) and interpolation leave some hundredths of a pixel.
    assert session.refined == COUNT - 1 and plain.refined == 0
    assert after[1:].mean() < before[1:].mean() / 3
    for one, other in zip(said, refined, strict=True):
        assert torch.equal(one.points, other.points)
        assert torch.equal(one.pose_encoding, other.pose_encoding)
    for name, tensor in plain.state.to_tensors().items():
        assert torch.equal(tensor, session.state.to_tensors()[name])


def test_points_in_the_world_go_with_the_pose():
    _, said = pushed(Watcher(3), refine=True, outputs=("points", "pose", "world"))
    for prediction in said:
        moved = se3.apply(prediction.world_from_camera, prediction.points)
        # float32 points of some units.
        torch.testing.assert_close(prediction.world_points, moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize("reset", [None, 3])
def test_resumed_and_forked_are_bit_equal(tmp_path: Path, reset):
    model = Watcher()
    whole, expected = pushed(model, refine=True, reset=reset)
    half = Session(model, refine=True, reset=reset)
    for image in model.images()[:2]:
        half.push(image)
    half.save(tmp_path / "session")
    for session in (Session.load(tmp_path / "session", model), half.fork()):
        assert session.refine
        for image, prediction in zip(model.images()[2:], expected[2:], strict=True):
            assert_same(session.push(image), prediction)
        assert session.refined == whole.refined


def test_a_new_segment_has_a_key_frame_of_its_own():
    """Frame 3 is the first that is pushed in its segment: it keeps the network's pose."""
    session, said = pushed(Watcher(), refine=True, reset=3)
    assert [p.segment for p in said] == [0, 0, 0, 1, 1, 1]
    assert session.refined == 4 and session._progress.key is None


def test_a_frame_that_is_not_remembered_is_no_key_frame():
    model = Watcher(2)
    session = Session(model, refine=True)
    first = session.push(model.images()[0], update=False)
    assert session._progress.key is None and first.index == 0
    session.push(model.images()[1])
    assert isinstance(session._progress.key, Key) and session.refined == 0


def test_a_frame_that_sees_little_of_the_key_frame_takes_its_place():
    model = Watcher(2)
    model.poses = torch.stack(
        [model.poses[0], sim3.exp(torch.tensor([0, 0, 0, 0, 0.8, 0, 0.0]).double())]
    )
    model.seen = [seen_from(pose) for pose in model.poses]
    session, _ = pushed(model, refine=True)
    _, depth, _ = model.seen[1]
    assert torch.equal(session._progress.key.depth, depth)


def test_unknown_depth_and_another_size():
    model = Watcher(3)
    grey, depth, intrinsics = model.seen[1]
    model.seen[1] = grey, torch.full_like(depth, torch.nan), intrinsics
    session, said = pushed(model, refine=True)
    assert session.refined == 1 and bool(said[1].world_from_camera.isfinite().all())
    known = Frame(model.images()[2], intrinsics=intrinsics.numpy())
    session = Session(model, refine=True)
    session.push(Frame(model.images()[0], intrinsics=intrinsics.numpy()))
    assert torch.equal(session.push(known).intrinsics, intrinsics) and session.refined == 1


def test_what_cannot_be_refined_is_refused_at_once(tmp_path: Path):
    model = random_vggt("vggt")
    with pytest.raises(SettingError, match="a unit of length that changes"):
        Session(model, refine=True)
    with pytest.raises(SettingError, match="looks once at each segment"):
        open_session(model, refine=True)
    with pytest.raises(SettingError, match="add pose to the outputs"):
        Session(Watcher(1), refine=True, outputs=("points",))
    with pytest.raises(SettingError, match="choose one of the two"):
        reconstruct([], model=Watcher(1), reset=3, out=tmp_path / "a", loops=True, refine=True)
    assert not ClipSession(model).refine


def test_a_run_says_what_was_refined(tmp_path: Path):
    model = Watcher(4)
    list(reconstruct(model.images(), model=model, out=tmp_path / "a", refine=True))
    manifest = Run.open(tmp_path / "a").manifest
    assert manifest["refine"] is True and manifest["refined_frames"] == 3
    with pytest.raises(RunError, match="refine: was true, now null"):
        reconstruct(model.images(), model=model, out=RunFolder(tmp_path / "a", resume=True))
    again = RunFolder(tmp_path / "a", resume=True)
    assert not list(reconstruct(model.images(), model=model, out=again, refine=True))
    assert Run.open(tmp_path / "a").manifest["refined_frames"] == 3
