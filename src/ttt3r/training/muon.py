"""Muon: momentum whose matrices are made orthogonal before they change the weights.

By Keller Jordan and others, https://kellerjordan.github.io/posts/muon/. PyTorch has it from 2.9 on,
but always multiplies in bfloat16, which is many times slower on processors without units for it.
Here products are in the dtype of the weights.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, as published
ITERATIONS = 5
RMS = 0.2  # of an update of AdamW, which this one is scaled to (arXiv 2502.16982, eq. 4)


def orthogonal(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Bring the singular values of a matrix near 1 by Newton–Schulz iterations (0.7 to 1.2)."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Optimises matrices.

    Args:
        matrices: the weights, two axes each.
        lr: learning rate, comparable to that of AdamW.
        weight_decay: decoupled.
        momentum: share of the past in the running mean of gradients.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore
        """Change the weights once; those without a gradient stay as they are."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(mean, group["momentum"]))  # Nesterov
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * RMS * max(weight.shape) ** 0.5)
