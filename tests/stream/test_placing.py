"""Points in the world lie on the rays of a known camera, at the depth that was predicted."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.stream.room import Room, circle, images
from tests.stream.test_posing import TwoHeads
from tests.vggt_networks import random_tiny as random_vggt
from ttt3r.comparison.streams import Streams
from ttt3r.errors import SettingError
from ttt3r.models.base import Capabilities
from ttt3r.stream.clips import ClipSession
from ttt3r.stream.session import Session
from ttt3r.types import Frame, Prediction

KNOWN = np.array([[20.0, 0.0, 7.0], [0.0, 18.0, 8.0], [0.0, 0.0, 1.0]])
ASKED = ("world", "pose")


def on_rays(said: Prediction) -> np.ndarray:
    """The world points of a prediction on the rays of `KNOWN`, in float64."""
    assert said.world_points is not None and said.world_from_camera is not None
    world, pose = said.world_points.double().numpy(), said.world_from_camera.double().numpy()
    camera_from_world = np.linalg.inv(pose)
    depth = world @ camera_from_world[2, :3] + camera_from_world[2, 3]
    v, u = np.indices(depth.shape)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(KNOWN).T
    return depth[..., None] * rays @ pose[:3, :3].T + pose[:3, 3]


def in_session(frames: list, outputs: tuple[str, ...]) -> list[Prediction]:
    return list(Session(TwoHeads(len(frames)), reset=3, outputs=outputs).stream(frames))


def in_clips(frames: list, outputs: tuple[str, ...]) -> list[Prediction]:
    return list(ClipSession(random_vggt("vggt"), 3, outputs).stream(frames))


def side_by_side(frames: list, outputs: tuple[str, ...]) -> list[Prediction]:
    streams = Streams(TwoHeads(len(frames)), ["ttt3r"])
    return [streams.push(frame, outputs)[0] for frame in frames]


@pytest.mark.parametrize("way", [in_session, in_clips, side_by_side])
def test_world_points_lie_on_known_rays(way: Callable):
    count = 5
    pictures = list(images(count))
    if way is in_clips:
        pictures = list(np.random.default_rng(0).integers(0, 256, (count, 28, 42, 3), np.uint8))
    calibrated = [Frame(image, intrinsics=KNOWN) for image in pictures]
    given = way(pictures, ASKED)
    for outputs in (ASKED, ("world",)):
        for plain, said in zip(given, way(calibrated, outputs), strict=True):
            wanted = on_rays(plain)
            # float32 through a pose and back: some eps of the largest coordinate
            close = {"atol": 1e-5 * abs(wanted).max(), "rtol": 0}
            np.testing.assert_allclose(said.world_points.numpy(), wanted, **close)
            assert not np.allclose(plain.world_points.numpy(), wanted, **close)
            np.testing.assert_allclose(said.intrinsics.numpy(), KNOWN)
            assert (said.world_from_camera is None) == ("pose" not in outputs)


def test_a_frame_without_a_pose_has_no_world_points():
    class Lost(TwoHeads):
        def step(self, *given):
            state, said = super().step(*given)
            return state, replace(said, pose_encoding=said.pose_encoding * torch.nan)

    frame = Frame(images(1)[0], intrinsics=KNOWN)
    for model, known in ((TwoHeads(2), True), (Lost(2), False)):
        said = Session(model, outputs=("world",)).push(frame).world_points
        assert said.isfinite().all() if known else said.isnan().all()


def test_refused_where_no_pose_can_be_had():
    class Poseless(Room):
        capabilities = Capabilities(outputs=("points", "world"))

    frame = Frame(images(1)[0], intrinsics=KNOWN)
    with pytest.raises(SettingError, match=r"gives no pose; leave out the intrinsics, or the out"):
        Session(Poseless(circle(2)), outputs=("world",)).push(frame)
