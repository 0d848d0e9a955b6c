"""How a new segment is placed in the world of the one before it.

Both segments have seen the frame where they meet: the old one as its last, the new one as its
first.
"""

import logging
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import InputError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points

logger = logging.getLogger(__name__)


class Seen(NamedTuple):
    """The shared frame as one segment saw it, in that segment's own units.

    Attributes:
        segment_from_camera: rigid pose of the frame in the segment, float64.
        points: in the camera's frame; None if the stitching did not ask for them.
        confidence: of `points`.
    """

    segment_from_camera: Float[Tensor, "4 4"]
    points: Float[Tensor, "height width 3"] | None
    confidence: Float[Tensor, "height width"] | None


@runtime_checkable
class Stitching(Protocol):
    """Joins segments. Implementations are frozen dataclasses."""

    name: ClassVar[str]
    outputs: ClassVar[frozenset[str]]

    def connect(
        self, world_from_segment: Float[Tensor, "4 4"], last: Seen, first: Seen
    ) -> Float[Tensor, "4 4"]:
        """Place the new segment.

        Args:
            world_from_segment: similarity that places the old segment.
            last: the shared frame in the old segment.
            first: the same frame in the new segment.

        Returns:
            The similarity that places the new segment.
        """
        ...


@dataclass(frozen=True)
class PoseChain(values.Value):
    """The new segment starts where the last camera stood, with the scale of the old one.

    As published with TTT3R: the pose of the shared frame in the new segment counts as the identity.
    """

    name: ClassVar[str] = "pose"
    outputs: ClassVar[frozenset[str]] = frozenset({"pose"})

    def connect(
        self, world_from_segment: Float[Tensor, "4 4"], last: Seen, first: Seen
    ) -> Float[Tensor, "4 4"]:
        """Chain the last pose onto the old placement.

        Where the shared frame has no pose, the new segment begins where the old one did.
        """
        if not bool(last.segment_from_camera.isfinite().all()):
            logger.warning(
                "the frame where two segments meet has no pose: the new segment is placed where "
                "the old one began, so what follows does not fit what came before"
            )
            return world_from_segment
        return world_from_segment @ last.segment_from_camera


@dataclass(frozen=True)
class Similarity(values.Value):
    """The similarity that moves the new segment's points of the shared frame onto the old ones.

    Carries scale from segment to segment. Each pixel counts with log c · log c', the product of the
    logarithms of its two confidences, as in the weighted Procrustes step of CUT3R's evaluation.

    Args:
        stride: use every `stride`-th pixel in both directions.

    Raises:
        SettingError: if `stride` is not a whole number of at least 1.
    """

    stride: int = 4

    name: ClassVar[str] = "similarity"
    outputs: ClassVar[frozenset[str]] = frozenset({"pose", "points"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride < 1:
            raise SettingError(f"the stride must be at least 1 pixel, not {self.stride}")

    def connect(
        self, world_from_segment: Float[Tensor, "4 4"], last: Seen, first: Seen
    ) -> Float[Tensor, "4 4"]:
        """Fit the similarity; fall back to the pose chain where the points do not allow one."""
        target, target_confidence = self._points_in_segment(last)
        source, source_confidence = self._points_in_segment(first)
        weights = source_confidence.log() * target_confidence.log()
        usable = (
            source.isfinite().all(1) & target.isfinite().all(1) & weights.isfinite() & (weights > 0)
        )
        try:
            old_from_new = align_points(
                source[usable], target[usable], weights[usable], with_scale=True
            )
        except InputError as error:
            logger.warning("segments are joined by pose alone, without scale: %s", error)
            return PoseChain().connect(world_from_segment, last, first)
        return world_from_segment @ old_from_new.to(world_from_segment)

    def _points_in_segment(self, seen: Seen) -> tuple[Tensor, Tensor]:
        assert seen.points is not None and seen.confidence is not None
        points = seen.points[:: self.stride, :: self.stride].double().reshape(-1, 3)
        confidence = seen.confidence[:: self.stride, :: self.stride].double().flatten()
        return se3.apply(seen.segment_from_camera.to(points), points), confidence


REGISTRY = values.Registry("stitching", [PoseChain, Similarity])


def parse(stitching: Any = None, metric: bool = True) -> Stitching:
    """Return a stitching from its text ("pose", "similarity") or as it is.

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
