"""One cache for all tables that depend on sizes alone: made once per size, type and device.

Tables are shared, so nobody may change one in place.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

KEPT = 64  # tables of one kind: a few image sizes, each with a few head sizes


def table(make: Callable[P, R]) -> Callable[P, R]:
    """Remember what a function of hashable arguments made.

    A table that was first made in inference mode could not be used in training, so tables are
    always ordinary tensors without gradients.
    """

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return make(*args, **kwargs)

    # The types of lru_cache forget the parameters.
    return cast("Callable[P, R]", lru_cache(maxsize=KEPT)(made))


@table
def sines_and_cosines(
    count: int, channels: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "count channels"]:
    """Rows [sin(i ω) | cos(i ω)] with ω_k = 10000^(−k / (channels / 2)), computed in float64.

    Args:
        count: rows, i = 0 … count − 1.
        channels: even.
        dtype: of the table.
        device: where to put it.
    """
    steps = torch.arange(channels // 2, dtype=torch.float64) / (channels / 2)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * 10000.0**-steps
    return torch.cat((angles.sin(), angles.cos()), dim=1).to(device, dtype)


@table
def constants(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, " values"]:
    """Return numbers as a tensor."""
    return torch.tensor(values, dtype=dtype, device=device)
