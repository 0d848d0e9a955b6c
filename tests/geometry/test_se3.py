import pytest
import torch
from hypothesis import given

from tests.geometry.samples import (
    BATCHES,
    SEEDS,
    close,
    normal,
    random_rigid,
    random_similarity,
)
from ttt3r.geometry import se3

EYE = torch.eye(4, dtype=torch.float64)


@given(SEEDS)
def test_inverse(seed):
    transform = random_similarity(seed, 3)
    inverse = se3.invert(transform)
    close(inverse @ transform, EYE.expand(3, 4, 4))
    close(transform @ inverse, EYE.expand(3, 4, 4))
    close(inverse, torch.linalg.inv(transform), 1e-7)
    close(se3.invert(inverse), transform)


@given(SEEDS)
def test_inverse_of_a_product_is_the_reversed_product(seed):
    a, b = random_similarity(seed, 2)
    close(se3.invert(a @ b), se3.invert(b) @ se3.invert(a), 1e-7)


@given(SEEDS)
def test_apply_is_a_group_action(seed):
    a, b = random_similarity(seed, 2)
    points = normal(seed + 1, 5, 3)
    close(se3.apply(a @ b, points), se3.apply(a, se3.apply(b, points)))
    close(se3.apply(EYE, points), points)


@given(SEEDS)
def test_apply_scales_distances(seed):
    transform = random_similarity(seed)
    points = normal(seed + 1, 6, 3)
    expected = se3.similarity_scale(transform) * torch.pdist(points)
    close(torch.pdist(se3.apply(transform, points)), expected)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("extra", [(), (5,), (4, 6), (2, 3, 4), (0,)])
def test_apply_shapes_agree_with_a_loop(batch, extra):
    transform = random_similarity(0, *batch)
    points = normal(1, *batch, *extra, 3)
    moved = se3.apply(transform, points)
    assert moved.shape == points.shape
    loops = zip(
        transform.reshape(-1, 4, 4),
        points.reshape(len(transform.reshape(-1, 4, 4)), points[(0,) * len(batch)].numel() // 3, 3),
        strict=True,
    )
    slow = [t[:3, :3] @ p + t[:3, 3] for t, cloud in loops for p in cloud]
    if slow:
        close(moved.reshape(-1, 3), torch.stack(slow))


@given(SEEDS)
def test_pose_encoding_round_trip(seed):
    pose = random_rigid(seed, 4)
    close(se3.pose_from_encoding(se3.encoding_from_pose(pose)), pose)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    pose = random_rigid(0, 2, dtype=dtype)
    assert pose.dtype == se3.invert(pose).dtype == se3.place_camera(pose, pose).dtype == dtype
    assert se3.encoding_from_pose(pose).dtype == dtype


@given(SEEDS)
def test_scale_is_multiplicative(seed):
    a, b = random_similarity(seed, 2)
    scale = se3.similarity_scale
    close(scale(a @ b), scale(a) * scale(b))
    close(scale(a), torch.linalg.det(a[:3, :3]) ** (1 / 3))
    close(scale(random_rigid(seed)), torch.tensor(1.0, dtype=torch.float64))


@given(SEEDS)
def test_placed_camera_sees_the_same_points(seed):
    """Scaling a camera's points and placing the camera equals moving its points into the world."""
    world_from_segment, segment_from_camera = random_similarity(seed), random_rigid(seed + 1)
    world_from_camera = se3.place_camera(world_from_segment, segment_from_camera)
    close(se3.similarity_scale(world_from_camera), torch.tensor(1.0, dtype=torch.float64))
    points = normal(seed + 2, 7, 3)
    expected = se3.apply(world_from_segment, se3.apply(segment_from_camera, points))
    scaled = se3.similarity_scale(world_from_segment) * points
    close(se3.apply(world_from_camera, scaled), expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_placing_by_a_rigid_transform_is_the_product(batch):
    a, b = random_rigid(0, *batch), random_rigid(1, *batch)
    close(se3.place_camera(a, b), a @ b)


def test_gradients():
    encoding = normal(0, 2, 7).requires_grad_()
    points = normal(1, 2, 3, 3).requires_grad_()

    def inverse_pose_moves(encoding, points):
        return se3.apply(se3.invert(se3.pose_from_encoding(encoding)), points)

    assert torch.autograd.gradcheck(inverse_pose_moves, (encoding, points))
