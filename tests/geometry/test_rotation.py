import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.samples import BATCHES, SEEDS, axis_turn, close, normal
from ttt3r.geometry.rotation import matrix_from_quaternion, quaternion_from_matrix


def hamilton(a, b):
    """Slow twin of composition: the quaternion product, written out."""
    aw, av, bw, bv = a[0], a[1:], b[0], b[1:]
    vector = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat([(aw * bw - av @ bv)[None], vector])


@given(SEEDS)
def test_matrices_are_rotations(seed):
    matrix = matrix_from_quaternion(normal(seed, 5, 4))
    close(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    close(torch.linalg.det(matrix), torch.ones(5, dtype=torch.float64))


@given(SEEDS, st.floats(1e-3, 1e3), st.sampled_from([-1.0, 1.0]))
def test_length_and_sign_do_not_matter(seed, length, sign):
    quaternion = normal(seed, 4)
    close(
        matrix_from_quaternion(sign * length * quaternion),
        matrix_from_quaternion(quaternion),
    )


@given(SEEDS)
def test_round_trip(seed):
    quaternion = torch.nn.functional.normalize(normal(seed, 6, 4), dim=-1)
    quaternion = torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
    close(quaternion_from_matrix(matrix_from_quaternion(quaternion)), quaternion)


@given(SEEDS)
def test_product_of_matrices_is_product_of_quaternions(seed):
    a, b = normal(seed, 2, 4)
    product = matrix_from_quaternion(a) @ matrix_from_quaternion(b)
    close(product, matrix_from_quaternion(hamilton(a, b)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [0.0, 1e-4, 90.0, 179.9999, 180.0, 180.0001, 270.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_angles_lose_no_precision(axis, degrees, dtype):
    matrix = matrix_from_quaternion(axis_turn(axis, degrees)).to(dtype)
    quaternion = quaternion_from_matrix(matrix)
    assert quaternion[0] >= 0
    close(matrix_from_quaternion(quaternion), matrix, 1e-6 if dtype == torch.float32 else 1e-12)


def test_quarter_turn_about_z_takes_x_to_y():
    x_axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    close(
        matrix_from_quaternion(axis_turn(2, 90.0)) @ x_axis,
        torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64),
    )


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_shapes_agree(batch):
    quaternions = normal(0, *batch, 4)
    matrices = matrix_from_quaternion(quaternions)
    assert matrices.shape == (*batch, 3, 3)
    back = quaternion_from_matrix(matrices)
    assert back.shape == (*batch, 4)
    for one, matrix, again in zip(
        quaternions.reshape(-1, 4), matrices.reshape(-1, 3, 3), back.reshape(-1, 4), strict=True
    ):
        close(matrix_from_quaternion(one), matrix)
        close(quaternion_from_matrix(matrix), again)


def test_gradients():
    quaternion = normal(0, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(matrix_from_quaternion, quaternion)
    matrix = torch.stack([torch.eye(3), *matrix_from_quaternion(normal(1, 2, 4))]).double()
    assert torch.autograd.gradcheck(quaternion_from_matrix, matrix.requires_grad_())


def test_zero_quaternion_is_nan():
    assert matrix_from_quaternion(torch.zeros(4)).isnan().any()
