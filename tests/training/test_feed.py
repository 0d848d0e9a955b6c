"""Batches from disk and from a pool, their geometry, and what is drawn at random."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.toy import recipe
from ttt3r.geometry.camera import project, unproject
from ttt3r.scenes import make_clip
from ttt3r.training.cache import TRAINING_SEEDS, Shard, ensure, read, shards
from ttt3r.training.data import Batch, crop_and_resize, draw_batch
from ttt3r.training.feed import DeviceFeed, DiskFeed, Pool
from ttt3r.training.recipe import ClipSet


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> DiskFeed:
    return DiskFeed(recipe(), tmp_path_factory.mktemp("cache"), workers=1)


def test_a_batch_follows_from_its_generator(feed: DiskFeed) -> None:
    stage = recipe().stages[1]
    assert equal(feed(stage, generator(1)), feed(stage, generator(1)))
    assert not equal(feed(stage, generator(1)), feed(stage, generator(2)))


def test_some_batches_are_portrait(feed: DiskFeed) -> None:
    stage = replace(recipe().stages[0], portrait=0.5)
    shapes = {tuple(feed(stage, generator(seed)).image.shape[-2:]) for seed in range(12)}
    assert shapes == {(32, 48), (48, 32)}


def test_points_lie_on_the_rays_of_their_pixels(feed: DiskFeed) -> None:
    """Within half a source pixel, as points are those of the nearest source pixels."""
    batch = feed(recipe().stages[1], generator(3))
    for points, valid, k in zip(
        batch.points.flatten(0, 1), batch.valid.flatten(0, 1), batch.intrinsics.flatten(0, 1),
        strict=True,
    ):  # fmt: skip
        height, width = valid.shape
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        at = project(points, k)[valid]
        off = (at - torch.stack((u, v), -1)[valid]).abs()
        assert off.max() < 1.01


def test_cropping_keeps_the_camera_right() -> None:
    clip = make_clip(4, 1, (48, 64))
    image, points, k = crop_and_resize(clip.image, clip.depth, clip.intrinsics, (24, 32), 1.0)
    assert image.shape == (1, 3, 24, 32) and image.min() >= 0 and image.max() <= 1
    same, full, own = crop_and_resize(clip.image, clip.depth, clip.intrinsics, (48, 64), 1.0)
    assert torch.equal((same * 255).round().byte()[0], clip.image[0].movedim(-1, 0))
    assert torch.equal(own, clip.intrinsics)
    torch.testing.assert_close(full, unproject(clip.depth, clip.intrinsics))
    assert k[0, 0, 0] == pytest.approx(float(clip.intrinsics[0, 0, 0]) / 2)
    assert points.shape == (1, 24, 32, 3)


def test_spans_are_limited(feed: DiskFeed) -> None:
    feed(recipe().stages[0], generator())  # opens the clips
    clips = feed.sets[("few",)]
    near = draw_batch(clips, 30, 2, (32, 48), generator(), 1)
    wide = draw_batch(clips, 30, 2, (32, 48), generator(), 0)
    move = [batch.world_from_camera[:, 1, :3, 3].norm(dim=-1).mean() for batch in (near, wide)]
    assert move[0] < move[1]


def test_the_first_frame_is_the_world(feed: DiskFeed) -> None:
    batch = feed(recipe().stages[1], generator(5))
    eye = torch.eye(4).expand(len(batch.image), 4, 4)
    torch.testing.assert_close(batch.world_from_camera[:, 0], eye, atol=1e-5, rtol=0.0)


def test_rendering_goes_on_where_it_stopped(tmp_path: Path) -> None:
    parts = shards(50, 3, 2, (16, 24), per_shard=2)
    assert [part.clips for part in parts] == [2, 1]
    ensure(tmp_path, parts[:1], 1)
    stamp = (tmp_path / parts[0].name).stat().st_mtime_ns
    ensure(tmp_path, parts, 2)
    assert (tmp_path / parts[0].name).stat().st_mtime_ns == stamp
    assert {path.name for path in tmp_path.iterdir()} == {part.name for part in parts}
    clip = make_clip(52, 2, (16, 24))
    assert torch.equal(read(tmp_path, parts[1])["image"][0], clip.image)


def test_a_stride_takes_every_so_manieth_frame() -> None:
    wide = Shard(60, 1, 3, (16, 24), stride=4)
    path = make_clip(60, 12, (16, 24))
    assert torch.equal(wide.render()["image"][0], path.image[::4])
    assert wide.name != replace(wide, stride=1).name


def test_a_pool_is_renewed_ring_wise() -> None:
    pool = Pool([ClipSet(2, 2), ClipSet(1, 2, first_seed=500, stride=3)], (16, 24), "cpu")
    pool.grow(3)
    assert len(pool) == 3
    before = [part["image"].clone() for part in pool.parts]
    assert torch.equal(before[0][0], make_clip(TRAINING_SEEDS, 2, (16, 24)).image)
    assert torch.equal(before[1][0], make_clip(TRAINING_SEEDS + 500, 2, (16, 24), stride=3).image)
    pool.grow(1)
    assert len(pool) == 3
    changed = [not torch.equal(a, p["image"]) for a, p in zip(before, pool.parts, strict=True)]
    assert changed == [True, False, False]


def test_fresh_clips_feed_a_stage(tmp_path: Path) -> None:
    feed = DeviceFeed(recipe(), tmp_path, "cpu", first=2, each=1)
    stage = recipe().stages[0]
    assert feed(stage, generator()).image.shape == (4, 2, 3, 32, 48)
    feed(stage, generator(1))
    assert len(feed.sets[stage.clips]) == 4
