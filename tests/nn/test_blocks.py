"""Building blocks that no published network has, and so no golden checks."""

import math

import torch

from ttt3r.nn.blocks import smoothed


def test_smoothing_against_its_sum_written_out() -> None:
    """Each value is the weighted mean of its surroundings, the border repeated outwards."""
    torch.manual_seed(0)
    raw, sigma = torch.randn(1, 2, 5, 7, dtype=torch.float64), 2
    reach = range(-6, 7)  # three sigma
    mass = sum(math.exp(-(k**2) / (2 * sigma**2)) for k in reach)
    expected = torch.zeros_like(raw)
    for row in range(5):
        for column in range(7):
            for down in reach:
                for right in reach:
                    weight = math.exp(-(down**2 + right**2) / (2 * sigma**2)) / mass**2
                    at = min(max(row + down, 0), 4), min(max(column + right, 0), 6)
                    expected[..., row, column] += weight * raw[..., at[0], at[1]]
    torch.testing.assert_close(smoothed(raw, sigma), expected)


def test_what_smoothing_leaves_alone() -> None:
    raw = torch.randn(2, 3, 8, 8)
    assert smoothed(raw, 0) is raw
    level = torch.full((1, 4, 8, 8), 2.5)
    torch.testing.assert_close(smoothed(level, 4), level)
