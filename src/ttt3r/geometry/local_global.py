"""From the pointmap of a view in its own frame to the one in the world's.

Networks with one head for each predict the two in different units, and the former with less error
(Fast3R, arXiv 2501.13928). The similarity between them places the former in the world.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points


def world_from_local(
    points: Float[Tensor, "*batch height width 3"],
    world_points: Float[Tensor, "*batch height width 3"],
    world_confidence: Float[Tensor, "*batch height width"],
    percentile: float = 85.0,
    valid: Bool[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, "*batch 4 4"]:
    """Return the similarity that carries a view's own points to its points in the world.

    Least squares over the pixels of highest confidence, all with the same weight.

    Args:
        points: in the frame of the view's own camera, in any unit.
        world_points: of the same pixels, in the world.
        world_confidence: of `world_points`.
        percentile: pixels below this percentile of their view's confidence are left out. The
            published evaluation takes 85, the published default is 0.
        valid: pixels that may take part; all of them if None. If fewer than three are left of
            these after the percentile, all valid ones take part.

    Returns:
        Similarities [*batch, 4, 4] with the dtype of `points`.

    Raises:
        SettingError: if `percentile` is not between 0 and 100.
        InputError: if a view has no three pixels to align; see `align_points`.
    """
    if not 0.0 <= percentile <= 100.0:
        raise SettingError(f"percentile must lie between 0 and 100, not {percentile}")
    confidence = world_confidence.flatten(-2)
    usable = points.isfinite().all(-1) & world_points.isfinite().all(-1)
    if valid is not None:
        usable = usable & valid
    usable = usable.flatten(-2)
    # View by view: torch.quantile takes at most 2^24 numbers at once.
    rows = confidence.reshape(-1, confidence.shape[-1])
    least = torch.stack([row.quantile(percentile / 100.0) for row in rows])
    confident = usable & (confidence >= least.reshape(*confidence.shape[:-1], 1))
    enough = confident.sum(-1, keepdim=True) >= 3
    weights = torch.where(enough, confident, usable).to(points.dtype)
    return align_points(points.flatten(-3, -2), world_points.flatten(-3, -2), weights, True)


def pose_from_similarity(similarity: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Return the rigid part of ``world_from_local``: the camera's pose, in the world's unit.

    Points in the camera's frame must be multiplied by `se3.similarity_scale` to go with it.
    """
    scale = se3.similarity_scale(similarity)[..., None, None]
    return se3.assemble(similarity[..., :3, :3] / scale, similarity[..., :3, 3])
