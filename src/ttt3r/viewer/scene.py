"""What is shown of a run: a few named nodes, made from predictions, in bounded memory.

Nothing here knows who shows it: the page that is sent, the live viewer and other programs take the
same nodes. A node that changes keeps its name, so whoever is slow needs its newest state only.

Points are thinned over the whole stream: a cell of a grid takes a point once, and again only if it
is much surer. When there are too many points the cells grow, and the nodes so far are thinned anew.
When there are too many nodes, neighbours in time are joined.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from ttt3r.drawing.frames import cloud_of
from ttt3r.errors import RunError
from ttt3r.types import Prediction

CELLS = 250  # from the first camera to the middle one of its points
GROWTH = 2**0.5  # of a cell; halves the points of a surface
CHUNK = 128  # poses in one node of the path
SEEN = 60_000  # pixels of a frame that are looked at, at most
# A confidence c is kept as one byte, 1 + LEVELS · log2(c); a cell takes a second point if that is
# larger by SURER.
LEVELS, SURER = 40, 20
TABLE = 1 << 24  # cells that are told apart
PRIMES = np.array([73856093, 19349663, 83492791], np.int64)


@dataclass(frozen=True)
class Limits:
    """How much a scene may hold.

    Attributes:
        points: in all nodes together.
        nodes: of points.
        poses: on the path.
        images: small pictures of frames.
        side: longer side of these pictures, pixels.
    """

    points: int = 1_000_000
    nodes: int = 300
    poses: int = 4096
    images: int = 300
    side: int = 320


@dataclass(frozen=True)
class Points:
    """Points that a stretch of frames added to the scene, in random order.

    Attributes:
        frame: the first frame they come from.
        segment: its segment.
        positions: in the world, in the run's unit.
        colours: RGB.
        levels: confidence c as 1 + 40 log2(c).
    """

    frame: int
    segment: int
    positions: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    levels: UInt8[np.ndarray, " n"]


@dataclass(frozen=True)
class Pose:
    """Where the camera of a frame was.

    Attributes:
        frame: its index.
        timestamp: seconds.
        segment: its number.
        world_from_camera: its pose.
        slopes: half the image's width and height at distance 1.
    """

    frame: int
    timestamp: float
    segment: int
    world_from_camera: Float32[np.ndarray, "4 4"]
    slopes: tuple[float, float]


@dataclass(frozen=True)
class Path:
    """A part of the camera's way.

    Attributes:
        poses: in the order of their frames.
    """

    poses: tuple[Pose, ...]


@dataclass(frozen=True)
class Picture:
    """What a frame showed.

    Attributes:
        frame: its index.
        jpeg: the picture.
    """

    frame: int
    jpeg: bytes


@dataclass(frozen=True)
class Gone:
    """There was a node of this name; others hold its content now."""


Node = Points | Path | Picture | Gone


class Scene:
    """Turns predictions into nodes.

    Args:
        limits: how much to hold.

    Attributes:
        version: rises with every change.
        frames: number of frames so far: the last index and one.
        unplaced: frames that have no place and were left out.
        cell: edge of a cell of the grid in the run's unit; 0 before there are points.
        started: how many scenes were there before it; pages of one load anew at the next.
    """

    def __init__(self, limits: Limits | None = None, started: int = 0) -> None:
        self.limits = limits or Limits()
        self.started = started
        self.version = 0
        self.frames = 0
        self.unplaced = 0
        self.cell = 0.0
        self._nodes: dict[str, tuple[int, Node]] = {}
        self._poses: list[Pose] = []
        self._strides = {"image": 1, "path": 1}
        self._table = np.zeros(TABLE, np.uint8)
        self._random = np.random.default_rng(0)

    def add(self, prediction: Prediction) -> None:
        """Take in a frame. One without a place is counted; one without points gives a pose only.

        Raises:
            RunError: if the prediction has no pose.
        """
        pose = prediction.world_from_camera
        if pose is None:
            raise RunError("this run holds no poses; run again with the output 'pose'")
        self.frames = max(self.frames, prediction.index + 1)
        if not bool(pose.isfinite().all()):
            self.unplaced += 1
            return
        self._add_pose(prediction)
        self._add_picture(prediction)
        if prediction.points is not None:
            self._add_points(prediction, pose)

    @property
    def poses(self) -> tuple[Pose, ...]:
        """The camera's whole way, in the order of its frames."""
        return tuple(self._poses)

    def nodes(self) -> dict[str, Node]:
        """All nodes that are there."""
        return {n: node for n, (_, node) in self._nodes.items() if not isinstance(node, Gone)}

    def changes(self, after: int) -> list[tuple[int, str, Node]]:
        """Nodes that changed after a version, the oldest change first: version, name, node."""
        found = [(v, name, node) for name, (v, node) in self._nodes.items() if v > after]
        return sorted(found, key=lambda change: change[0])

    def shrink(self, points: int) -> None:
        """Hold at most so many points from now on."""
        self.limits = replace(self.limits, points=points)
        if self._count() > points:
            self._coarsen()

    def leave_out_pictures(self) -> None:
        """Drop every second picture, from now on too."""
        self._strides["image"] *= 2
        for number, (name, _) in enumerate(list(self._of(Picture))):
            if number % 2:
                self._set(name, Gone())

    def _set(self, name: str, node: Node) -> None:
        self.version += 1
        self._nodes[name] = self.version, node

    def _of(self, kind: type) -> Iterator[tuple[str, Node]]:
        return ((n, node) for n, (_, node) in list(self._nodes.items()) if isinstance(node, kind))

    def _add_pose(self, prediction: Prediction) -> None:
        if prediction.index % self._strides["path"]:
            return
        self._poses.append(pose_of(prediction))
        first = (len(self._poses) - 1) // CHUNK
        if len(self._poses) > self.limits.poses:
            self._poses = self._poses[::2]
            self._strides["path"] *= 2
            for name, _ in self._of(Path):
                self._set(name, Gone())
            first = 0
        for number in range(first, -(-len(self._poses) // CHUNK)):
            part = self._poses[number * CHUNK : (number + 1) * CHUNK]
            self._set(f"path/{number}", Path(tuple(part)))

    def _add_picture(self, prediction: Prediction) -> None:
        if prediction.image is None or prediction.index % self._strides["image"]:
            return
        image = prediction.image.detach().cpu().numpy()
        self._set(
            f"image/{prediction.index}", Picture(prediction.index, jpeg(image, self.limits.side))
        )
        if len(list(self._of(Picture))) > self.limits.images:
            self.leave_out_pictures()

    def _add_points(self, prediction: Prediction, pose: Tensor) -> None:
        new = _points(prediction)
        if self.cell == 0:
            if len(new.positions) == 0:
                return
            rays = new.positions - _array(pose[:3, 3])
            self.cell = max(float(np.median(np.linalg.norm(rays, axis=1))) / CELLS, 1e-9)
        kept = self._free(new)
        if len(kept.positions) == 0:
            return
        shuffled = self._random.permutation(len(kept.positions))
        self._set(f"points/{new.frame}", _chosen(kept, shuffled))
        if self._count() > self.limits.points:
            self._coarsen()
        there = list(self._of(Points))
        if len(there) > self.limits.nodes:
            self._join(there)

    def _count(self) -> int:
        return sum(len(node.positions) for _, node in self._of(Points) if isinstance(node, Points))

    def _coarsen(self) -> None:
        """Let the cells grow until the points are few enough, and thin all nodes anew."""
        while self._count() > self.limits.points * 0.8:
            self.cell *= GROWTH
            self._table[:] = 0
            for name, node in self._of(Points):
                assert isinstance(node, Points)
                kept = self._free(node)
                self._set(name, kept if len(kept.positions) else Gone())

    def _join(self, there: list[tuple[str, Node]]) -> None:
        """Join each second node to the one before it, if both are of one segment."""
        for (name, first), (other, second) in zip(there[::2], there[1::2], strict=False):
            assert isinstance(first, Points) and isinstance(second, Points)
            arrays = (
                np.concatenate(pair)
                for pair in (
                    (first.positions, second.positions),
                    (first.colours, second.colours),
                    (first.levels, second.levels),
                )
            )
            both = Points(first.frame, first.segment, *arrays)
            self._set(name, _chosen(both, self._random.permutation(len(both.levels))))
            self._set(other, Gone())

    def _free(self, points: Points) -> Points:
        """The points whose cell is free or holds a much less sure one; their cells are taken."""
        cells = np.floor(points.positions / self.cell).astype(np.int64)
        numbers = np.bitwise_xor.reduce(cells * PRIMES, axis=1) & (TABLE - 1)
        order = np.argsort(-points.levels.astype(np.int16), kind="stable")
        _, first = np.unique(numbers[order], return_index=True)
        best = order[first]  # the surest point of each cell
        taken = self._table[numbers[best]].astype(np.int16)
        free = (taken == 0) | (points.levels[best] >= taken + SURER)
        chosen = np.sort(best[free])
        self._table[numbers[chosen]] = points.levels[chosen]
        return _chosen(points, chosen)


def _chosen(points: Points, which: np.ndarray) -> Points:
    return replace(
        points,
        positions=points.positions[which],
        colours=points.colours[which],
        levels=points.levels[which],
    )


def pose_of(prediction: Prediction) -> Pose:
    """Where the camera of a placed frame was."""
    pose = prediction.world_from_camera
    assert pose is not None
    stamp, segment = prediction.timestamp, prediction.segment
    return Pose(prediction.index, stamp, segment, _array(pose), _slopes(prediction))


def _slopes(prediction: Prediction) -> tuple[float, float]:
    """Half the width and half the height of what the camera sees at distance 1."""
    image, points, matrix = prediction.image, prediction.points, prediction.intrinsics
    shape = next((m.shape for m in (image, points) if m is not None), (3, 4))
    focal = 0.0 if matrix is None else float(matrix[0, 0])
    if not (np.isfinite(focal) and focal > 0):
        focal = 0.9 * max(shape[0], shape[1])
    return shape[1] / 2 / focal, shape[0] / 2 / focal


def _points(prediction: Prediction) -> Points:
    """Points of every n-th pixel in the world, those left out that have no place."""
    assert prediction.points is not None
    height, width = prediction.points.shape[:2]
    cloud = cloud_of(prediction, max(1, round((height * width / SEEN) ** 0.5)))
    sure = levels(cloud.confidence)
    return Points(prediction.index, prediction.segment, cloud.points, cloud.colours, sure)


def _array(tensor: Tensor) -> np.ndarray:
    """A copy: a tensor of a frame file keeps the whole file in memory."""
    return tensor.detach().cpu().float().numpy().copy()


def levels(confidence: Float32[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Confidence as one byte, see `LEVELS`; never 0."""
    value = 1 + LEVELS * np.log2(np.maximum(confidence, 1))
    return value.round().clip(1, 255).astype(np.uint8)


def jpeg(image: UInt8[np.ndarray, "height width 3"], side: int, quality: int = 75) -> bytes:
    """A picture as JPEG, reduced so that its longer side has at most `side` pixels."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    picture = Image.fromarray(np.ascontiguousarray(image))
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        picture = picture.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
