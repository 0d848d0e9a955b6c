"""A pose from two pointmaps: exact where they agree, and robust where some points do not."""

import pytest
import torch

from ttt3r.errors import InputError
from ttt3r.geometry import se3, sim3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.pointmap_pose import ROUNDS, pose_from_points
from ttt3r.geometry.robust import HUBER


def scene(
    seed: int, noise: float = 0.0, wrong: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points, where they are in the world, weights, and the pose; the first `wrong` are off."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(200, 3, generator=generator, dtype=torch.float64) + torch.tensor([0, 0, 4])
    tangent = torch.cat([torch.randn(6, generator=generator, dtype=torch.float64), torch.zeros(1)])
    pose = sim3.exp(tangent.double())
    world = se3.apply(pose, points)
    world = world + noise * torch.randn(world.shape, generator=generator, dtype=torch.float64)
    world[:wrong] += torch.tensor([3.0, -2.0, 1.0]).double()
    weights = torch.rand(200, generator=generator, dtype=torch.float64) + 0.5
    return points, world, weights, pose


def test_exact_points_give_the_exact_pose():
    points, world, weights, pose = scene(0)
    for rotation in (None, pose[:3, :3]):
        found = pose_from_points(points, world, weights, rotation)
        # A few hundred sums of numbers below 10, in float64.
        torch.testing.assert_close(found, pose, atol=1e-12, rtol=0)


def test_points_that_do_not_fit_lose_their_weight():
    points, world, weights, pose = scene(1, noise=0.01, wrong=30)
    plain = align_points(points, world, weights, with_scale=False)
    for rotation in (None, pose[:3, :3]):
        found = pose_from_points(points, world, weights, rotation)
        # 15 % of the points pull by less than the threshold, some hundredths.
        assert float((found - pose).abs().max()) < 0.02
    assert float((plain - pose).abs().max()) > 0.3


@pytest.mark.parametrize("given", [False, True])
def test_equals_a_plain_loop(given):
    """The slow twin: Huber's weights point by point, with a median by counting."""
    points, world, weights, pose = scene(2, noise=0.05, wrong=10)
    trust = torch.ones(200, dtype=torch.float64)
    for number in range(ROUNDS + 1):
        shares = weights * trust
        if given:
            left = [b - pose[:3, :3] @ a for a, b in zip(points, world, strict=True)]
            shift = sum(w * item for w, item in zip(shares, left, strict=True)) / shares.sum()
            found = se3.assemble(pose[:3, :3], shift)
        else:
            found = align_points(points, world, shares, with_scale=False)
        if number == ROUNDS:
            break
        distance = [
            float((found[:3, :3] @ a + found[:3, 3] - b).norm())
            for a, b in zip(points, world, strict=True)
        ]
        half = float(weights.sum()) / 2
        median = min(
            d
            for d in distance
            if sum(float(w) for w, e in zip(weights, distance, strict=True) if e <= d) >= half
        )
        limit = HUBER * median
        trust = torch.tensor([1.0 if d <= limit else limit / d for d in distance]).double()
    again = pose_from_points(points, world, weights, pose[:3, :3] if given else None)
    # The trust of the twin went through float32.
    torch.testing.assert_close(again, found, atol=1e-6, rtol=0)


def test_points_that_coincide_give_none():
    same = torch.ones(50, 3)
    with pytest.raises(InputError, match="coincide"):
        pose_from_points(same, same, torch.ones(50))
