"""The motion between two views with known depth, found from their pixels directly.

Steinbrücker, Sturm and Cremers, "Real-time visual odometry from dense RGB-D images", ICCV
workshops 2011, and Kerl, Sturm and Cremers, "Robust odometry estimation for RGB-D cameras", ICRA
2013: a pixel of the reference, with its depth, is moved into the other view; brightness and depth
there should be what they are in the reference. Here depth is compared by its logarithm, and the
other view may have another unit of length, gain and bias of brightness, which are found too.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from ttt3r.geometry import se3, sim3
from ttt3r.geometry.camera import unproject
from ttt3r.geometry.rotation import angle

LEVELS, ITERATIONS = 3, 8
MOST_PIXELS = 4096  # of the reference that are looked at on a level, evenly spread
SETTLED = 1e-5  # step, in radians and shares of the median depth, after which a level ends
DAMPING = 1e-4  # share of the diagonal that is added to the normal equations (Marquardt)
HUBER, SPREAD = 1.345, 1.4826  # see `geometry.robust`
FLOORS = 0.004, 0.004  # least spread of brightness (in [0, 1]) and of the logarithm of depth
# A motion counts where the mean robust residual falls by this share, on pixels that both the
# initial and the final motion see; where these are many; where it moves little, in radians and in
# shares of the median depth; and where both views then agree in brightness and in depth.
LEAST_FALL, LEAST_PIXELS, LEAST_OVERLAP = 0.03, 200, 0.25
LARGEST_TURN, LARGEST_SHIFT = 0.15, 0.15
LEAST_CORRELATION, LARGEST_DEPTH_RESIDUAL = 0.5, 0.15
POSE, NUISANCE = 6, 3  # parameters: shift and turn; log scale, gain and bias


class View(NamedTuple):
    """What a camera saw.

    Attributes:
        grey: brightness in [0, 1].
        depth: along the optical axis; not finite or not above 0 where unknown.
        intrinsics: pinhole matrix in pixels.
    """

    grey: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    intrinsics: Float[Tensor, "3 3"]


class Aligned(NamedTuple):
    """What came of it.

    Attributes:
        reference_from_frame: rigid, in the reference's unit, float64; the initial one if not
            `accepted`.
        accepted: whether the initial motion was improved.
        before, after: mean robust residual of the initial and of the found motion, on the same
            pixels; NaN if too few are seen.
        overlap: share of the reference's pixels that the frame sees.
        correlation: of both views' brightness after the motion; NaN if it is undefined.
        log_scale: logarithm of what the frame's depth is to be multiplied by.
    """

    reference_from_frame: Float[Tensor, "4 4"]
    accepted: bool
    before: float
    after: float
    overlap: float
    correlation: float
    log_scale: float


class _Guess(NamedTuple):
    """Motion frame_from_reference, and log scale, gain less 1 and bias."""

    motion: Float[Tensor, "4 4"]
    rest: Float[Tensor, "3"]

    def moved(self, step: Float[Tensor, "9"]) -> "_Guess":
        twist = torch.cat([step[:POSE], step.new_zeros(1)])
        return _Guess(sim3.exp(twist) @ self.motion, self.rest + step[POSE:])


class _Residuals(NamedTuple):
    """Of brightness and of log depth, in rows [2, pixels], and their derivatives by a step."""

    values: Float[Tensor, "2 pixels"]
    seen: Bool[Tensor, "2 pixels"]
    jacobian: Float[Tensor, "2 pixels 9"]
    grey: Float[Tensor, " pixels"]


class _Level:
    """Two views at one resolution; the unit of length is the reference's median depth."""

    def __init__(self, reference: View, frame: View) -> None:
        known = reference.depth.isfinite() & (reference.depth > 0)
        points = unproject(reference.depth, reference.intrinsics)
        every = max(1, round(int(known.sum()) / MOST_PIXELS))
        self.points, self.grey = points[known][::every], reference.grey[known][::every]
        log_depth = torch.where(frame.depth > 0, frame.depth, torch.nan).log()
        maps = [frame.grey, log_depth]
        self.maps = torch.stack([*maps, *(slope for one in maps for slope in _slopes(one))])
        self.intrinsics = frame.intrinsics

    def residuals(self, guess: _Guess) -> _Residuals:
        """Residuals at a guess."""
        motion, (log_scale, gain, bias) = guess.motion.to(self.points), guess.rest.tolist()
        points = se3.apply(motion, self.points)
        (fx, skew, cx), (_, fy, cy), _ = self.intrinsics.tolist()
        x, y, z = points.unbind(1)
        u, v = (fx * x + skew * y) / z + cx, fy * y / z + cy
        height, width = self.maps.shape[1:]
        inside = (z > 0) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
        grid = torch.stack([2 * u / max(width - 1, 1) - 1, 2 * v / max(height - 1, 1) - 1], 1)
        grid = torch.where(inside[:, None], grid, 0.0)[None, None]
        found = functional.grid_sample(self.maps[None], grid, align_corners=True)[0, :, 0]
        grey, log_depth, grey_u, grey_v, depth_u, depth_v = found
        zero, inverse = torch.zeros_like(z), 1 / z
        by_u = torch.stack([fx * inverse, skew * inverse, -(u - cx) * inverse], 1)
        by_v = torch.stack([zero, fy * inverse, -(v - cy) * inverse], 1)
        slopes = (1 + gain) * (grey_u[:, None] * by_u + grey_v[:, None] * by_v)
        deeper = torch.stack([zero, zero, inverse], 1)
        depth_slopes = depth_u[:, None] * by_u + depth_v[:, None] * by_v - deeper
        rest = torch.stack([zero, grey, zero + 1], 1), torch.stack([zero + 1, zero, zero], 1)
        rows = [
            torch.cat([slope, torch.linalg.cross(points, slope), more], 1)
            for slope, more in zip((slopes, depth_slopes), rest, strict=True)
        ]
        values = torch.stack(
            [(1 + gain) * grey + bias - self.grey, log_depth + log_scale - z.log()]
        )
        jacobian = torch.stack(rows)
        seen = inside & values.isfinite() & jacobian.isfinite().all(2)
        return _Residuals(values, seen, jacobian, grey)


def align(reference: View, frame: View, initial: Float[Tensor, "4 4"]) -> Aligned:
    """Refine the motion between two views, where their pixels say so without doubt.

    Gauss and Newton's method from coarse to fine, reweighted with Huber's weights. The spreads of
    the residuals are found anew on each level.

    Args:
        reference: a view; its unit of length counts.
        frame: another view; of any size.
        initial: rigid ``reference_from_frame`` to begin with.
    """
    initial = initial.double().cpu()
    known = reference.depth[reference.depth.isfinite() & (reference.depth > 0)]
    if len(known) < LEAST_PIXELS or not bool(initial.isfinite().all()):
        return _kept(initial)
    unit = float(known.median())
    levels = _pyramid(reference, frame, unit)
    start = _Guess(se3.invert(_scaled(initial, 1 / unit)), torch.zeros(NUISANCE).double())
    with torch.no_grad():
        start = _descend(levels[0], start, pose=False)
        guess = start
        for level in reversed(levels):
            guess = _descend(level, guess, pose=True)
        return _judged(levels[0], start, guess, initial, unit)


def _kept(initial: Tensor, overlap: float = 0.0) -> Aligned:
    nan = float("nan")
    return Aligned(initial, False, nan, nan, overlap, nan, 0.0)


def _judged(level: _Level, start: _Guess, end: _Guess, initial: Tensor, unit: float) -> Aligned:
    """Compare both motions on the finest level, and take the better one if it can be trusted."""
    first, last = level.residuals(start), level.residuals(end)
    both = first.seen & last.seen
    overlap = float(first.seen[0].float().mean())
    if int(both.all(0).sum()) < LEAST_PIXELS:
        return _kept(initial, overlap)
    spreads = _spreads(first.values, both)
    before, after = (_cost(each.values, both, spreads) for each in (first, last))
    pixels = both.all(0)
    pair = torch.stack([level.grey[pixels], last.grey[pixels]])
    correlation = float(torch.corrcoef(pair.double())[0, 1])
    depth_left = float(last.values[1][both[1]].abs().median())
    change = end.motion @ se3.invert(start.motion)
    accepted = (
        after < (1 - LEAST_FALL) * before
        and float(pixels.float().mean()) >= LEAST_OVERLAP
        and float(angle(change[:3, :3])) <= LARGEST_TURN
        and float(change[:3, 3].norm()) <= LARGEST_SHIFT
        and correlation >= LEAST_CORRELATION
        and depth_left <= LARGEST_DEPTH_RESIDUAL
    )
    found = _scaled(se3.invert(end.motion), unit) if accepted else initial
    scale = float((end if accepted else start).rest[0])
    return Aligned(found, accepted, before, after, overlap, correlation, scale)


def _descend(level: _Level, guess: _Guess, *, pose: bool) -> _Guess:
    """Take steps while the mean robust residual falls; without `pose`, the motion stays."""
    free = torch.tensor([pose] * POSE + [True] * NUISANCE)
    best, least, spreads = guess, float("inf"), None
    for _ in range(ITERATIONS):
        found = level.residuals(guess)
        if int(found.seen.all(0).sum()) < LEAST_PIXELS // 4:
            break
        spreads = _spreads(found.values, found.seen) if spreads is None else spreads
        cost = _cost(found.values, found.seen, spreads)
        if cost >= least:
            break
        best, least = guess, cost
        step = torch.zeros(POSE + NUISANCE, dtype=torch.float64)
        step[free] = _step(found, spreads, free)
        if not bool(step.isfinite().all()):
            break
        guess = guess.moved(step)
        if float(step.abs().max()) < SETTLED:
            break
    return best


def _step(found: _Residuals, spreads: list[float], free: Bool[Tensor, "9"]) -> Tensor:
    """Solve the damped normal equations of the reweighted residuals."""
    normal, right = torch.zeros(2)
    for values, seen, rows, spread in zip(*found[:3], spreads, strict=True):
        residual, jacobian = values[seen] / spread, rows[seen][:, free] / spread
        weighted = jacobian * (HUBER / residual.abs().clamp(min=HUBER))[:, None]
        normal = normal + (weighted.mT @ jacobian).double().cpu()
        right = right + (weighted.mT @ residual).double().cpu()
    diagonal = normal.diagonal()
    damping = DAMPING * (diagonal + 1e-3 * diagonal.mean())
    return torch.linalg.solve(normal + torch.diag(damping), -right)


def _spreads(values: Float[Tensor, "2 pixels"], seen: Bool[Tensor, "2 pixels"]) -> list[float]:
    """Standard deviations of brightness and log depth, by their median absolute values."""
    return [
        max(SPREAD * float(one[some].abs().median()), floor) if bool(some.any()) else floor
        for one, some, floor in zip(values, seen, FLOORS, strict=True)
    ]


def _cost(values: Tensor, seen: Tensor, spreads: list[float]) -> float:
    """Mean of Huber's function of both residuals, in units of their spreads."""
    total = 0.0
    for one, some, spread in zip(values, seen, spreads, strict=True):
        size = (one[some] / spread).abs()
        rho = torch.where(size <= HUBER, size.square() / 2, HUBER * (size - HUBER / 2))
        total += float(rho.mean()) if len(rho) else 0.0
    return total


def _pyramid(reference: View, frame: View, unit: float) -> list[_Level]:
    """Levels from fine to coarse; a side is halved while it keeps 16 pixels."""
    views, levels = [reference, frame], []
    views = [view._replace(depth=view.depth / unit) for view in views]
    for _ in range(LEVELS):
        levels.append(_Level(*views))
        if min(min(view.grey.shape) for view in views) < 32:
            break
        views = [_halved(view) for view in views]
    return levels


def _halved(view: View) -> View:
    """Half the resolution; depth is the mean of what is known."""
    known = view.depth.isfinite() & (view.depth > 0)
    maps = torch.stack([view.grey, torch.where(known, view.depth, 0.0), known.to(view.grey)])
    grey, depth, share = functional.avg_pool2d(maps[None], 2)[0]
    intrinsics = view.intrinsics / 2
    intrinsics[:2, 2] -= 0.25  # (c + ½) / 2 − ½: pixel centres are at integers
    intrinsics[2, 2] = 1.0
    return View(grey, depth / share, intrinsics)


def _slopes(image: Float[Tensor, "height width"]) -> tuple[Tensor, Tensor]:
    """Central differences along rows and columns; one-sided at the edges."""
    down, right = torch.gradient(image)
    return right, down


def _scaled(pose: Float[Tensor, "4 4"], factor: float) -> Float[Tensor, "4 4"]:
    """The same rigid motion in another unit of length."""
    return se3.assemble(pose[:3, :3], factor * pose[:3, 3])
