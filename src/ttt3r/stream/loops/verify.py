"""Whether two frames of different segments show one place, and how the segments then lie.

A network gives a plausible shape for any image, so the shape alone proves nothing. Each frame is
therefore shown to the other one's segment, and both must tell the same of how the segments lie.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import InputError
from ttt3r.geometry import se3, sim3
from ttt3r.geometry.camera import project
from ttt3r.geometry.robust import RobustFit, align_robustly
from ttt3r.stream.loops.candidates import Candidate
from ttt3r.stream.loops.remembered import Remembered, Shown
from ttt3r.stream.stitching import tiles_of
from ttt3r.types import Prediction

# Thresholds are ours, and not tuned to any data. Lengths are shares of the median depth.
LARGEST_RESIDUAL = 0.1
LARGEST_SHIFT, LARGEST_TURN, LARGEST_LOG_SCALE = 0.2, 0.2, 0.2
SAME_DEPTH, LEAST_SHARED = 0.15, 0.25
STRIDE = 4


class Loop(NamedTuple):
    """Two segments that meet again.

    Attributes:
        candidate: where.
        old_from_new: what both frames say: similarities that move what the new segment placed to
            where the old one has it.
        place: similarity from the new frame's camera, with its median depth as the unit, to the
            world.
    """

    candidate: Candidate
    old_from_new: tuple[Float[Tensor, "4 4"], Float[Tensor, "4 4"]]
    place: Float[Tensor, "4 4"]


def verify(remembered: Remembered, candidate: Candidate) -> Loop | None:
    """Check a candidate; None if it is no loop."""
    old, new = remembered.frame(candidate.old), remembered.frame(candidate.new)
    place = place_of(new)
    if place is None or place_of(old) is None:
        return None
    new_in_old = remembered.ask(candidate.old_segment, candidate.new)
    old_in_new = remembered.ask(candidate.new_segment, candidate.old)
    try:
        forward = _fit(shown_by(new), new_in_old)
        backward = _fit(old_in_new, shown_by(old))
    except InputError:
        return None
    depth = float(se3.similarity_scale(place))
    if max(forward.residual, backward.residual) > LARGEST_RESIDUAL * depth:
        return None
    said = forward.target_from_source, backward.target_from_source
    if not agree(said[0], said[1], place):
        return None
    if shared_view(new_in_old.points, old) < LEAST_SHARED:
        return None
    return Loop(candidate, said, place)


def place_of(frame: Prediction) -> Float[Tensor, "4 4"] | None:
    """Similarity from a frame's camera, with its median depth as the unit, to the world.

    None if the frame has no pose, or no depth.
    """
    assert frame.world_from_camera is not None and frame.depth is not None
    depth, pose = float(frame.depth.nanmedian()), frame.world_from_camera.double()
    if not depth > 0 or not bool(pose.isfinite().all()):
        return None
    return se3.assemble(depth * pose[:3, :3], pose[:3, 3])


def shown_by(frame: Prediction) -> Shown:
    """What a frame shows, where the stream placed it."""
    assert frame.points is not None and frame.confidence is not None
    assert frame.world_from_camera is not None
    pose = frame.world_from_camera.double()
    return Shown(se3.apply(pose, frame.points.double()), frame.confidence.double())


def agree(
    first: Float[Tensor, "4 4"], second: Float[Tensor, "4 4"], place: Float[Tensor, "4 4"]
) -> bool:
    """Whether two similarities do nearly the same at a place."""
    between = sim3.log(se3.invert(place) @ se3.invert(first) @ second @ place).abs()
    shift, turn, log_scale = float(between[:3].norm()), float(between[3:6].norm()), between[6]
    return shift <= LARGEST_SHIFT and turn <= LARGEST_TURN and float(log_scale) <= LARGEST_LOG_SCALE


def shared_view(points: Float[Tensor, "height width 3"], frame: Prediction) -> float:
    """Share of points that a frame sees where its own depth is."""
    assert frame.world_from_camera is not None and frame.depth is not None
    assert frame.intrinsics is not None
    height, width = frame.depth.shape
    rows = points[::STRIDE, ::STRIDE].reshape(-1, 3)
    local = se3.apply(se3.invert(frame.world_from_camera.double()), rows)
    pixels = project(local, frame.intrinsics.double()).round()
    limits = torch.tensor([width, height], dtype=pixels.dtype)
    inside = ((pixels >= 0) & (pixels < limits)).all(1) & (local[:, 2] > 0)
    column, row = pixels[inside].long().unbind(1)
    depth = frame.depth.double()[row, column]
    same = (local[inside, 2] - depth).abs() <= SAME_DEPTH * depth
    return float(same.sum()) / len(rows)


def _fit(source: Shown, target: Shown) -> RobustFit:
    """Fit a similarity to what two segments say of one frame.

    Raises:
        InputError: if the points allow none.
    """
    parts = [
        item[::STRIDE, ::STRIDE]
        for item in (source.points, target.points, source.confidence, target.confidence)
    ]
    weights = (parts[2].log() * parts[3].log()).flatten()
    x, y = (item.reshape(-1, 3) for item in parts[:2])
    usable = x.isfinite().all(1) & y.isfinite().all(1) & weights.isfinite() & (weights > 0)
    return align_robustly(x[usable], y[usable], weights[usable], tiles_of(parts[0])[usable])
