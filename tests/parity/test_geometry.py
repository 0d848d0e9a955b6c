"""Geometry against the golden data of CUT3R."""

import numpy as np
import pytest
import torch

from tests.goldens import load_npz
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.camera import ray_map
from ttt3r.geometry.focal import focal_from_points
from ttt3r.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix

GOLDEN = {
    name: torch.from_numpy(np.asarray(array))
    for name, array in load_npz("cut3r", "small_functions").items()
    if array.dtype.kind == "f"
}


def close(actual, expected, tolerance=2e-6):
    """Few float32 operations on numbers of about 1: 16 times its eps, 1.2e-7, is 2e-6."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["", "unnormalised_"])
def test_pose_from_encoding(kind):
    close(se3.pose_from_encoding(GOLDEN[f"pose.{kind}enc"]), GOLDEN[f"pose.{kind}c2w"])


def test_encoding_from_pose():
    close(se3.encoding_from_pose(GOLDEN["pose.c2w"]), GOLDEN["pose.from_c2w"])


def test_quaternions():
    close(matrix_from_quaternion(GOLDEN["quat.q"]), GOLDEN["quat.R"])
    close(quaternion_from_matrix(GOLDEN["quat.R"]), GOLDEN["quat.back"])


def test_apply():
    close(se3.apply(GOLDEN["geotrf.T"], GOLDEN["geotrf.pts"]), GOLDEN["geotrf.out"])


def test_ray_map_of_a_relative_pose():
    """The cameras are 7 km apart, so all rays nearly agree: hence the tight tolerance.

    The golden's relative pose came from a general inverse in float32, whose last digits depend on
    the processor. Its translation, where they weigh most, is therefore read from the golden. Those
    of the rotation move a ray by float32's eps times |ray| ≈ 1 over 7 km: 2e-11.
    """
    rays, first, second = GOLDEN["ray.map"], GOLDEN["ray.c2w1"], GOLDEN["ray.c2w2"]
    pose = se3.invert(first) @ second
    translation = rays[0, 0, :3]
    close(pose[:3, 3], translation.float())
    pose = se3.assemble(pose[:3, :3].double(), translation)
    close(ray_map(pose, GOLDEN["ray.K"], (24, 32)), rays, 1e-10)


@pytest.mark.parametrize("name", ["raymap_tiny_dpt", "raymap_tiny_linear"])
def test_ray_map_of_a_virtual_view(name):
    golden = load_npz("cut3r", name)
    pose, intrinsics = torch.from_numpy(golden["c2w"]), torch.from_numpy(golden["K"])
    rays = ray_map(pose, intrinsics, (48, 64)).float()
    close(rays, torch.from_numpy(golden["ray_map"]), 1e-6)  # rounded to float32, eps 1.2e-7


def test_focal():
    # A float32 sum over all pixels, whose order is the processor's: 100 eps.
    close(focal_from_points(GOLDEN["focal.pts"]), GOLDEN["focal.weiszfeld"], 1e-5)


def test_align_rigid():
    source, target = GOLDEN["procrustes.A"], GOLDEN["procrustes.B"]
    transform = align_points(source, target, GOLDEN["procrustes.w"], with_scale=False)
    close(transform, GOLDEN["procrustes.T"])
