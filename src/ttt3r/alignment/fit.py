"""The similarity between two sets of positions, some pairs of which are wrong."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import InputError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.rotation import matrix_from_quaternion

TRIPLES = 1000  # tried of more positions than can be tried in full
SMALL = 1e-3  # share of the whole extent below which a triple says nothing
ROUNDS = 20
# Of the squared length of a vector with three normal parts of variance 1: median, and 97.5 %.
MEDIAN_3, MOST_3 = 2.366, 9.348
EXACT = 1e-6  # share of the extent that rounding may take
STRAIGHT = 1e-3  # sideways extent of a line, as a share of its length
NARROW = 0.1  # and that of what may be a line with errors


@dataclass(frozen=True)
class Fit:
    """A similarity and how well it fits.

    Attributes:
        target_from_source: similarity, float64 [4, 4].
        residuals: distance of each pair after it, in the target's unit [n].
        used: which pairs it was computed from [n].
        straight: whether the positions used lie on a line, up to their errors, so that the turn
            about the line is not determined.
    """

    target_from_source: Float[Tensor, "4 4"]
    residuals: Float[Tensor, " n"]
    used: Bool[Tensor, " n"]
    straight: bool

    @property
    def scale(self) -> float:
        """What lengths are multiplied by."""
        return float(se3.similarity_scale(self.target_from_source))


def fit_similarity(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Fit:
    """Fit a similarity by least squares to those pairs that agree.

    Least median of squares (Rousseeuw, "Least median of squares regression", J. Am. Stat. Assoc.
    79, 1984): of similarities through three pairs each, the one with the least median residual is
    taken. For few pairs the median is the residual of rank n // 2 + 2, because three are exact by
    themselves; so all pairs but n // 2 + 2 may be wrong. The spread of the errors follows from it,
    with the factor 1 + 5/(n − 3) (Rousseeuw and Leroy, "Robust regression and outlier detection",
    1987, chapters 3 and 5). Pairs within the 97.5 % that normal errors of this spread would reach
    are fitted by `align_points` (Umeyama), again until they stay the same. Triples are drawn with a
    fixed seed: the same positions give the same similarity.

    Args:
        source: positions [n, 3], float64.
        target: those they are to come to, [n, 3].

    Raises:
        InputError: if there are fewer than three pairs, or one of the sets does not move.
    """
    if len(source) < 3:
        raise InputError(
            f"{len(source)} positions are known; at least three are needed, and not on one line"
        )
    extents = [float((p - p.mean(0)).square().sum(1).mean().sqrt()) for p in (source, target)]
    for points, extent, whose in zip(
        (source, target), extents, ("the run", "the file"), strict=True
    ):
        if not extent > EXACT * float(points.abs().max()):
            raise InputError(
                f"the positions of {whose} are all the same, so nothing can be aligned"
            )
    triples = _triples(source, target, extents)
    tried = align_points(source[triples], target[triples], None, with_scale=True)
    squares = (se3.apply(tried, source.expand(len(tried), -1, -1)) - target).square().sum(-1)
    best = tried[int(_median(squares).argmin())]
    used = torch.zeros(len(source), dtype=torch.bool)
    for _ in range(ROUNDS):
        residuals = (se3.apply(best, source) - target).norm(dim=1)
        agree = residuals <= _limit(residuals, extents[1])
        if int(agree.sum()) < 3 or torch.equal(agree, used):
            break
        used = agree
        best = align_points(source[used], target[used], None, with_scale=True)
    residuals = (se3.apply(best, source) - target).norm(dim=1)
    return Fit(best, residuals, used, _is_straight(best, source[used], target[used]))


def _triples(source: Tensor, target: Tensor, extents: list[float]) -> Tensor:
    """Numbers of three pairs each; those too close together are left out."""
    count = len(source)
    if math.comb(count, 3) <= TRIPLES:
        numbers = np.array(list(combinations(range(count), 3)))
    else:
        random = np.random.default_rng(0)
        numbers = np.stack([random.choice(count, 3, replace=False) for _ in range(TRIPLES)])
    triples = torch.from_numpy(numbers)
    wide = torch.ones(len(triples), dtype=torch.bool)
    for points, extent in zip((source, target), extents, strict=True):
        corners = points[triples]
        spread = (corners - corners.mean(1, keepdim=True)).square().sum((1, 2)).div(3).sqrt()
        wide &= spread > SMALL * extent
    if not bool(wide.any()):
        raise InputError("too few positions differ from each other, so nothing can be aligned")
    return triples[wide]


def _median(values: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """The value of rank n // 2 + 2; see `fit_similarity`."""
    count = values.shape[-1]
    return values.kthvalue(min(count, count // 2 + 2), dim=-1).values


def _limit(residuals: Tensor, extent: float) -> float:
    """The largest residual of a pair that agrees."""
    few = 1 + 5 / max(len(residuals) - 3, 1)
    spread = few * float(_median(residuals)) / math.sqrt(MEDIAN_3)
    return max(spread * math.sqrt(MOST_3), EXACT * extent)


def _is_straight(similarity: Tensor, source: Tensor, target: Tensor) -> bool:
    """Whether one of the sets has no second extent, or a small one that is lost in the errors."""
    errors = se3.apply(similarity, source) - target
    noise = float(errors.square().mean().sqrt())  # along one axis
    shares: list[float] = []
    for points in (source, target):
        along, sideways, _ = torch.linalg.svdvals(points - points.mean(0)).tolist()
        shares.append(sideways / along)
    sideways = min(shares) * float((target - target.mean(0)).square().sum(1).mean().sqrt())
    return min(shares) < STRAIGHT or (min(shares) < NARROW and sideways < 1.5 * noise)


def upright_along_line(
    fit: Fit,
    source: Float[Tensor, "n 3"],
    target: Float[Tensor, "n 3"],
    ups: Float[Tensor, "n 3"],
    up: Float[Tensor, "3"],
) -> Fit:
    """Choose the turn about a straight line so that cameras stand upright, in the mean.

    Args:
        fit: of positions on a line.
        source: as `fit_similarity` took them.
        target: likewise.
        ups: unit vectors that point up in each camera's image, in the source's axes [n, 3].
        up: unit vector that points up in the target's axes [3].

    Raises:
        InputError: if cameras, or the line, say nothing of it: the line is vertical, or the
            cameras' up points along it.
    """
    similarity, scale = fit.target_from_source, fit.scale
    turn = similarity[:3, :3] / scale
    centred = source[fit.used] - source[fit.used].mean(0)
    line = turn @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    seen = torch.nn.functional.normalize((ups[fit.used] @ turn.T).mean(0), dim=0)
    flat_seen, flat_up = (v - (v @ line) * line for v in (seen, up))
    if min(float(flat_seen.norm()), float(flat_up.norm())) < 0.3:
        raise InputError(
            "the positions lie on a straight line, so the turn about it is not determined, and the "
            "cameras do not say it either. Take images along a curve; or set the length alone: "
            f"ttt3r scale RUN {scale:.6g}"
        )
    angle = math.atan2(
        float(line @ torch.linalg.cross(flat_seen, flat_up)), float(flat_seen @ flat_up)
    )
    half = math.sin(angle / 2)
    numbers = [math.cos(angle / 2), *(half * line).tolist()]
    roll = matrix_from_quaternion(torch.tensor(numbers, dtype=torch.float64))
    rolled = scale * roll @ turn
    middle = target[fit.used].mean(0) - rolled @ source[fit.used].mean(0)
    similarity = se3.assemble(rolled, middle)
    residuals = (se3.apply(similarity, source) - target).norm(dim=1)
    return Fit(similarity, residuals, fit.used, straight=True)
