"""Which streams of a batch take part: masks that lie on the CPU, whatever computes.

The program decides by them what to compute. If they lay on a GPU, the program would have to wait
for all work that is queued there before it could read them.
"""

import torch
from jaxtyping import Bool
from torch import Tensor


def along(which: Bool[Tensor, " batch"], like: Tensor) -> Bool[Tensor, "batch ..."]:
    """Move a mask of streams to the device of `like`, and give it axes of 1 up to the same rank."""
    shape = -1, *(1,) * (like.ndim - 1)
    return which.reshape(shape).to(like.device, non_blocking=True)


def pick(which: Bool[Tensor, " batch"], yes: Tensor, no: Tensor) -> Tensor:
    """Take the streams of `which` from `yes` and the others from `no`.

    Nothing is computed where all streams are of one kind; the result may then be an argument.

    Args:
        which: mask, on the CPU.
        yes: values; the first axis is the batch, or 1.
        no: likewise, of the same rank.
    """
    if not bool(which.any()):
        chosen = no
    elif bool(which.all()):
        chosen = yes
    else:
        return torch.where(along(which, no), yes, no)
    shape = torch.broadcast_shapes(yes.shape, no.shape)
    return chosen if chosen.shape == shape else chosen.expand(shape)
