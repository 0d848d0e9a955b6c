"""Depth, motion and light of whole images: exact, consistent, and the same however computed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ttt3r.errors import SettingError
from ttt3r.geometry.camera import project, unproject
from ttt3r.geometry.se3 import apply, invert
from ttt3r.scenes import WORLDS, Scene, SceneOptions
from ttt3r.scenes import render as rendering
from ttt3r.scenes.layout import to_tensors
from ttt3r.scenes.render import Rendering, keep, pixel_rays, render
from ttt3r.scenes.solids import FAR, Geometry, trace

SIZE = (48, 64)


def static(world: str, seed: int = 4, frames: int = 40, style: str | None = None) -> Scene:
    return Scene(seed, frames, SIZE, SceneOptions(world=world, style=style, moving=0.0))


def rendered(scene: Scene, frames: list[int], **settings) -> Rendering:
    geometry, materials = to_tensors(scene.builder, np.array(frames, float))
    poses = torch.from_numpy(scene.poses[frames]).float()
    lights, volume = scene.lighting, scene.volume
    return render(geometry, materials, lights, volume, poses, scene.intrinsics, SIZE, **settings)


def whole(scene: Scene, frame: int) -> Geometry:
    """The scene at one moment, with nothing culled."""
    return to_tensors(scene.builder, np.array([float(frame)]))[0]


@pytest.mark.parametrize("world", WORLDS)
def test_one_view_lands_on_another(world: str):
    """Points of a view, seen from another, lie where a ray through the very place meets them."""
    scene = static(world)
    first, second = 5, 9
    clip = scene.frames(first, second + 1)
    points = unproject(clip.depth[:1], clip.intrinsics[:1])[0][clip.valid[0]]
    poses = clip.world_from_camera[[0, -1]].double()
    second_from_first = invert(poses[1]) @ poses[0]
    points = apply(second_from_first, points.double())
    pixel = project(points[:, None], clip.intrinsics[:1].double().expand(len(points), 3, 3))[:, 0]
    height, width = SIZE
    seen = (points[:, 2] > 0.05) & (pixel > 0).all(1)
    seen &= (pixel[:, 0] < width - 1) & (pixel[:, 1] < height - 1)
    assert seen.float().mean() > 0.3
    points = points[seen]
    direction = (points / points[:, 2:]).float() @ poses[1, :3, :3].float().T
    hits = trace(whole(scene, second), poses[1, None, None, :3, 3].float(), direction[None])
    # What is met is the point itself or stands before it; never is there a hole.
    ratio = hits.t[0].double() / points[:, 2]
    assert (ratio < 1 + 1e-3).float().mean() > 0.999
    assert (ratio > 1 - 1e-3).float().mean() > 0.7
    # The image of the second view says the same where depth varies little.
    row, column = pixel[seen].round().long().unbind(1)[::-1]
    drawn = clip.depth[-1, row, column].double()
    assert ((drawn / hits.t[0]).log().abs() < 0.05).float().mean() > 0.6


@pytest.mark.parametrize("world", WORLDS)
def test_depth_is_that_of_each_ray(world: str):
    """Nothing that was culled is missing, pixels are in order, and sky is exactly 0."""
    scene = static(world, seed=6)
    clip = scene.frames(3, 4)
    pose = clip.world_from_camera[0]
    rays = pixel_rays(scene.intrinsics, SIZE)
    u, v = 50, 20
    (fx, _, cx), (_, fy, cy), _ = scene.intrinsics.tolist()
    torch.testing.assert_close(
        rays[v * SIZE[1] + u], torch.tensor([(u - cx) / fx, (v - cy) / fy, 1.0])
    )
    hits = trace(whole(scene, 3), pose[None, None, :3, 3], (rays @ pose[:3, :3].T)[None])
    expected = torch.where(hits.t < FAR / 2, hits.t, 0.0).view(SIZE)
    torch.testing.assert_close(clip.depth[0], expected, rtol=1e-5, atol=0)
    assert torch.equal(clip.depth[0] == 0, hits.t.view(SIZE) == FAR)
    assert torch.equal(clip.valid, clip.depth > 0)
    if scene.place.outdoors:
        assert (clip.depth[0] == 0).any()
    else:
        assert (clip.depth[0] > 0).all()
    assert clip.depth.max() < 1e4


def close(left: Rendering, right: Rendering):
    """Equal up to rounding, which may move the border of a solid by a pixel."""
    depth = torch.isclose(left.depth, right.depth, rtol=1e-5, atol=1e-6)
    light = torch.isclose(left.light, right.light, rtol=1e-3, atol=1e-4).all(1)
    assert (depth & light & (left.moving == right.moving)).float().mean() > 0.998


@pytest.mark.parametrize(
    "world", [w if w == "room" else pytest.param(w, marks=pytest.mark.slow) for w in WORLDS]
)
def test_pieces_in_which_it_is_computed(world: str, monkeypatch: pytest.MonkeyPatch):
    """Frame by frame as on a CPU, together as on a GPU, and in other numbers of rays."""
    scene = Scene(8, 4, SIZE, SceneOptions(world=world, moving=1.0))
    alone = rendered(scene, [0, 1, 2])
    for settings in (
        {"frames_at_once": 3, "rays_at_once": 100_000},
        {"frames_at_once": 2},
        {"rays_at_once": 700},
    ):
        close(alone, rendered(scene, [0, 1, 2], **settings))
    monkeypatch.setattr(rendering, "CPU_RAYS", 1000)
    close(alone, rendered(scene, [0, 1, 2]))
    for i in range(3):
        one = rendered(scene, [i])
        close(Rendering(alone.light[i, None], alone.depth[i, None], alone.moving[i, None]), one)


def test_culling_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    scene = static("interior", seed=3)
    culled = rendered(scene, [0, 20])
    everything = lambda solids, poses, spread: solids.half.amax(-1) > 0  # noqa: E731
    monkeypatch.setattr(rendering, "in_view", everything)
    close(culled, rendered(scene, [0, 20]))


def test_keep_pads_to_the_largest_count():
    solids = whole(static("room"), 0).boxes
    solids = solids.map(lambda x: torch.cat((x, x)))
    wanted = torch.zeros(solids.half.shape[:2], dtype=torch.bool)
    wanted[0, 3] = wanted[1, [1, 4]] = True
    kept = keep(solids, wanted)
    assert kept.half.shape == (2, 2, 3)
    assert torch.equal(kept.centre[1], solids.centre[1, [1, 4]])
    assert torch.equal(kept.half[0, 0], solids.half[0, 3]) and not kept.half[0, 1].any()
    assert keep(solids, wanted & False).half.shape == (2, 0, 3)


@pytest.mark.parametrize("world", ["room", "desktop", "interior"])
def test_motion_is_that_of_moving_solids(world: str):
    """Without those, other things appear where the mask is set, and nothing else changes."""
    options, marked = SceneOptions(world=world, moving=1.0), 0
    for seed in range(4):
        scene = Scene(seed, 3, SIZE, options)
        assert any(item.sway is not None for item in scene.builder.items)
        clip = scene.frames(1, 2)
        geometry = whole(scene, 1)
        still = {
            kind: replace(solids, half=solids.half * (solids.moving == 0)[..., None])
            for kind in ("boxes", "balls", "tubes", "rooms")
            for solids in [getattr(geometry, kind)]
        }
        pose = clip.world_from_camera[0]
        direction = (pixel_rays(scene.intrinsics, SIZE) @ pose[:3, :3].T)[None]
        behind = trace(replace(geometry, **still), pose[None, None, :3, 3], direction)
        behind = behind.t.view(SIZE)
        depth = torch.where(clip.valid[0], clip.depth[0], FAR)
        assert torch.equal(clip.moving[0], behind > depth * (1 + 1e-5))
        assert torch.allclose(depth[~clip.moving[0]], behind[~clip.moving[0]], rtol=1e-5)
        marked += int(clip.moving.sum())
    assert marked > 0


def test_nothing_moves_in_a_still_scene():
    scene = static("desktop")
    assert not scene.frames(0, 4).moving.any()
    start, end = whole(scene, 0), whole(scene, 37)
    assert torch.equal(start.boxes.centre, end.boxes.centre)


def test_what_moves_comes_back():
    scene = Scene(1, 2, SIZE, SceneOptions(world="room", moving=1.0))
    item = next(item for item in scene.builder.items if item.sway is not None)
    times = np.array([0, item.period / 4, item.period])
    boxes = to_tensors(scene.builder, times)[0]
    kinds = {"box": boxes.boxes, "ball": boxes.balls, "tube": boxes.tubes}
    same = [other for other in scene.builder.items if other.kind == item.kind]
    number = next(i for i, other in enumerate(same) if other is item)
    centre = kinds[item.kind].centre[:, number]
    torch.testing.assert_close(centre[0], centre[2], rtol=0, atol=1e-5)
    assert torch.linalg.vector_norm(centre[1] - centre[0]) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"world": "moon"},
        {"style": "fly"},
        {"moving": 1.5},
        {"degrees": (0.0, 90.0)},
        {"degrees": (90.0, 60.0)},
        {"degrees": (90.0, 180.0)},
    ],
    ids=str,
)
def test_options_that_make_no_sense(changes: dict):
    with pytest.raises(SettingError):
        SceneOptions(**changes)
