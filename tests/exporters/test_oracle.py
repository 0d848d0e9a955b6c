"""Trajectories read by evo (GPL-3: an oracle in tests, never a dependency).

Runs where `pip install --group oracle` was done; `make oracle` does it and runs these tests.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.exporters.test_exporters import prediction
from ttt3r.exporters import export

files = pytest.importorskip("evo.tools.file_interface", reason="evo is not installed")


@pytest.mark.parametrize(
    ("format", "reader"),
    [
        ("tum", "read_tum_trajectory_file"),
        ("kitti", "read_kitti_poses_file"),
        ("euroc", "read_euroc_csv_trajectory"),
    ],
)
def test_evo_reads_the_same_poses(tmp_path: Path, format: str, reader: str):
    predictions = [prediction(index) for index in range(6)]
    found = getattr(files, reader)(export(predictions, format, tmp_path / "a").path)
    poses = [p.world_from_camera for p in predictions if p.world_from_camera is not None]
    # Written with 9 digits, of float32 numbers below 10.
    np.testing.assert_allclose(
        np.stack(found.poses_se3), torch.stack(poses).double().numpy(), atol=2e-6
    )
    if format != "kitti":
        assert found.timestamps == pytest.approx([p.timestamp for p in predictions])
