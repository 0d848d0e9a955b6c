"""How a new segment is placed in the world of the one before it.

Both segments have seen the frames where they meet: the old one as its last, the new one as its
first. It is one frame, or a few where the reset says so.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r import values
from ttt3r.errors import InputError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points
from ttt3r.geometry.robust import align_robustly

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A shared frame as one segment saw it, in that segment's own units.

    Attributes:
        segment_from_camera: rigid pose of the frame in the segment, float64.
        points: in the camera's frame; None if the stitching did not ask for them.
        confidence: of `points`.
    """

    segment_from_camera: Float[Tensor, "4 4"]
    points: Float[Tensor, "height width 3"] | None
    confidence: Float[Tensor, "height width"] | None


class Join(NamedTuple):
    """Where a new segment belongs.

    Attributes:
        world_from_segment: similarity that places it, float64.
        scale_error: standard error of the natural logarithm of its scale against the old segment's;
            None if it is not known.
    """

    world_from_segment: Float[Tensor, "4 4"]
    scale_error: float | None = None


@runtime_checkable
class Stitching(Protocol):
    """Joins segments. Implementations are frozen dataclasses."""

    name: ClassVar[str]
    outputs: ClassVar[frozenset[str]]

    def connect(
        self,
        world_from_segment: Float[Tensor, "4 4"],
        last: Sequence[Seen],
        first: Sequence[Seen],
    ) -> Join:
        """Place the new segment.

        Args:
            world_from_segment: similarity that places the old segment.
            last: the shared frames in the old segment, at least one, oldest first.
            first: the same frames in the new segment.
        """
        ...


@dataclass(frozen=True)
class PoseChain(values.Value):
    """The new segment starts where the last camera stood, with the scale of the old one.

    As published with TTT3R: the pose of the shared frame in the new segment counts as the identity.
    Where several frames are shared, each of them says where the new segment lies; the mean counts:
    of rotations, the nearest to their sum (Hartley et al., "Rotation averaging", IJCV 2013,
    section 5.3, the chordal L2 mean), of positions, the plain one.
    """

    name: ClassVar[str] = "pose"
    outputs: ClassVar[frozenset[str]] = frozenset({"pose"})

    def connect(
        self,
        world_from_segment: Float[Tensor, "4 4"],
        last: Sequence[Seen],
        first: Sequence[Seen],
    ) -> Join:
        """Chain the poses onto the old placement.

        Where no shared frame has a pose, the new segment begins where the old one did.
        """
        if len(last) == 1:
            said = [last[0].segment_from_camera]
        else:
            said = [
                old.segment_from_camera @ se3.invert(new.segment_from_camera)
                for old, new in zip(last, first, strict=True)
            ]
        said = [pose for pose in said if bool(pose.isfinite().all())]
        if not said:
            logger.warning(
                "the frame where two segments meet has no pose: the new segment is placed where "
                "the old one began, so what follows does not fit what came before"
            )
            return Join(world_from_segment)
        return Join(world_from_segment @ (said[0] if len(said) == 1 else _mean_pose(said)))


def _mean_pose(poses: Sequence[Float[Tensor, "4 4"]]) -> Float[Tensor, "4 4"]:
    mean = torch.stack(list(poses)).mean(0)
    left, _, right = torch.linalg.svd(mean[:3, :3])
    turned = torch.linalg.det(left @ right)
    signs = torch.stack((torch.ones_like(turned), torch.ones_like(turned), turned.sign()))
    return se3.assemble(left * signs @ right, mean[:3, 3])


@dataclass(frozen=True)
class ByPoints(values.Value):
    """Joins segments by the points of the frames that they share; a base of stitchings.

    Args:
        stride: use every `stride`-th pixel in both directions.

    Raises:
        SettingError: if `stride` is not a whole number of at least 1.
    """

    stride: int = 4

    outputs: ClassVar[frozenset[str]] = frozenset({"pose", "points"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride < 1:
            raise SettingError(f"the stride must be at least 1 pixel, not {self.stride}")

    def connect(
        self,
        world_from_segment: Float[Tensor, "4 4"],
        last: Sequence[Seen],
        first: Sequence[Seen],
    ) -> Join:
        """Fit the similarity; fall back to the pose chain where the points do not allow one."""
        try:
            old_from_new, error = self.fit(point_pairs(last, first, self.stride))
        except InputError as problem:
            logger.warning("segments are joined by pose alone, without scale: %s", problem)
            return PoseChain().connect(world_from_segment, last, first)
        return Join(world_from_segment @ old_from_new.to(world_from_segment), error)

    def fit(self, pairs: "Pairs") -> tuple[Float[Tensor, "4 4"], float | None]:
        """Return the similarity from the new to the old segment, and the error of its log scale.

        Raises:
            InputError: if the points do not determine one.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Similarity(ByPoints):
    """The similarity that moves the new segment's points of the shared frames onto the old ones.

    Carries scale from segment to segment. Each pixel counts with log c · log c', the product of the
    logarithms of its two confidences, as in the weighted Procrustes step of CUT3R's evaluation.
    For `stride` see `ByPoints`.
    """

    name: ClassVar[str] = "similarity"

    def fit(self, pairs: "Pairs") -> tuple[Float[Tensor, "4 4"], float | None]:
        """Fit in one step; how sure the scale is remains unknown."""
        return align_points(*pairs[:3], with_scale=True), None


@dataclass(frozen=True)
class Robust(ByPoints):
    """As `similarity`, but points that do not fit lose their weight; tells how sure the scale is.

    See `geometry.robust.align_robustly`; for `stride` see `ByPoints`.
    """

    name: ClassVar[str] = "robust"

    def fit(self, pairs: "Pairs") -> tuple[Float[Tensor, "4 4"], float | None]:
        """Fit with weights that follow the residuals."""
        fit = align_robustly(*pairs)
        logger.info(
            "segments joined with a scale of %.4f ± %.2g %%; %.0f %% of the weight fits",
            float(se3.similarity_scale(fit.target_from_source)),
            100 * fit.scale_error,
            100 * fit.kept,
        )
        error = fit.scale_error if math.isfinite(fit.scale_error) else None
        return fit.target_from_source, error


TILES = 4  # along each side of an image; points of one tile are not independent of each other


class Pairs(NamedTuple):
    """Points that correspond, those of all shared frames in one list.

    Attributes:
        source: in the new segment.
        target: in the old one.
        weights: above 0.
        tiles: number of the image tile that each point is from; no two frames share one.
    """

    source: Float[Tensor, "points 3"]
    target: Float[Tensor, "points 3"]
    weights: Float[Tensor, " points"]
    tiles: Int[Tensor, " points"]


def point_pairs(last: Sequence[Seen], first: Sequence[Seen], stride: int) -> Pairs:
    """Gather usable points of frames that two segments saw, weighted by log c · log c'."""
    gathered = []
    for number, (old, new) in enumerate(zip(last, first, strict=True)):
        target, target_confidence = _points_in_segment(old, stride)
        source, source_confidence = _points_in_segment(new, stride)
        weights = source_confidence.log() * target_confidence.log()
        usable = (
            source.isfinite().all(1) & target.isfinite().all(1) & weights.isfinite() & (weights > 0)
        )
        assert new.points is not None
        tiles = number * TILES**2 + tiles_of(new.points[::stride, ::stride])
        gathered.append([item[usable] for item in (source, target, weights, tiles)])
    return Pairs(*(torch.cat(items) for items in zip(*gathered, strict=True)))


def _points_in_segment(seen: Seen, stride: int) -> tuple[Tensor, Tensor]:
    assert seen.points is not None and seen.confidence is not None
    points = seen.points[::stride, ::stride].double().reshape(-1, 3)
    confidence = seen.confidence[::stride, ::stride].double().flatten()
    return se3.apply(seen.segment_from_camera.to(points), points), confidence


def tiles_of(points: Float[Tensor, "height width 3"]) -> Int[Tensor, " pixels"]:
    """Return the number of the tile that each pixel is in, row by row."""
    rows, columns = (
        torch.arange(side, device=points.device) * TILES // side for side in points.shape[:2]
    )
    return (rows[:, None] * TILES + columns).flatten()


REGISTRY = values.Registry("stitching", [PoseChain, Similarity, Robust])


def parse(stitching: Any = None, metric: bool = True) -> Stitching:
    """Return a stitching from its text ("pose", "similarity", "robust") or as it is.

    Args:
        stitching: None stands for "pose", as published with TTT3R, where lengths are metric, and
            for "similarity" where each segment has a unit of its own.
        metric: whether the network's lengths are metric.

    Raises:
        SettingError: if it is not a stitching.
    """
    if stitching is None:
        stitching = PoseChain() if metric else Similarity()
    return REGISTRY.parse(stitching)
