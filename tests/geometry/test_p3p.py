import torch
from hypothesis import given

from tests.geometry.samples import SEEDS, close, normal, random_rigid
from ttt3r.geometry import se3
from ttt3r.geometry.p3p import camera_from_three_points


def three_seen_points(seed, *batch):
    """Points in front of a random camera: in its frame, in the world, and the camera's pose."""
    seen = normal(seed, *batch, 3, 3)
    seen[..., 2] = 2 + seen[..., 2].abs()
    pose = random_rigid(seed + 1, *batch)
    return seen, se3.apply(se3.invert(pose), seen), pose


@given(SEEDS)
def test_one_of_the_solutions_is_the_truth(seed):
    seen, world, pose = three_seen_points(seed)
    lengths = 0.1 + normal(seed + 2, 3, 1).abs()
    solutions = camera_from_three_points(world, seen * lengths)
    errors = (solutions - pose).abs().amax((-2, -1))
    assert errors[errors.isfinite()].min() < 1e-3  # a double root is found to half the digits


@given(SEEDS)
def test_every_solution_is_rigid_and_puts_the_points_on_their_rays(seed):
    seen, world, _ = three_seen_points(seed)
    solutions = camera_from_three_points(world, seen)
    for solution in solutions[solutions.isfinite().all(-1).all(-1)]:
        close(solution[:3, :3] @ solution[:3, :3].mT, torch.eye(3, dtype=torch.float64))
        assert torch.linalg.det(solution[:3, :3]) > 0
        placed = se3.apply(solution, world)
        cosines = torch.nn.functional.cosine_similarity(placed, seen, dim=-1)
        close(cosines, torch.ones(3, dtype=torch.float64), 1e-5)


def test_batches_agree():
    seen, world, _ = three_seen_points(0, 2, 5)
    together = camera_from_three_points(world, seen)
    assert together.shape == (2, 5, 4, 4, 4)
    alone = camera_from_three_points(world[1, 3], seen[1, 3])
    torch.testing.assert_close(together[1, 3], alone, equal_nan=True)


def test_degenerate_points_have_no_solution():
    seen, world, _ = three_seen_points(0)
    on_a_line = world[:1] + torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    for points in (on_a_line, world[[0, 0, 1]], torch.zeros_like(world), world * torch.nan):
        solutions = camera_from_three_points(points, seen)
        assert solutions.isnan().any(-1).any(-1).all()
