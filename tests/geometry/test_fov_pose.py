import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.samples import SEEDS, close, normal, random_rigid
from ttt3r.geometry import fov_pose, se3
from ttt3r.geometry.camera import project

SIZE = (30, 40)


def centred_intrinsics(seed, *batch):
    focal = 10 + 20 * torch.rand(*batch, 2, generator=torch.Generator().manual_seed(seed)).double()
    matrix = torch.eye(3, dtype=torch.float64).repeat(*batch, 1, 1)
    matrix[..., 0, 0], matrix[..., 1, 1] = focal.unbind(-1)
    matrix[..., 0, 2], matrix[..., 1, 2] = SIZE[1] / 2, SIZE[0] / 2
    return matrix


@given(SEEDS)
def test_round_trip(seed):
    pose, intrinsics = random_rigid(seed, 3, 2), centred_intrinsics(seed % 1000, 3, 2)
    encoding = fov_pose.encode(pose, intrinsics, SIZE)
    found, matrix = fov_pose.decode(encoding, SIZE)
    close(found, pose)
    close(matrix, intrinsics)
    assert (encoding[..., 6] >= 0).all()


@given(SEEDS, st.floats(0.1, 10.0))
def test_the_length_of_the_quaternion_does_not_matter(seed, length):
    encoding = normal(seed, 9).abs() + 0.1
    longer = encoding.clone()
    longer[3:7] *= length
    for one, other in zip(
        fov_pose.decode(encoding, SIZE), fov_pose.decode(longer, SIZE), strict=True
    ):
        close(one, other)


def test_the_field_of_view_spans_the_image():
    """Rays at half the field of view meet the borders; the vertical one comes first."""
    fov = torch.tensor([0.8, 1.1], dtype=torch.float64)
    unmoved = torch.tensor([0, 0, 0, 0, 0, 0, 1.0], dtype=torch.float64)
    pose, intrinsics = fov_pose.decode(torch.cat((unmoved, fov)), SIZE)
    close(pose, torch.eye(4, dtype=torch.float64))
    corner = torch.tensor([math.tan(1.1 / 2), math.tan(0.8 / 2), 1.0], dtype=torch.float64)
    close(project(corner, intrinsics), torch.tensor([40.0, 30.0], dtype=torch.float64))


def test_the_quaternion_is_written_real_part_last():
    turned = se3.pose_from_encoding(torch.tensor([0, 0, 0, 0.8, 0.6, 0, 0]))
    encoding = fov_pose.encode(turned, torch.eye(3), SIZE)
    torch.testing.assert_close(encoding[3:7], torch.tensor([0.6, 0, 0, 0.8]))


def test_degenerate_cameras():
    blind = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 0, 0])
    assert fov_pose.decode(blind, SIZE)[1].diagonal().tolist() == [math.inf, math.inf, 1.0]
    assert fov_pose.decode(torch.zeros(9), SIZE)[0][:3, :3].isnan().all()
