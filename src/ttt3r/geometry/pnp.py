"""Camera poses, and focal lengths, from points in the world and the pixels that see them.

A network that gives a pointmap in the world's frame says which point each pixel sees, and thereby
where the camera is. Samples of three pixels propose poses (P3P, `geometry.p3p`), the one that most
pixels agree with is kept (RANSAC, Fischler and Bolles, 1981, with the cost of MSAC, Torr and
Zisserman, 2000), and least squares over those pixels refine it. Computed on the CPU, in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics, pixel_grid, project
from ttt3r.geometry.focal import focal_from_points
from ttt3r.geometry.p3p import camera_from_three_points
from ttt3r.geometry.rotation import matrix_from_quaternion

FEWEST_POINTS = 4  # three leave up to four poses
# Proposals are compared on this many pixels; more would not change which one is best.
SCORED_POINTS = 2048
SCORED_PROPOSALS = 50  # at once: what fits a processor's cache
REFINEMENTS = 3
STEPS = 10
TRIED_FOCALS = 100
# Shortest and longest focal length that is tried, over the longer side of the image.
FOCAL_RANGE = (0.5, 3.0)


@dataclass(frozen=True)
class PnpSolution:
    """Where a camera stands, and who says so.

    Attributes:
        world_from_camera: rigid pose [4, 4], float64.
        inliers: points that project to within the threshold of their pixels.
    """

    world_from_camera: Float[Tensor, "4 4"]
    inliers: Bool[Tensor, " n"]


def solve_pnp(
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    intrinsics: Float[Tensor, "3 3"],
    threshold: float = 5.0,
    iterations: int = 100,
    seed: int = 0,
) -> PnpSolution | None:
    """Find the pose from which most points project near their pixels.

    Args:
        points: in the world; those that are not finite are ignored.
        pixels: (u, v) of each point.
        intrinsics: pinhole matrix in pixels.
        threshold: distance in pixels up to which a point agrees with a pose.
        iterations: samples of three points that are tried.
        seed: of the draw of samples; equal seeds give equal poses.

    Returns:
        The pose, or None if fewer than four points agree on one.

    Raises:
        SettingError: if `threshold` or `iterations` is not positive.
    """
    _check_settings(threshold, iterations)
    points, pixels, intrinsics = (x.detach().cpu().double() for x in (points, pixels, intrinsics))
    finite = points.isfinite().all(-1) & pixels.isfinite().all(-1)
    kept = finite.nonzero().squeeze(-1)
    invertible = bool(intrinsics.isfinite().all()) and bool(torch.linalg.det(intrinsics) != 0)
    if len(kept) < FEWEST_POINTS or not invertible:
        return None
    kept_points, kept_pixels = points[kept], pixels[kept]
    pose = _propose(kept_points, kept_pixels, intrinsics, threshold, iterations, seed)
    agreeing = _distances(pose, kept_points, kept_pixels, intrinsics) < threshold
    for _ in range(REFINEMENTS):
        if int(agreeing.sum()) < FEWEST_POINTS:
            return None
        pose = refine_pose(pose, kept_points[agreeing], kept_pixels[agreeing], intrinsics)
        before = agreeing
        agreeing = _distances(pose, kept_points, kept_pixels, intrinsics) < threshold
        if torch.equal(agreeing, before):
            break
    if int(agreeing.sum()) < FEWEST_POINTS:
        return None
    inliers = torch.zeros_like(finite)
    inliers[kept] = agreeing
    return PnpSolution(se3.invert(pose), inliers)


def poses_from_world_points(
    world_points: Float[Tensor, "*batch height width 3"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    usable: Bool[Tensor, "*batch height width"] | None = None,
    threshold: float = 5.0,
    iterations: int = 100,
    seed: int = 0,
) -> Float[Tensor, "*batch 4 4"]:
    """Return ``world_from_camera`` of each view from its pointmap in the world's frame.

    Args:
        world_points: point that each pixel sees.
        intrinsics: pinhole matrices in pixels.
        usable: pixels that may take part; all of them if None.
        threshold: see `solve_pnp`.
        iterations: see `solve_pnp`.
        seed: see `solve_pnp`; the same for every view, so that views do not depend on each other.

    Returns:
        Poses with dtype and device of `world_points`; NaN for a view on whose pose no four points
        agree.

    Raises:
        SettingError: if `threshold` or `iterations` is not positive.
    """
    matrices = intrinsics.detach().cpu().reshape(-1, 3, 3)
    poses = torch.full((len(matrices), 4, 4), torch.nan, dtype=world_points.dtype)
    views = zip(_views(world_points, usable), matrices, strict=True)
    for index, ((points, pixels), matrix) in enumerate(views):
        found = solve_pnp(points, pixels, matrix, threshold, iterations, seed)
        if found is not None:
            poses[index] = found.world_from_camera.to(poses)
    poses = poses.reshape(*world_points.shape[:-3], 4, 4)
    return poses.to(world_points.device, non_blocking=True)


def candidate_focals(size: tuple[int, int]) -> Float[Tensor, " focals"]:
    """Return the focal lengths that `search_focals` tries for images of `size`, float64 pixels."""
    shortest, longest = (max(size) * factor for factor in FOCAL_RANGE)
    steps = torch.linspace(0.0, 1.0, TRIED_FOCALS, dtype=torch.float64)
    return shortest * (longest / shortest) ** steps


def search_focals(
    world_points: Float[Tensor, "*batch height width 3"],
    usable: Bool[Tensor, "*batch height width"] | None = None,
    threshold: float = 5.0,
    iterations: int = 10,
    seed: int = 0,
    prefer: Literal["inliers", "residuals"] = "inliers",
) -> Float[Tensor, "*batch"]:
    """Search the focal length of each view from its pointmap in the world's frame.

    For views of unknown and unequal cameras (Fast3R, arXiv 2501.13928): 100 focal lengths, in
    geometric progression from half the longer side of the image to three times that side, are
    tried with a pose each.

    Args:
        world_points: point that each pixel sees; at most 2048 of a view are looked at.
        usable: pixels that may take part; all of them if None.
        threshold: distance in pixels up to which a point agrees with a pose.
        iterations: samples of three points that are tried for each focal length.
        seed: of the draw of points and samples; the same for every view.
        prefer: "inliers" keeps the focal length under whose pose most points agree, as published.
            Where many have all points agree, the shortest is kept, which is too short: the more,
            the smaller the image. "residuals" also counts how well points agree (the cost of
            MSAC), which tells them apart.

    Returns:
        Focal lengths in pixels, NaN for a view where no four points agree on a pose. They are steps
        of 1.8 %; samples at random leave a larger uncertainty where points are noisy.

    Raises:
        SettingError: if `threshold` or `iterations` is not positive, or `prefer` is unknown.
    """
    _check_settings(threshold, iterations)
    if prefer not in ("inliers", "residuals"):
        raise SettingError(f"unknown preference {prefer!r}; choose inliers or residuals")
    candidates = candidate_focals((world_points.shape[-3], world_points.shape[-2]))
    matrices = default_intrinsics((world_points.shape[-3], world_points.shape[-2]), candidates)
    focals: list[float] = []
    for points, pixels in _views(world_points, usable):
        agreeing, costs = _try_cameras(points, pixels, matrices, threshold, iterations, seed)
        best = int(agreeing.argmax() if prefer == "inliers" else costs.argmin())
        enough = int(agreeing[best]) >= FEWEST_POINTS
        focals.append(float(candidates[best]) if enough else torch.nan)
    return world_points.new_tensor(focals).reshape(world_points.shape[:-3])


def focal_from_confident_points(
    points: Float[Tensor, "*batch height width 3"],
    confidence: Float[Tensor, "*batch height width"],
    quantile: float = 0.1,
) -> Float[Tensor, "*batch"]:
    """Estimate the focal length from all but the least confident points of a pointmap.

    Args:
        points: in the camera's own frame.
        confidence: of each point.
        quantile: share of the points, the least confident, that is left out.

    Returns:
        Focal lengths in pixels, see `focal_from_points`; NaN where no point is usable.
    """
    # View by view: torch.quantile takes at most 2^24 numbers at once.
    views = confidence.reshape(-1, confidence.shape[-2] * confidence.shape[-1])
    least = torch.stack([view.quantile(quantile) for view in views])
    usable = confidence >= least.reshape(*confidence.shape[:-2], 1, 1)
    return focal_from_points(points, iterations=100, usable=usable)


def refine_pose(
    camera_from_world: Float[Tensor, "4 4"],
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    intrinsics: Float[Tensor, "3 3"],
) -> Float[Tensor, "4 4"]:
    """Lower the sum of squared distances between projections and pixels (Levenberg-Marquardt).

    Args:
        camera_from_world: pose to start from.
        points: in the world, at least three.
        pixels: (u, v) of each point.
        intrinsics: pinhole matrix in pixels.

    Returns:
        A pose whose sum is at most that of the start.
    """
    pose, damping = camera_from_world, 1e-4
    residuals, jacobian = _linearise(pose, points, pixels, intrinsics)
    cost = residuals.square().sum()
    for _ in range(STEPS):
        normal = jacobian.mT @ jacobian
        damped = normal + damping * torch.diag(normal.diagonal())
        step, failed = torch.linalg.solve_ex(damped, -(jacobian.mT @ residuals))
        candidate = _move(pose, step)
        new_residuals, new_jacobian = _linearise(candidate, points, pixels, intrinsics)
        new_cost = new_residuals.square().sum()
        if bool(failed) or not new_cost < cost:
            damping *= 10.0
            continue
        gain = cost - new_cost
        pose, residuals, jacobian, cost = candidate, new_residuals, new_jacobian, new_cost
        damping *= 0.1
        if gain <= 1e-8 * cost:
            break
    return pose


def _check_settings(threshold: float, iterations: int) -> None:
    if threshold <= 0.0 or iterations < 1:
        raise SettingError(
            f"threshold ({threshold}) and iterations ({iterations}) must be positive"
        )


def _views(
    world_points: Float[Tensor, "*batch height width 3"],
    usable: Bool[Tensor, "*batch height width"] | None,
) -> Iterator[tuple[Float[Tensor, "n 3"], Float[Tensor, "n 2"]]]:
    """The points and pixels of each view that may take part, on the CPU; fetched together."""
    size = world_points.shape[-3], world_points.shape[-2]
    if usable is not None:
        world_points = world_points.masked_fill(~usable[..., None], torch.nan)
    maps = world_points.detach().cpu().reshape(-1, *size, 3)
    masks = maps.isfinite().all(-1)
    pixels = pixel_grid(size, like=maps)
    for points, mask in zip(maps, masks, strict=True):
        yield points[mask], pixels[mask]


def _try_cameras(
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    matrices: Float[Tensor, "cameras 3 3"],
    threshold: float,
    iterations: int,
    seed: int,
) -> tuple[Int[Tensor, " cameras"], Float[Tensor, " cameras"]]:
    """How many points agree with the best pose of each camera, and at what cost."""
    points, pixels = (x.detach().cpu().double() for x in (points, pixels))
    if len(points) < FEWEST_POINTS:
        return torch.zeros(len(matrices), dtype=torch.int64), torch.zeros(len(matrices))
    if len(points) > SCORED_POINTS:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(points), generator=generator)[:SCORED_POINTS]
        points, pixels = points[chosen], pixels[chosen]
    agreeing, costs = [], []
    for matrix in matrices:
        pose = _propose(points, pixels, matrix, threshold, iterations, seed)
        distances = _distances(pose, points, pixels, matrix)
        agreeing.append((distances < threshold).sum())
        costs.append(distances.clamp(max=threshold).square().sum())
    return torch.stack(agreeing), torch.stack(costs)


def _propose(
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    intrinsics: Float[Tensor, "3 3"],
    threshold: float,
    iterations: int,
    seed: int,
) -> Float[Tensor, "4 4"]:
    """The best pose of random samples of three points; a point that disagrees costs threshold²."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(len(points), (iterations, 3), generator=generator)
    homogeneous = torch.cat((pixels, torch.ones_like(pixels[:, :1])), dim=-1)
    rays = torch.linalg.solve(intrinsics, homogeneous[samples].mT).mT
    proposals = camera_from_three_points(points[samples], rays).flatten(0, 1)
    real = proposals.isfinite().all(-1).all(-1)
    proposals = proposals[real] if bool(real.any()) else proposals[:1]
    if len(points) > SCORED_POINTS:
        chosen = torch.randint(len(points), (SCORED_POINTS,), generator=generator)
        points, pixels = points[chosen], pixels[chosen]
    costs = [
        _distances(some, points, pixels, intrinsics).clamp(max=threshold).square().sum(-1)
        for some in proposals.split(SCORED_PROPOSALS)
    ]
    return proposals[int(torch.cat(costs).argmin())]


def _distances(
    poses: Float[Tensor, "*batch 4 4"],
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    intrinsics: Float[Tensor, "3 3"],
) -> Float[Tensor, "*batch n"]:
    """Distance in pixels between projections and pixels; infinite for points behind the camera."""
    # One product, and no narrow axis at the end: this is where the time goes.
    columns = torch.cat((points, torch.ones_like(points[:, :1])), dim=-1).mT
    x, y, z = (intrinsics @ poses[..., :3, :] @ columns).unbind(-2)
    distances = torch.hypot(x / z - pixels[:, 0], y / z - pixels[:, 1])
    return torch.where((z > 0.0) & distances.isfinite(), distances, torch.inf)


def _linearise(
    pose: Float[Tensor, "4 4"],
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    intrinsics: Float[Tensor, "3 3"],
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m 6"]]:
    """Residuals in pixels, and their derivatives by a turn and a shift in the camera's frame."""
    seen = se3.apply(pose, points)
    residuals = project(seen, intrinsics) - pixels
    x, y, inverse_z = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2], 1.0 / seen[:, 2]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    by_x = torch.stack((-x * y, one + x * x, -y, inverse_z, zero, -x * inverse_z), dim=-1)
    by_y = torch.stack((-one - y * y, x * y, x, zero, inverse_z, -y * inverse_z), dim=-1)
    jacobian = intrinsics[:2, :2] @ torch.stack((by_x, by_y), dim=-2)
    return residuals.flatten(), jacobian.flatten(0, 1)


def _move(pose: Float[Tensor, "4 4"], step: Float[Tensor, "6"]) -> Float[Tensor, "4 4"]:
    """Turn the camera's frame by step[:3], a rotation vector to first order, then shift it."""
    quaternion = torch.cat((torch.ones_like(step[:1]), 0.5 * step[:3]))
    change = se3.assemble(matrix_from_quaternion(quaternion), step[3:])
    return change @ pose
