"""The Lie algebra of similarities: round trips, small and large angles, derivatives."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ttt3r.geometry import se3, sim3

# From far below what float64 resolves beside 1, over angles near zero, to angles near π.
ANGLES = st.sampled_from([0.0, 1e-300, 1e-17, 1e-9, 1e-4, 0.5, 2.0, math.pi - 1e-6])
LOG_SCALES = st.sampled_from([0.0, 1e-17, -1e-9, 1e-4, 0.3, -2.0])
PARTS = st.lists(st.floats(-1, 1), min_size=6, max_size=6)


def tangent(parts: list[float], angle: float, log_scale: float, reach: float = 3.0) -> Tensor:
    values = torch.tensor(parts, dtype=torch.float64)
    axis = values[3:] + torch.tensor([0.0, 0.0, 1.5]).double()
    return torch.cat(
        [reach * values[:3], angle * axis / axis.norm(), values.new_tensor([log_scale])]
    )


def hat(vector: Tensor) -> Tensor:
    """The 4x4 matrix that a tangent vector stands for."""
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[:3, :3] = sim3.cross_matrix(vector[3:6]) + vector[6] * torch.eye(3).double()
    matrix[:3, 3] = vector[:3]
    return matrix


@settings(max_examples=25)
@given(PARTS, ANGLES, LOG_SCALES)
def test_log_undoes_exp(parts, angle, log_scale):
    vector = tangent(parts, angle, log_scale)
    # Near π the quaternion's real part is small, and the angle comes from it to some 1e-10.
    torch.testing.assert_close(sim3.log(sim3.exp(vector)), vector, atol=1e-8, rtol=1e-8)


@settings(max_examples=25)
@given(PARTS, ANGLES, LOG_SCALES)
def test_exp_is_the_exponential_of_the_matrix(parts, angle, log_scale):
    vector = tangent(parts, angle, log_scale)
    expected = torch.linalg.matrix_exp(hat(vector))
    torch.testing.assert_close(sim3.exp(vector), expected, atol=1e-12, rtol=1e-12)


@settings(max_examples=25)
@given(PARTS, st.floats(1e-3, 3.0), st.floats(-2.0, 2.0).filter(lambda s: abs(s) > 1e-3))
def test_the_shift_is_that_of_the_closed_form(parts, angle, log_scale):
    """The integral of e^(λτ) R(τ), of cosines and sines, written out."""
    vector = tangent(parts, angle, log_scale)
    cross = sim3.cross_matrix(vector[3:6] / angle)
    a, b, e = angle, log_scale, math.exp(log_scale)
    plain = (e - 1) / b
    sine = (e * (b * math.sin(a) - a * math.cos(a)) + a) / (a * a + b * b)
    cosine = (e * (b * math.cos(a) + a * math.sin(a)) - b) / (a * a + b * b)
    matrix = plain * torch.eye(3).double() + sine * cross + (plain - cosine) * cross @ cross
    # (e^λ - 1) / λ loses digits for small λ: some 1e-16 / 1e-3.
    torch.testing.assert_close(sim3.exp(vector)[:3, 3], matrix @ vector[:3], atol=1e-11, rtol=1e-11)


@settings(max_examples=25)
@given(PARTS, PARTS, st.floats(0, 3), st.floats(-1, 1))
def test_adjoint_and_inner(parts, others, angle, log_scale):
    similarity = sim3.exp(tangent(parts, angle, log_scale))
    small = tangent(others, 0.2, -0.1, 0.3)
    moved = similarity @ sim3.exp(small) @ se3.invert(similarity)
    torch.testing.assert_close(sim3.exp(sim3.adjoint(similarity) @ small), moved)
    vector = tangent(parts, angle, log_scale)
    bracket = hat(vector) @ hat(small) - hat(small) @ hat(vector)
    torch.testing.assert_close(hat(sim3.inner(vector) @ small), bracket)


@settings(max_examples=25)
@given(PARTS, PARTS, st.floats(0, 2.5), st.floats(-1, 1))
def test_derivative_of_the_logarithm(parts, others, angle, log_scale):
    vector, small = tangent(parts, angle, log_scale), tangent(others, 0.5, 0.2, 0.3)
    step = 1e-5
    ahead, behind = (sim3.log(sim3.exp(vector) @ sim3.exp(sign * step * small)) for sign in (1, -1))
    by_difference = (ahead - behind) / (2 * step)
    # Differences of float64 over 1e-5 are exact to about 1e-10 · the size of the vectors.
    torch.testing.assert_close(
        sim3.log_derivative(vector) @ small, by_difference, atol=1e-7, rtol=1e-7
    )
