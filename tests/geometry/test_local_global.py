import pytest
import torch
from hypothesis import given

from tests.geometry.samples import BATCHES, SEEDS, close, generator, normal, random_similarity
from ttt3r.errors import InputError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.local_global import pose_from_similarity, world_from_local

SIZE = (6, 8)


def confidences(seed, *batch):
    return 1 + torch.rand(*batch, *SIZE, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("batch", BATCHES)
def test_recovers_the_similarity(batch):
    points, similarity = normal(0, *batch, *SIZE, 3), random_similarity(1, *batch)
    found = world_from_local(points, se3.apply(similarity, points), confidences(2, *batch))
    close(found, similarity)


@given(SEEDS)
def test_only_confident_valid_pixels_count(seed):
    """Against a twin that picks the pixels by hand."""
    points, world = normal(seed, *SIZE, 3), normal(seed + 1, *SIZE, 3)
    confidence = confidences(seed + 2)
    valid = torch.rand(SIZE, generator=generator(seed + 3)) < 0.9
    ranked = sorted(confidence.flatten().tolist())
    position = 0.6 * (len(ranked) - 1)
    low, part = int(position), position % 1
    least = ranked[low] + part * (ranked[low + 1] - ranked[low])
    chosen = [
        (v, u)
        for v in range(SIZE[0])
        for u in range(SIZE[1])
        if confidence[v, u] >= least and valid[v, u]
    ]
    expected = align_points(
        torch.stack([points[at] for at in chosen]),
        torch.stack([world[at] for at in chosen]),
        None,
        with_scale=True,
    )
    close(world_from_local(points, world, confidence, percentile=60.0, valid=valid), expected)


def test_all_valid_pixels_count_where_too_few_are_confident():
    points, world, confidence = normal(0, *SIZE, 3), normal(1, *SIZE, 3), confidences(2)
    valid = confidence < confidence.flatten().quantile(0.5)
    close(
        world_from_local(points, world, confidence, percentile=85.0, valid=valid),
        world_from_local(points, world, confidence, percentile=0.0, valid=valid),
    )


def test_points_that_are_not_finite_do_not_count():
    points, similarity = normal(0, *SIZE, 3), random_similarity(1)
    world = se3.apply(similarity, points)
    points[0, 0], world[1, 1] = torch.nan, torch.inf
    close(world_from_local(points, world, confidences(2), percentile=0.0), similarity)


def test_pose_is_the_rigid_part():
    similarity = random_similarity(0, 5)
    pose, scale = pose_from_similarity(similarity), se3.similarity_scale(similarity)
    close(pose[:, :3, :3] @ pose[:, :3, :3].mT, torch.eye(3).double().expand(5, 3, 3))
    points = normal(1, 5, 7, 3)
    close(se3.apply(pose, scale[:, None, None] * points), se3.apply(similarity, points))


@pytest.mark.parametrize("percentile", [-1.0, 101.0, float("nan")])
def test_percentiles_out_of_range_are_refused(percentile):
    points = normal(0, *SIZE, 3)
    with pytest.raises(SettingError, match="between 0 and 100"):
        world_from_local(points, points, confidences(0), percentile)


def test_no_valid_pixel_is_an_error():
    points = normal(0, *SIZE, 3)
    with pytest.raises(InputError, match="at least three points"):
        world_from_local(points, points, confidences(0), valid=torch.zeros(SIZE, dtype=torch.bool))
