"""Tokens placed in space: their position embedding, and blocks that some are absent from."""

import pytest
import torch

from ttt3r.nn.attention import SelfAttention
from ttt3r.nn.blocks import DecoderBlock
from ttt3r.nn.rope3d import BASES, SpatialRotary, axis_widths, spatial_rotary


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def turn_slowly(x, positions, dim):
    """Slow twin: channel by channel, base by base, as the formula is written."""
    out = torch.zeros_like(x)
    for base in BASES:
        start = 0
        for axis, width in enumerate(axis_widths(dim)):
            half = -(-width // 2)
            for k in range(width):
                angle = positions[:, :, axis] * base ** (-2 * (k % half) / width)
                if k < width - half:
                    partner, sign = k + half, -1.0
                else:
                    partner, sign = k - (width - half), 1.0
                cos, sin = angle.cos()[:, None], angle.sin()[:, None]
                turned = x[..., start + k] * cos + sign * x[..., start + partner] * sin
                out[..., start + k] += turned / len(BASES)
            start += width
    return out


@pytest.mark.parametrize("dim", [3, 4, 5, 12, 16, 48, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_turning_equals_its_slow_twin(dim, dtype):
    g = torch.Generator().manual_seed(dim)
    x = torch.randn(2, 3, 6, dim, generator=g, dtype=dtype)
    positions = 5 * torch.randn(2, 6, 3, generator=g, dtype=dtype)
    positions[:, 2] = 0.0
    turned = spatial_rotary(positions, dim).turn(x)
    assert turned.dtype == dtype and sum(axis_widths(dim)) == dim
    torch.testing.assert_close(turned, turn_slowly(x, positions, dim), rtol=1e-5, atol=1e-5)
    assert torch.equal(turned[:, :, 2], x[:, :, 2])  # at the origin nothing is turned


def test_tokens_at_the_origin_are_read_as_tokens_without_a_place():
    torch.manual_seed(0)
    block = DecoderBlock(24, 2, 4)
    x, y = torch.randn(2, 5, 24), torch.randn(2, 9, 24)
    tables = [spatial_rotary(torch.zeros(2, n, 3), 12) for n in (5, 9)]
    close(block(x, y, *tables), block(x, y))


def test_absent_tokens_are_read_by_none():
    torch.manual_seed(0)
    block = DecoderBlock(24, 2, 4)
    x, y = torch.randn(2, 5, 24), torch.randn(2, 9, 24)
    at, y_positions = spatial_rotary(torch.randn(2, 5, 3), 12), torch.randn(2, 9, 3)
    present = torch.arange(9) < torch.tensor([[9], [4]])
    masked = block(x, y, at, spatial_rotary(y_positions, 12, present))
    rubbish = y.masked_fill(~present[..., None], 1e3)
    assert torch.equal(masked, block(x, rubbish, at, spatial_rotary(y_positions, 12, present)))
    short = block(x[1:], y[1:, :4], place_of(at, 1), spatial_rotary(y_positions[1:, :4], 12))
    close(masked[1:], short)
    mixed = block(y, x, spatial_rotary(y_positions, 12, present), at)
    short = block(y[1:, :4], x[1:], spatial_rotary(y_positions[1:, :4], 12), place_of(at, 1))
    close(mixed[1:, :4], short)


def place_of(at, sample):
    return SpatialRotary(at.cos[sample : sample + 1], at.sin[sample : sample + 1])


def test_attention_in_space_equals_its_slow_twin():
    torch.manual_seed(0)
    layer = SelfAttention(36, 3).double()
    x = torch.randn(2, 6, 36, dtype=torch.float64)
    positions = torch.randn(2, 6, 3, dtype=torch.float64)
    present = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    out = layer(x, spatial_rotary(positions, 12, present))
    expected = torch.zeros_like(x)
    projected = layer.qkv(x).view(2, 6, 3, 3, 12)  # query, key, value; head; channel
    for b in range(2):
        for head in range(3):
            query, key, value = (projected[b, :, part, head] for part in range(3))
            query, key = (
                turn_slowly(part[None, None], positions[b : b + 1], 12)[0, 0]
                for part in (query, key)
            )
            keys = [j for j in range(6) if present[b, j]]
            for i in range(6):
                scores = torch.stack([query[i] @ key[j] / 12**0.5 for j in keys])
                weights = scores.exp() / scores.exp().sum()
                mixed = sum(w * value[j] for w, j in zip(weights, keys, strict=True))
                expected[b, i, 12 * head : 12 * head + 12] = mixed
    torch.testing.assert_close(out, layer.proj(expected))
