"""Where cameras go: rigid and smooth, clear of solids, and back to earlier places."""

import numpy as np
import pytest

from tests.scenes.twins import height, things
from ttt3r.scenes import WORLDS, Scene, SceneOptions
from ttt3r.scenes.layout import Builder, Placement, to_tensors, turned
from ttt3r.scenes.paths import CLEARANCE, STYLES, camera_path, free, heading, look, smoothed

SIZE = (8, 8)


def angles(poses: np.ndarray) -> np.ndarray:
    """Degrees between consecutive poses."""
    cosine = (np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3]) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("style", STYLES)
def test_poses_are_rigid_and_upright(world: str, style: str):
    poses = Scene(3, 200, SIZE, SceneOptions(world=world, style=style)).poses
    rotation = poses[:, :3, :3]
    identity = np.broadcast_to(np.eye(3), rotation.shape)
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), identity, atol=1e-12)
    assert (np.linalg.det(rotation) > 0).all()
    np.testing.assert_array_equal(poses[:, 3], np.tile([0, 0, 0, 1], (200, 1)))
    assert (rotation[:, 1, 1] > 0.3).all()  # the camera's down is down


@pytest.mark.parametrize("style", STYLES)
def test_paths_are_smooth(style: str):
    for seed in range(12):
        poses = Scene(seed, 300, SIZE, SceneOptions(style=style)).poses
        step = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
        assert step.max() < (2.5 if style == "drive" else 0.3)
        assert angles(poses).max() < 15


@pytest.mark.parametrize(
    "world", [w if w == "room" else pytest.param(w, marks=pytest.mark.slow) for w in WORLDS]
)
def test_cameras_are_never_inside_solids(world: str):
    for seed in range(8):
        scene = Scene(seed, 200, SIZE, SceneOptions(world=world, moving=0.5))
        for frame in range(0, 200, 9):
            geometry, _ = to_tensors(scene.builder, np.array([float(frame)]))
            place = scene.poses[frame, :3, 3]
            for thing in things(geometry):
                assert not thing.inside(place[None]).any(), (seed, frame, thing.kind)


def test_cameras_stay_where_they_may_stand():
    for seed in range(20):
        scene = Scene(seed, 300, SIZE)
        position, place = scene.poses[:, :3, 3], scene.place
        slack = 0.5  # shake, and the waver of an orbit
        assert (position[:, [0, 2]] > np.array(place.low) - slack).all()
        assert (position[:, [0, 2]] < np.array(place.high) + slack).all()
        assert (-position[:, 1] < place.ceiling).all()
        if scene.builder.ground is not None:
            ground = to_tensors(scene.builder, np.zeros(1))[0].ground
            assert (-position[:, 1] > height(ground, position[:, 0], position[:, 2])).all()


@pytest.mark.parametrize("style", STYLES)
def test_long_paths_come_back(style: str):
    """After leaving, a camera is again near where it was, and looks about the same way."""
    for seed in range(5):
        poses = Scene(seed, 8000, SIZE, SceneOptions(style=style)).poses
        away = np.linalg.norm(poses[:, :3, 3] - poses[0, :3, 3], axis=1)
        aside = np.degrees(np.arccos(np.clip(poses[:, :3, 2] @ poses[0, :3, 2], -1, 1)))
        left = np.flatnonzero((away > 0.5 * away.max()) | (aside > 0.5 * aside.max()))[0]
        near = (away < 0.05 * away.max() + 0.1) & (aside < 12)
        assert near[max(left, 24) :].any(), seed


def test_look():
    """The camera's axes: right, down, forward."""
    forward = np.array([[0.0, 0.0, 2.0], [3.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    poses = look(np.zeros((3, 3)), forward, np.zeros(3))
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(poses[1, :3, 0], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(poses[2, :3, 2], [0, 0.5**0.5, 0.5**0.5], atol=1e-12)
    rolled = look(np.zeros((1, 3)), forward[:1], np.full(1, 0.1))
    np.testing.assert_allclose(rolled[0, :2, 0], [np.cos(0.1), np.sin(0.1)], atol=1e-12)


def test_smoothed_angles_keep_full_turns_and_lose_corners():
    phase = np.linspace(0, 1, 721)
    corner = 2 * np.pi * phase + np.where(phase < 0.5, 0.0, 1.0) * (phase < 0.9)
    calm = smoothed(corner)
    assert calm[-1] - calm[0] == pytest.approx(2 * np.pi)
    assert np.abs(np.diff(corner)).max() > 0.9
    assert np.abs(np.diff(calm)).max() < 0.05
    np.testing.assert_allclose(smoothed(2 * np.pi * phase), 2 * np.pi * phase, atol=1e-9)


def test_heading():
    np.testing.assert_allclose(
        heading(np.array([0, np.pi / 2, 0]), np.array([0, 0, np.pi / 2])),
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        atol=1e-12,
    )


def test_free():
    b = Builder(np.random.default_rng(0))
    item = b.box(Placement(1.0, 2.0, 0.7), (0.0, 1.0, 0.0), (0.4, 0.6, 1.0), b.paint())
    out = turned(item.yaw)
    for axis in range(3):
        for side in (-1, 1):
            reach = item.half[axis] + CLEARANCE
            for distance, expected in ((reach - 0.01, False), (reach + 0.01, True)):
                point = item.centre + out[:, axis] * side * distance
                assert free(b.items, point[None]) is expected
    item.sway = np.array([5.0, 5.0, 5.0])
    assert not free(b.items, item.centre[None] + 4)


def test_no_room_for_a_camera():
    """Then it stays anyway, rather than not at all."""
    b = Builder(np.random.default_rng(0))
    place = WORLDS["room"](b)
    b.box(Placement(0.0, 0.0), (0.0, 1.0, 0.0), (50.0, 50.0, 50.0), b.paint())
    assert camera_path(b, place, 5).shape == (5, 4, 4)
