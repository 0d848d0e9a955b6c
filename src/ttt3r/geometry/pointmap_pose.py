"""A camera's pose from two pointmaps of its view: one in its own frame, one in the world's."""

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.robust import reweighted

ROUNDS = 5


def pose_from_points(
    points: Float[Tensor, "n 3"],
    world_points: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    rotation: Float[Tensor, "3 3"] | None = None,
) -> Float[Tensor, "4 4"]:
    """Return the rigid motion that takes a view's own points to its points in the world.

    DUSt3R (arXiv 2312.14132, section 3.3) finds relative poses in this way: the weighted least
    squares of Kabsch, "A solution for the best rotation to relate two sets of vectors", Acta
    Cryst. A 1976, which is that of Umeyama (see `align_points`) without a scale. Where the rotation
    is given, the best shift is the weighted mean of ``world_points − rotation · points``. Points
    that do not fit lose weight in a few rounds of Huber's weights, see `robust.reweighted`.

    Args:
        points: in the frame of the view's camera.
        world_points: the same points in the world, in the same unit.
        weights: positive weights.
        rotation: ``world_from_camera``; None finds it too.

    Returns:
        ``world_from_camera``, float64.

    Raises:
        InputError: if the points determine no pose: see `align_points`.
    """
    source, target, weights = (item.to(torch.float64) for item in (points, world_points, weights))

    def rigid(some: Float[Tensor, " n"]) -> Float[Tensor, "4 4"]:
        if rotation is None:
            return align_points(source, target, some, with_scale=False)
        left = target - source @ rotation.to(source).mT
        return se3.assemble(rotation.to(source), (some[:, None] * left).sum(0) / some.sum())

    return reweighted(rigid, source, target, weights, ROUNDS)[0]
