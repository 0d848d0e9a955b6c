"""From raw network outputs to points, confidences, colours and poses (CUT3R, section 3.4)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def points_from_raw(
    raw: Float[Tensor, "*batch 3"], mode: str = "exp", *, positive_depth: bool = False
) -> Float[Tensor, "*batch 3"]:
    """Stretch raw vectors along their own direction.

    Args:
        raw: the head's xyz.
        mode: "exp" for length expm1(d), "square" for d², "linear" for d, where d = |raw|.
        positive_depth: first flip vectors that point behind the camera; one with z = 0 vanishes.
            Has no effect on "linear", as published.
    """
    if mode == "linear":
        return raw
    if positive_depth:
        raw = raw * raw[..., 2:].sign()
    length = torch.linalg.vector_norm(raw, dim=-1, keepdim=True)
    direction = raw / length.clamp(min=1e-8)
    return direction * (torch.expm1(length) if mode == "exp" else length.square())


def confidence_from_raw(
    raw: Float[Tensor, "*batch"], mode: str = "exp", low: float = 1.0, high: float = float("inf")
) -> Float[Tensor, "*batch"]:
    """Map raw confidence to [low, high]: low + min(exp(x), high − low), or a scaled sigmoid."""
    if mode == "sigmoid":
        return (high - low) * torch.sigmoid(raw) + low
    return low + raw.exp().clamp(max=high - low)


def rgb_from_raw(raw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Map raw colour into (−1, 1), keeping clear of the ends."""
    return 2 * (torch.sigmoid(raw) * (1 - 2e-6) + 1e-6 - 0.5)


def pose_from_raw(raw: Float[Tensor, "*batch 7"], mode: str = "exp") -> Float[Tensor, "*batch 7"]:
    """Map a raw pose to [tx, ty, tz, qw, qx, qy, qz] with a unit quaternion, qw ≥ 0.

    The translation is stretched along itself: length expm1(n) for "exp", n² for "square".
    """
    translation, quaternion = raw.split((3, 4), dim=-1)
    length = torch.linalg.vector_norm(translation, dim=-1, keepdim=True)
    stretched = torch.expm1(length) if mode == "exp" else length.square()
    quaternion = F.normalize(quaternion, dim=-1, eps=1e-12)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return torch.cat((translation * (stretched / length.clamp(min=1e-8)), quaternion), dim=-1)
