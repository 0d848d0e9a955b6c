"""Random rotations, poses and cameras for the property tests."""

import math

import torch
from hypothesis import strategies as st

from ttt3r.geometry import se3
from ttt3r.geometry.rotation import matrix_from_quaternion

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
BATCHES = [(), (2,), (1, 2)]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def random_rigid(seed, *batch, dtype=torch.float64):
    numbers = normal(seed, *batch, 7, dtype=dtype)
    return se3.pose_from_encoding(numbers)


def random_similarity(seed, *batch, dtype=torch.float64):
    numbers = normal(seed, *batch, 8, dtype=dtype)
    scale = numbers[..., 7].exp()
    linear = scale[..., None, None] * matrix_from_quaternion(numbers[..., 3:7])
    return se3.assemble(linear, numbers[..., :3])


def random_intrinsics(seed, *batch, dtype=torch.float64):
    numbers = torch.rand(*batch, 4, generator=generator(seed), dtype=dtype)
    matrix = torch.eye(3, dtype=dtype).repeat(*batch, 1, 1)
    matrix[..., 0, 0] = 10 + 20 * numbers[..., 0]
    matrix[..., 1, 1] = 10 + 20 * numbers[..., 1]
    matrix[..., :2, 2] = 3 + 4 * numbers[..., 2:]
    return matrix


def close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def axis_turn(axis, degrees):
    """Quaternion of a rotation about a coordinate axis (0, 1, 2)."""
    half = math.radians(degrees) / 2
    quaternion = torch.zeros(4, dtype=torch.float64)
    quaternion[0], quaternion[1 + axis] = math.cos(half), math.sin(half)
    return quaternion
