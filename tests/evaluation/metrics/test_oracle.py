"""The same errors from evo, a program of its own (GPL-3: an oracle in tests, never a dependency).

Runs where `pip install --group oracle` was done; `make oracle` does it and runs these tests.
"""

import numpy as np
import pytest

from tests.evaluation.trajectories import random_trajectory
from ttt3r.evaluation.metrics.trajectory import trajectory_errors

evo_metrics = pytest.importorskip("evo.core.metrics", reason="evo is not installed")
evo_trajectory = pytest.importorskip("evo.core.trajectory", reason="evo is not installed")


def errors_of_evo(estimate, truth, alignment, delta):
    reference = evo_trajectory.PosePath3D(poses_se3=list(truth))
    aligned = evo_trajectory.PosePath3D(poses_se3=list(estimate))
    if alignment != "none":
        aligned.align(reference, correct_scale=alignment == "sim3")

    def rmse(metric):
        metric.process_data((reference, aligned))
        return metric.get_statistic(evo_metrics.StatisticsType.rmse)

    relation = evo_metrics.PoseRelation
    frames = {"delta": delta, "delta_unit": evo_metrics.Unit.frames, "all_pairs": True}
    return (
        rmse(evo_metrics.APE(relation.translation_part)),
        rmse(evo_metrics.RPE(relation.translation_part, **frames)),
        rmse(evo_metrics.RPE(relation.rotation_angle_deg, **frames)),
    )


@pytest.mark.parametrize("delta", [1, 3])
@pytest.mark.parametrize("alignment", ["sim3", "se3", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_evo_finds_the_same_errors(seed, alignment, delta):
    truth = random_trajectory(seed, 40)
    noise = np.random.default_rng(seed).normal(0, 0.02, (40, 3))
    estimate = random_trajectory(seed + 100, 1)[0] @ truth @ random_trajectory(seed + 200, 40)[:1]
    estimate[:, :3, 3] = 0.3 * estimate[:, :3, 3] + noise
    ours = trajectory_errors(estimate, truth, alignment, delta=delta)
    found = (ours.ate, ours.rpe_translation, ours.rpe_rotation_deg)
    assert found == pytest.approx(errors_of_evo(estimate, truth, alignment, delta), abs=1e-8)
