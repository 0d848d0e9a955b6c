"""What the picture of a run is drawn from: samples whose number does not grow with the run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from ttt3r.drawing.frames import cloud_of, depth_of
from ttt3r.runs.reader import Run
from ttt3r.types import Prediction

MOST_FRAMES = 64  # whose images and points are kept
MOST_MOMENTS = 2048  # whose pose and gate are kept
MOST_ROWS = 192  # into which the tokens of a gate are averaged
MOST_POINTS = 12_000  # of one frame
LONGEST_SIDE = 320  # pixels of a kept image
# What `Moment` needs of a frame file; the rest is left on the disk.
LIGHT = ("world_from_camera", "gate")

Item = TypeVar("Item")


class Thinned(Generic[Item]):
    """Every n-th item of a sequence of unknown length; n doubles whenever there are too many.

    Args:
        most: items to keep, at least 2.
        length: of the sequence, if it is known: then n is right from the start.
    """

    def __init__(self, most: int, length: int = 0) -> None:
        self.stride = 1
        while length and -(-length // self.stride) > most:
            self.stride *= 2
        self._most = most
        self._items: list[Item] = []

    def wants(self, index: int) -> bool:
        """Whether the item at an index would be kept."""
        return index % self.stride == 0

    def offer(self, index: int, make: Callable[[], Item]) -> None:
        """Keep what `make` returns if its index is wanted; indices come in order, from any on."""
        if not self.wants(index):
            return
        self._items.append(make())
        if len(self._items) > self._most:
            self._items = self._items[::2]
            self.stride *= 2

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]


@dataclass(frozen=True)
class Sample:
    """One frame, small enough to keep.

    Attributes:
        index: of the frame.
        timestamp: seconds.
        image: what the network saw, reduced; None of a virtual view.
        depth: z of every n-th pixel, NaN where there is none; None without points.
        confidence: of the same pixels.
        points: some points in the world, where the frame has points and a place.
        colours: of these points.
    """

    index: int
    timestamp: float
    image: UInt8[np.ndarray, "h w 3"] | None
    depth: Float32[np.ndarray, "rows columns"] | None
    confidence: Float32[np.ndarray, "rows columns"] | None
    points: Float32[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]


@dataclass(frozen=True)
class Moment:
    """What one frame adds to the path and to the picture of the gate.

    Attributes:
        index: of the frame.
        timestamp: seconds.
        segment: number of its segment.
        world_from_camera: its pose; NaN where it could not be placed, None if nobody asked.
        gate: β averaged over groups of tokens; None where a fresh state took the frame over.
    """

    index: int
    timestamp: float
    segment: int
    world_from_camera: Float32[np.ndarray, "4 4"] | None
    gate: Float32[np.ndarray, " rows"] | None


class Samples:
    """Collects what the picture needs; takes memory for a fixed number of frames.

    Args:
        length: number of frames to come, if it is known.

    Attributes:
        frames: some frames with image, maps and points.
        moments: more frames with pose and gate.
        count: frames gone by.
        unplaced: frames among `moments` that have no place.
    """

    def __init__(self, length: int = 0) -> None:
        self.frames: Thinned[Sample] = Thinned(MOST_FRAMES, length)
        self.moments: Thinned[Moment] = Thinned(MOST_MOMENTS, length)
        self.count = 0
        self.last_timestamp = 0.0

    def add(self, prediction: Prediction) -> None:
        """Take in the next frame; those at indices that are not wanted may be left out."""
        index = prediction.index
        self.count = index + 1
        self.last_timestamp = prediction.timestamp
        self.frames.offer(index, lambda: _sample(prediction.map(Tensor.float)))
        self.moments.offer(index, lambda: _moment(prediction))

    @property
    def unplaced(self) -> int:
        """Number of the frames in `moments` that could not be placed."""
        poses = [moment.world_from_camera for moment in self.moments]
        return sum(pose is not None and not np.isfinite(pose).all() for pose in poses)


def read_samples(run: Run) -> Samples:
    """Collect samples from a run folder; only what is wanted is read.

    Raises:
        RunError: if a frame is damaged.
    """
    samples = Samples(len(run))
    for index in range(len(run)):
        if samples.frames.wants(index):
            samples.add(run[index])
        elif samples.moments.wants(index) or index == len(run) - 1:
            samples.add(run.read(index, LIGHT))
    return samples


def _moment(prediction: Prediction) -> Moment:
    pose, gate = prediction.world_from_camera, prediction.gate
    return Moment(
        prediction.index,
        prediction.timestamp,
        prediction.segment,
        None if pose is None else _array(pose),
        None if gate is None else pooled(_array(gate), MOST_ROWS),
    )


def pooled(values: Float32[np.ndarray, " n"], most: int) -> Float32[np.ndarray, " rows"]:
    """Average neighbours so that at most `most` numbers are left."""
    if len(values) <= most:
        return values
    starts = np.arange(most) * len(values) // most
    sizes = np.diff(starts, append=len(values))
    return (np.add.reduceat(values, starts) / sizes).astype(np.float32)


def _sample(prediction: Prediction) -> Sample:
    points, confidence = prediction.points, prediction.confidence
    depth = None
    if points is not None:
        step = -(-max(points.shape[:2]) // LONGEST_SIDE)
        depth = depth_of(points[::step, ::step])
        if confidence is not None:
            confidence = confidence[::step, ::step]
    image = None if prediction.image is None else prediction.image.cpu().numpy()
    return Sample(
        prediction.index,
        prediction.timestamp,
        None if image is None else _reduced(image),
        depth,
        None if confidence is None else _array(confidence),
        *_cloud(prediction),
    )


def _cloud(prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Some points of a frame in the world, without the least sure quarter, and their colours."""
    height, width = (1, 1) if prediction.points is None else prediction.points.shape[:2]
    cloud = cloud_of(prediction, max(1, round((height * width / MOST_POINTS) ** 0.5)))
    if len(cloud.points) == 0:
        return cloud.points, cloud.colours
    sure = cloud.confidence >= np.quantile(cloud.confidence, 0.25)
    return cloud.points[sure], cloud.colours[sure]


def _reduced(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "h w 3"]:
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _array(tensor: Tensor) -> np.ndarray:
    """A copy: a tensor of a frame file keeps the whole file in memory."""
    return tensor.detach().cpu().float().numpy().copy()
