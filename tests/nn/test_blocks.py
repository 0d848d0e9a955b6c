"""Building blocks that no published network has, and so no golden checks."""

import torch
import torch.nn.functional as F

from ttt3r.nn.blocks import MapRefiner


def random_refiner() -> MapRefiner:
    """One with nothing at zero."""
    torch.manual_seed(0)
    refiner = MapRefiner(dim=12, channels=4, patch=8, width=6)
    for parameter in refiner.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return refiner


def test_a_new_refiner_changes_nothing() -> None:
    refiner = MapRefiner(dim=12, channels=4, patch=8, width=6)
    raw, tokens = torch.randn(2, 4, 16, 24), torch.randn(2, 6, 12)
    assert torch.equal(refiner(raw, tokens, (2, 3)), raw)


def test_what_a_refiner_computes() -> None:
    """Against the same arithmetic with plain convolutions on cells gathered one by one."""
    refiner = random_refiner().double()
    raw = torch.randn(1, 4, 16, 24, dtype=torch.float64)
    tokens = torch.randn(1, 6, 12, dtype=torch.float64)
    cells = torch.empty(1, 64, 4, 6, dtype=torch.float64)
    for channel in range(4):
        for row in range(4):
            for column in range(4):
                cells[:, channel * 16 + row * 4 + column] = raw[:, channel, row::4, column::4]
    weights = refiner.state_dict()

    def convolve(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    token_map = (tokens @ weights["tokens.weight"].T + weights["tokens.bias"]).mT.view(1, 6, 2, 3)
    x = convolve(cells, "enter") + F.interpolate(token_map, size=(4, 6), mode="bilinear")
    x = x + convolve(F.gelu(convolve(F.gelu(x), "block.conv1")), "block.conv2")
    x = convolve(F.gelu(x), "leave")
    expected = raw.clone()
    for channel in range(4):
        for row in range(4):
            for column in range(4):
                expected[:, channel, row::4, column::4] += x[:, channel * 16 + row * 4 + column]
    torch.testing.assert_close(refiner(raw, tokens, (2, 3)), expected)


def test_a_refiner_joins_neighbouring_patches() -> None:
    """What one patch says reaches the pixels around it, four cells far and no further."""
    refiner = random_refiner()
    raw, tokens = torch.randn(1, 4, 8, 48), torch.randn(1, 6, 12)
    raw.requires_grad_()
    refined = refiner(raw, tokens, (1, 6))
    (gradient,) = torch.autograd.grad(refined[..., 8:16].sum(), raw)
    reached = gradient.abs().sum((0, 1, 2)) > 0
    assert reached[:32].all() and not reached[32:].any()
