"""Losses against slow twins and cases done by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.toy import NETWORK, Memory
from ttt3r import rules
from ttt3r.geometry.se3 import apply, encoding_from_pose
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.training.data import Batch, fixed_batch
from ttt3r.training.initial import initialise
from ttt3r.training.losses import (
    CONFIDENCE,
    NEAREST,
    Said,
    clip_errors,
    gate_error,
    geometry_errors,
    quaternion_distance,
    robust,
)
from ttt3r.training.recipe import LossWeights


@pytest.fixture(scope="module")
def batch(clips: Memory) -> Batch:
    return fixed_batch(clips, range(2), [0, 1, 3])


def truth_of(batch: Batch) -> Said:
    ones = torch.ones(batch.valid.shape)
    world = torch.stack(
        [
            torch.stack([apply(pose, points) for pose, points in zip(*clip, strict=True)])
            for clip in zip(batch.world_from_camera, batch.points, strict=True)
        ]
    )
    return Said(batch.points, ones, world, ones, encoding_from_pose(batch.world_from_camera))


def test_the_truth_of_confidence_one_costs_nothing_at_any_scale(batch: Batch) -> None:
    truth = truth_of(batch)
    pose = truth.pose.clone()
    pose[..., :3] /= 2
    half = replace(truth, points=truth.points / 2, world=truth.world / 2, pose=pose)
    for said, scale in ((truth, 0.0), (half, math.log(2))):
        errors = geometry_errors(said, batch)
        assert float(errors.pop("scale")) == pytest.approx(scale, abs=0.02)
        # 1e-4 is what keeps lengths differentiable at zero; near pixels are clamped by the scale.
        assert all(float(value) < 2e-3 for value in errors.values()), errors


def test_errors_equal_their_slow_twin(batch: Batch) -> None:
    random = torch.Generator().manual_seed(1)

    def noisy(value: torch.Tensor) -> torch.Tensor:
        return value * (1 + 0.1 * torch.randn(value.shape, generator=random))

    truth = truth_of(batch)
    said = Said(
        noisy(truth.points), 1 + noisy(truth.confidence), noisy(truth.world),
        1 + noisy(truth.confidence), noisy(truth.pose),
    )  # fmt: skip
    errors = geometry_errors(said, batch, (1, 0))
    points, world, direction, reward, scales = [], [], [], [], []
    steps, turns = [], []
    for b in range(2):
        pixels = [
            index for index in np.ndindex(3, 32, 48)
            if index[1] % 2 == 1 and index[2] % 2 == 0 and batch.valid[(b, *index)]
        ]  # fmt: skip
        distances = {i: max(float(batch.points[(b, *i)].norm()), NEAREST) for i in pixels}
        logs = [math.log(distances[i] / float(said.points[(b, *i)].norm())) for i in pixels]
        scale = math.exp(sum(logs) / len(logs))
        scales.append(abs(math.log(scale)))
        for i in pixels:
            t, d = i[0], distances[i]
            own = scale * said.points[(b, *i)]
            target = apply(batch.world_from_camera[b, t], own)
            e = float((own - batch.points[(b, *i)]).norm()) / d
            w = float((scale * said.world[(b, *i)] - target).norm()) / d
            a = said.world[(b, *i)] / said.world[(b, *i)].norm() - target / target.norm()
            points.append(e)
            world.append(w**2 / (w + 0.05))
            turn = float(a.norm()) if target.norm() > 0.2 else 0.0
            direction.append(turn**2 / (turn + 0.02))
            for c, error in ((said.confidence, e), (said.world_confidence, w)):
                c = float(c[(b, *i)])
                reward.append(c * error - CONFIDENCE * math.log(c))
        mean = max(sum(distances.values()) / len(distances), 0.5)
        for t in (1, 2):
            pose = batch.world_from_camera[b, t]
            step = float((scale * said.pose[b, t, :3] - pose[:3, 3]).norm()) / mean
            steps.append(step**2 / (step + 0.05))
            q = encoding_from_pose(pose)[3:]
            turn = min(float((said.pose[b, t, 3:] - s * q).norm()) for s in (1, -1))
            turns.append(turn**2 / (turn + 0.03))

    def mean_of(values: list[float]) -> float:
        return sum(values) / len(values)

    expected = {
        "points": mean_of(points),
        "world": mean_of(world),
        "direction": mean_of(direction),
        "translation": mean_of(steps),
        "rotation": mean_of(turns),
        "scale": mean_of(scales),
        "confidence": 2 * mean_of(reward),
    }
    for name, value in expected.items():
        # float32 sums, and 1e-4 that keeps lengths differentiable
        assert float(errors[name]) == pytest.approx(value, rel=1e-2, abs=1e-4), name


def test_world_points_teach_motion_and_leave_depth_alone(batch: Batch) -> None:
    truth = truth_of(batch)
    points, world = (value.clone().requires_grad_() for value in (truth.points, truth.world + 0.1))
    part = geometry_errors(replace(truth, points=points, world=world), batch)["direction"]
    of_points, of_world = torch.autograd.grad(part, (points, world), allow_unused=True)
    assert of_points is None and of_world.abs().sum() > 0


def test_quaternions_of_either_sign_are_the_same_rotation() -> None:
    q = torch.tensor([[0.6, 0.8, 0.0, 0.0]])
    assert quaternion_distance(q, -q).item() == 0
    assert math.isclose(
        quaternion_distance(q, torch.tensor([[1.0, 0, 0, 0]])).item(), math.sqrt(0.8), rel_tol=1e-6
    )


def test_small_errors_count_squared_and_large_ones_plainly() -> None:
    small, large = robust(torch.tensor(1e-3), 0.1), robust(torch.tensor(100.0), 0.1)
    assert math.isclose(float(small), 1e-5, rel_tol=0.02)
    assert math.isclose(float(large), 100.0, rel_tol=0.02)


def test_the_gate_is_held_to_the_middle() -> None:
    assert gate_error([torch.sigmoid(torch.full((2, 3), -0.3))]) < 1e-9
    assert gate_error([torch.full((2, 3), 1.0)]) > 50  # finite at the ends


@pytest.mark.parametrize("rule", ["overwrite", "ttt3r"])
def test_a_clip_gives_every_part_a_gradient(batch: Batch, rule: str) -> None:
    model = Cut3r(NETWORK)
    initialise(model, 0)
    parts = clip_errors(model, batch, rules.parse(rule)).weighted(LossWeights())
    for name, part in parts.items():
        assert torch.isfinite(part), name
        assert part.requires_grad == (name != "gate" or rule == "ttt3r"), name
