"""Batches: their geometry, how they are changed, and what is drawn at random."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.toy import SIZE, Memory, recipe
from ttt3r.geometry.camera import project
from ttt3r.geometry.se3 import apply
from ttt3r.training.data import (
    Batch,
    Changes,
    collate,
    draw_batch,
    fixed_batch,
    pick,
    pick_frames,
    recolour,
)

STAGE = recipe().stages[1]


def draw(clips: Memory, seed: int) -> Batch:
    return draw_batch(clips, STAGE, 0, np.random.default_rng(seed))


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_a_batch_follows_from_its_generator(clips: Memory) -> None:
    assert equal(draw(clips, 1), draw(clips, 1))
    assert not equal(draw(clips, 1), draw(clips, 2))
    assert draw(clips, 1).image.shape == (STAGE.batch, STAGE.frames, 3, *SIZE)


def test_points_lie_on_the_rays_of_their_pixels_mirrored_or_not(clips: Memory) -> None:
    for batch in (draw(clips, seed) for seed in range(4)):
        v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
        for row, valid in enumerate(batch.valid):
            at = project(batch.points[row], batch.intrinsics[row])
            off = (at - torch.stack((u, v), -1)).abs()[valid]
            assert off.max() < 1e-3  # float32 of numbers up to 48


def test_the_first_frame_is_the_world(clips: Memory) -> None:
    eye = torch.eye(4).expand(STAGE.batch, 4, 4)
    torch.testing.assert_close(draw(clips, 5).world_from_camera[:, 0], eye, atol=1e-5, rtol=0.0)


def test_a_mirrored_clip_is_the_same_scene_in_a_mirror(clips: Memory) -> None:
    rows = [pick(clips[0], [0, 2])]
    plain = collate(rows, Changes.none(1))
    mirrored = collate(rows, replace(Changes.none(1), mirrored=torch.ones(1, dtype=torch.bool)))
    assert torch.equal(mirrored.image, plain.image.flip(-1))
    world = [
        apply(b.world_from_camera[:, 1], b.points[:, 1].flatten(1, 2)) for b in (plain, mirrored)
    ]
    seen = world[1].unflatten(1, SIZE).flip(2) * torch.tensor([-1.0, 1, 1])
    valid = plain.valid[:, 1]
    torch.testing.assert_close(
        seen[valid], world[0].unflatten(1, SIZE)[valid], atol=1e-4, rtol=1e-4
    )


def test_colours_change_as_told() -> None:
    image = torch.rand(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(recolour(image, Changes.none(2)), image, atol=1e-6)
    darker = replace(Changes.none(2), tint=torch.full((2, 3), 0.5))
    assert torch.allclose(recolour(image, darker), image / 2, atol=1e-6)
    flat = replace(Changes.none(2), contrast=torch.tensor([0.0, 1.0]))
    changed = recolour(image, flat)
    assert changed[0].flatten(1).std(1).max() < 1e-6  # grey, each frame its own
    assert torch.allclose(changed[1], image[1], atol=1e-6)


@pytest.mark.parametrize("longest", [3, 5, 11, 99])
def test_frames_are_ordered_and_within_the_span(longest: int) -> None:
    random, directions = np.random.default_rng(0), set()
    for _ in range(200):
        frames = pick_frames(12, 4, longest, random)
        steps = np.diff(frames)
        assert (steps > 0).all() or (steps < 0).all()
        assert frames.min() >= 0 and frames.max() < 12 and abs(steps.sum()) <= longest
        directions.add(bool(steps[0] > 0))
    assert directions == {True, False}


def test_validation_takes_clips_as_they_are(clips: Memory) -> None:
    batch = fixed_batch(clips, [1, 0], [0, 3])
    image = torch.from_numpy(clips[1].image[[0, 3]]).float() / 255 * 2 - 1
    assert torch.allclose(batch.image[0], image, atol=1e-6)
