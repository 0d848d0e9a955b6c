"""Clips follow from their seed, whatever is rendered first and in how many pieces."""

from dataclasses import fields

import numpy as np
import pytest
import torch

import ttt3r.scenes
from ttt3r.errors import SettingError
from ttt3r.scenes import WORLDS, Clip, Scene, SceneOptions, make_clip
from ttt3r.scenes.paths import STYLES
from ttt3r.scenes.worlds import WORLD_SHARES

SIZE = (48, 64)


def assert_equal(left: Clip, right: Clip):
    for field in fields(Clip):
        assert torch.equal(getattr(left, field.name), getattr(right, field.name)), field.name


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("style", STYLES)
def test_every_world_and_style(world: str, style: str):
    clip = make_clip(2, 2, SIZE, SceneOptions(world=world, style=style))
    assert len(clip) == 2 and clip.image.shape == (2, *SIZE, 3)
    assert clip.depth.isfinite().all() and clip.world_from_camera.isfinite().all()
    assert clip.image.float().std() > 5  # neither black nor white all over
    assert 20 < clip.image.float().mean() < 240


def test_a_clip_follows_from_its_seed():
    clip = make_clip(21, 3, SIZE)
    assert_equal(clip, make_clip(21, 3, SIZE))
    other = make_clip(22, 3, SIZE)
    assert not torch.equal(clip.depth, other.depth)


@pytest.mark.parametrize(
    ("seed", "depth", "image", "position"),
    [
        (7, 10.51162, 106.598, [0.4347, -1.7596, -5.443]),
        (1_000_000, 2.32367, 120.062, [-0.3722, -0.9724, -1.4621]),
        (1_000_003, 15.35896, 116.221, [-0.1266, -1.5925, -9.9238]),
        (2_000_001, 18.41385, 122.451, [0.3084, -1.5251, -23.8882]),
    ],
)
def test_seeds_keep_their_scenes(seed: int, depth: float, image: float, position: list[float]):
    """Frozen: rendered clips on disk, and numbers that name a seed, stay what they are."""
    clip = make_clip(seed, 4, SIZE)
    assert float(clip.depth[clip.valid].double().mean()) == pytest.approx(depth, rel=1e-3)
    assert float(clip.image.double().mean()) == pytest.approx(image, abs=0.2)
    assert clip.world_from_camera[3, :3, 3].tolist() == pytest.approx(position, abs=1e-3)


# PyTorch shares sums among threads from 32,768 values on.
@pytest.mark.parametrize(
    ("seed", "size"), [(21, SIZE), pytest.param(3, (160, 216), marks=pytest.mark.slow)]
)
def test_threads_change_nothing(seed: int, size: tuple[int, int]):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = make_clip(seed, 1, size)
        torch.set_num_threads(2)
        two = make_clip(seed, 1, size)
    finally:
        torch.set_num_threads(threads)
    assert_equal(one, two)


def test_a_frame_does_not_depend_on_others():
    """Nor on which of them are rendered first: the exposure settles on frame 0 always."""
    options = SceneOptions(style="pan")
    whole = make_clip(5, 12, SIZE, options)
    assert_equal(Scene(5, 12, SIZE, options).frames(7, 9), whole[7:9])
    assert_equal(Scene(5, 12, SIZE, options).frames(1, 12, every=3), whole[1::3])
    backwards = Scene(5, 12, SIZE, options)
    for start in (9, 6, 3, 0):
        assert_equal(backwards.frames(start, start + 3), whole[start : start + 3])
    for frames in (1, 5, 12, 100):
        parts = list(Scene(5, 12, SIZE, options).chunks(frames))
        assert sum(map(len, parts)) == 12
        assert_equal(parts[0], whole[: len(parts[0])])
        assert_equal(parts[-1], whole[12 - len(parts[-1]) :])


def test_the_length_of_a_path_does_not_change_what_stands_around():
    short, long = (Scene(5, frames, SIZE) for frames in (3, 30))
    assert short.world == long.world and len(short.builder.items) == len(long.builder.items)
    assert torch.equal(short.intrinsics, long.intrinsics)


def test_frames_beyond_the_end():
    scene = Scene(5, 4, SIZE)
    assert len(scene) == 4 and len(scene.frames(2, 100)) == 2
    for start, stop in ((4, 5), (2, 2), (3, 1), (-1, 2)):
        with pytest.raises(SettingError, match="4 frames"):
            scene.frames(start, stop)
    with pytest.raises(SettingError, match="every"):
        scene.frames(0, 2, every=0)


@pytest.mark.parametrize(
    ("seed", "frames", "size", "message"),
    [
        (0, 0, SIZE, "1 to 1000000 frames, not 0"),
        (0, -3, SIZE, "frames"),
        (0, 1_000_001, SIZE, "frames"),
        (0, 1, (48, 60), "60x48"),
        (0, 1, (0, 64), "multiples of 8"),
        (0, 1, (-8, 64), "multiples of 8"),
        (0, 1, (48, 8000), "up to 4096"),
        (-1, 1, SIZE, "seed"),
    ],
)
def test_refusals(seed: int, frames: int, size: tuple[int, int], message: str):
    with pytest.raises(SettingError, match=message):
        make_clip(seed, frames, size)


@pytest.mark.parametrize("seed", [0, 2**40, 10**30])
def test_any_seed_will_do(seed: int):
    assert len(make_clip(seed, 1, (8, 16))) == 1


def test_field_of_view():
    degrees = []
    for seed in range(30):
        size = (64, 48) if seed % 2 else (48, 64)
        (fx, skew, cx), (_, fy, cy), last = Scene(seed, 1, size).intrinsics.tolist()
        assert fx == fy and skew == 0 and last == [0, 0, 1]
        assert (cx, cy) == ((size[1] - 1) / 2, (size[0] - 1) / 2)
        degrees.append(2 * np.degrees(np.arctan(32 / fx)))
    assert 45 <= min(degrees) < 60 and 85 < max(degrees) <= 100
    narrow = Scene(3, 1, SIZE, SceneOptions(degrees=(30.0, 30.0))).intrinsics
    assert float(narrow[0, 0]) == pytest.approx(32 / np.tan(np.radians(15)))


@pytest.mark.slow
def test_worlds_are_drawn_by_their_shares():
    assert WORLD_SHARES.keys() == WORLDS.keys()
    assert sum(WORLD_SHARES.values()) == pytest.approx(1)
    drawn = {Scene(seed, 1, (8, 8)).world for seed in range(60)}
    assert drawn == set(WORLDS)


def test_slices():
    clip = make_clip(5, 4, SIZE)
    assert len(clip[1:3]) == 2 and torch.equal(clip[1:3].depth, clip.depth[1:3])


def test_public_names():
    assert set(ttt3r.scenes.__all__) == {"Scene", "SceneOptions", "Clip", "make_clip", "WORLDS"}
    assert all(hasattr(ttt3r.scenes, name) for name in ttt3r.scenes.__all__)
