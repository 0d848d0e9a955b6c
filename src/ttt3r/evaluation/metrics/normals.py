"""Surface normals of point clouds."""

import numpy as np
from jaxtyping import Float, Float64

from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.neighbours import Neighbours, searched, spatial_order

SMALLEST_PATCH = 3  # points that span a plane
BLOCK = 2**16  # points whose patches are in memory at once: about 100 MB for 30 neighbours


def estimate_normals(
    points: Float[np.ndarray, "n 3"] | Neighbours, neighbours: int = 30
) -> Float64[np.ndarray, "n 3"]:
    """Return the direction in which the patch around each point extends least.

    Hoppe, DeRose, Duchamp, McDonald and Stuetzle, "Surface reconstruction from unorganized
    points", SIGGRAPH 1992: the eigenvector of the patch's covariance with the
    smallest eigenvalue. Where that eigenvalue is not single, any such direction is returned.

    Args:
        points: [n, 3] with at least 3 points, or a search structure over them.
        neighbours: size of a patch, the point itself included; all points if there are fewer.

    Returns:
        Unit vectors [n, 3] of unspecified sign.

    Raises:
        InputError: if there are fewer than 3 points, or they are not finite.
        SettingError: if a patch has fewer than 3 points.
    """
    if neighbours < SMALLEST_PATCH:
        raise SettingError(f"normals from {neighbours} neighbours; a plane needs at least 3")
    search = searched(points)
    if len(search) < SMALLEST_PATCH:
        raise InputError(f"a cloud of {len(search)} points has no normals; give at least 3")
    size = min(neighbours, len(search))
    normals = np.empty_like(search.points)
    order = spatial_order(search.points)  # so that the patches of a block overlap in memory
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        patches = search.points[search.k_nearest(search.points[block], size)]
        patches -= patches.mean(1, keepdims=True)
        _, axes = np.linalg.eigh(patches.swapaxes(-1, -2) @ patches)  # eigenvalues ascend
        normals[block] = axes[:, :, 0]
    return normals
