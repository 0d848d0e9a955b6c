"""Losses against slow twins and cases done by hand."""

import math

import torch

from ttt3r.geometry.se3 import apply, encoding_from_pose, pose_from_encoding
from ttt3r.models.base import StepOutput
from ttt3r.training.losses import (
    LossWeights,
    Target,
    frame_loss,
    pointmap_loss,
    quaternion_distance,
    robust,
)


def target(batch: int = 2, height: int = 4, width: int = 5) -> Target:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(batch, height, width, 3, generator=generator) + 1
    encoding = torch.randn(batch, 7, generator=generator)
    encoding[:, 3:] /= encoding[:, 3:].norm(dim=-1, keepdim=True)
    valid = torch.rand(batch, height, width, generator=generator) > 0.3
    image = torch.rand(batch, 3, height, width, generator=generator)
    return Target(points, valid, pose_from_encoding(encoding), image)


def perfect(truth: Target) -> StepOutput:
    ones = torch.ones(truth.valid.shape)
    return StepOutput(
        points=truth.points,
        confidence=ones,
        world_points=apply(truth.world_from_camera, truth.points),
        world_confidence=ones,
        rgb=truth.image.movedim(1, -1),
        pose_encoding=encoding_from_pose(truth.world_from_camera),
    )


def test_a_perfect_prediction_of_confidence_one_costs_nothing() -> None:
    truth = target()
    total, parts = frame_loss(perfect(truth), truth, LossWeights(rgb=1.0))
    assert total.abs() < 1e-4
    assert set(parts) == {"points", "world", "motion", "translation", "rotation", "rgb"}


def test_the_pointmap_loss_equals_its_slow_twin() -> None:
    truth = target()
    generator = torch.Generator().manual_seed(1)
    points = truth.points + 0.1 * torch.randn(truth.points.shape, generator=generator)
    confidence = 1 + torch.rand(truth.valid.shape, generator=generator)
    distance = truth.points.norm(dim=-1)
    loss, error = pointmap_loss(points, confidence, truth.points, distance, truth.valid, 0.2)
    seen, empty, errors = [], [], []
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        b, v, u = index
        c = float(confidence[b, v, u])
        if truth.valid[b, v, u]:
            e = math.dist(points[b, v, u].tolist(), truth.points[b, v, u].tolist())
            errors.append(e / float(distance[b, v, u]))
            seen.append(c * errors[-1] - 0.2 * math.log(c))
        else:
            empty.append(0.2 * math.log(c))
    expected = sum(seen) / len(seen) + 0.1 * sum(empty) / len(empty)
    assert math.isclose(float(loss), expected, rel_tol=1e-5)
    assert math.isclose(float(error), sum(errors) / len(errors), rel_tol=1e-5)


def test_more_confidence_pays_only_below_the_error_of_alpha() -> None:
    points, valid = torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, dtype=torch.bool)
    distance = torch.ones(1, 1, 1)
    for error, pays in ((0.05, True), (0.9, False)):
        truth = torch.tensor([[[[error, 0.0, 0.0]]]])
        low, high = (
            pointmap_loss(points, torch.full((1, 1, 1), c), truth, distance, valid, 0.2)[0]
            for c in (1.0, 1.5)
        )
        assert bool(high < low) == pays


def test_quaternions_of_either_sign_are_the_same_rotation() -> None:
    q = torch.tensor([[0.6, 0.8, 0.0, 0.0]])
    assert quaternion_distance(q, -q).item() == 0
    assert math.isclose(
        quaternion_distance(q, torch.tensor([[1.0, 0, 0, 0]])).item(), math.sqrt(0.8), rel_tol=1e-6
    )


def test_small_errors_count_squared_and_large_ones_plainly() -> None:
    small, large = robust(torch.tensor(1e-3)), robust(torch.tensor(100.0))
    assert math.isclose(float(small), 1e-5, rel_tol=0.02)
    assert math.isclose(float(large), 100.0, rel_tol=0.02)


def test_what_is_not_predicted_costs_nothing() -> None:
    truth = target()
    total, parts = frame_loss(StepOutput(), truth, LossWeights())
    assert total == 0 and parts == {}
