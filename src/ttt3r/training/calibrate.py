"""Makes the confidence of trained weights say what the loss asks of it: one number per pointmap.

While a network trains, its confidence counts for little and lags behind its errors. Afterwards one
constant is added to the raw confidence of each pointmap, the one for which C e − α log C is least
(CUT3R, arXiv 2501.12387, eq. 5). The order of pixels by confidence stays as it was.
"""

import torch
from torch import Tensor

from ttt3r.models.cut3r.heads import LinearHeads
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.training.data import Source, fixed_batch
from ttt3r.training.losses import CONFIDENCE, NEAREST, length, log_scale
from ttt3r.training.validate import say

SHIFTS = torch.linspace(-4.0, 6.0, 201)


def best_shift(confidence: Tensor, error: Tensor, alpha: float = CONFIDENCE) -> float:
    """The constant to add to log(C − 1) for which the mean of C e − α log C is least.

    Args:
        confidence: C of some pixels, above 1.
        error: their errors e.
        alpha: α.
    """
    raw = (confidence - 1).clamp(min=1e-6).log()
    costs = []
    for shift in SHIFTS:
        shifted = 1 + (raw + shift).exp()
        costs.append((shifted * error - alpha * shifted.log()).mean())
    return float(SHIFTS[torch.stack(costs).argmin()])


@torch.no_grad()
def calibrate(model: Cut3r, source: Source, rule: str = "ttt3r", clips: int = 16) -> list[float]:
    """Shift the confidence of both pointmaps of a network with linear heads, in place.

    Args:
        model: float32.
        source: clips that were not trained on.
        rule: update rule.
        clips: how many to look at.

    Returns:
        What was added to the raw confidence in the camera's frame, and in the world's.
    """
    heads = model.downstream_head
    assert isinstance(heads, LinearHeads)
    frames = range(0, source.frames, max(1, source.frames // 8))
    batch = fixed_batch(source, range(min(clips, len(source))), list(frames))
    said, _ = say(model, batch, rule)
    distance = batch.points.norm(dim=-1).clamp(min=NEAREST)
    scale = log_scale(said.points, distance, batch.valid.float()).exp()[:, None, None, None, None]
    pose = batch.world_from_camera
    moved = torch.einsum("btij,bthwj->bthwi", pose[..., :3, :3], scale * said.points)
    world = moved + pose[..., :3, 3][:, :, None, None]
    pairs = (
        (heads.proj, said.confidence, length(scale * said.points - batch.points)),
        (heads.cross_proj, said.world_confidence, length(scale * said.world - world)),
    )
    shifts = []
    for head, confidence, error in pairs:
        shift = best_shift(confidence[batch.valid], (error / distance)[batch.valid])
        head.fc2.bias.view(4, -1)[3] += shift
        shifts.append(shift)
    return shifts
