"""From a pushed image to what a network takes, and from what it says to the stream's world."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ttt3r.errors import InputError, SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics, unproject
from ttt3r.geometry.focal import focal_from_points
from ttt3r.models.base import Capabilities
from ttt3r.types import Frame, Prediction, Reading

NO_IMAGE = np.zeros((0, 0, 3), np.uint8)

PushedImage = Frame | np.ndarray | Tensor


@dataclass(frozen=True)
class Shown:
    """A pushed image.

    Attributes:
        frame: where and when it is from; its own image is not used.
        pixels: what the network takes, RGB in [-1, 1].
        image: what is handed back, RGB.
    """

    frame: Frame
    pixels: Float[Tensor, "3 height width"]
    image: UInt8[Tensor, "height width 3"]

    @property
    def is_calibrated(self) -> bool:
        """Whether its intrinsics are known."""
        return self.frame.intrinsics is not None


def read_image(image: PushedImage, index: int) -> Shown:
    """Read a pushed image.

    Args:
        image: uint8 RGB [height, width, 3], float tensor [3, height, width] in [-1, 1], or a
            `Frame`.
        index: the time of an image that has none.

    Raises:
        InputError: if it has another form.
    """
    frame = image if isinstance(image, Frame) else None
    content = _as_tensor(image.image if isinstance(image, Frame) else image)
    if content.dtype == torch.uint8 and content.ndim == 3 and content.shape[2] == 3:
        shown = content.clone()  # the caller may reuse the buffer
        pixels = (content.permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    elif content.is_floating_point() and content.ndim == 3 and content.shape[0] == 3:
        pixels = content.to(torch.float32, copy=True)  # the caller may reuse the buffer
        if not bool((pixels.abs() <= 1 + 1e-3).all()):
            raise InputError("a float image must lie in [-1, 1] without NaN; scale it first")
        shown = ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0)
    else:
        raise InputError(
            "push takes uint8 RGB [H, W, 3] or a float tensor [3, H, W] in [-1, 1], not "
            f"{content.dtype} {list(content.shape)}"
        )
    if frame is None:
        frame = Frame(NO_IMAGE, index, timestamp=float(index))
    return Shown(frame, pixels, shown)


def needed_for(
    outputs: Collection[str], frames: Iterable[Shown], capabilities: Capabilities
) -> frozenset[str]:
    """What must be said of frames, beside the outputs asked for, so that `place` can place them.

    Raises:
        SettingError: if the network cannot say it.
    """
    if "world" not in outputs or not any(shown.is_calibrated for shown in frames):
        return frozenset()
    if "pose" not in capabilities.outputs:
        raise SettingError(
            "points in the world move onto the rays of a known camera by the pose of the frame, "
            "and this network gives no pose; leave out the intrinsics, or the output world"
        )
    return frozenset({"pose"})


def place(
    output: Reading,
    shown: Shown | None,
    index: int,
    outputs: frozenset[str],
    segment: int,
    world_from_segment: Float[Tensor, "4 4"],
    scale_error: float | None,
) -> Prediction:
    """Carry one sample of a step's output into the stream's world.

    Where the frame's intrinsics are known, points move onto their rays; depth along the optical
    axis stays, X = z K⁻¹ [u, v, 1]ᵀ. So do points that the network gives in the world, in the
    camera that the frame's pose places; they are NaN where the frame has no pose.

    Args:
        output: what the network said, `needed_for` included; the first sample of its batch counts.
        shown: the image it was said of; None for a query, which shows nothing.
        index: of the frame.
        outputs: what was asked for.
        segment: number of the segment.
        world_from_segment: similarity that places it, float64.
        scale_error: standard error of the logarithm of its scale, if known.
    """
    scale = _scale(world_from_segment)
    whole, output = output, output.only(outputs)
    said, world, pose = output.map(lambda tensor: tensor[0]), first(output.world_points), None
    points, intrinsics = camera_of(output, shown)
    if points is not None and scale != 1.0:
        points = points * scale
    if "pose" in outputs:
        pose = _precise_pose(output)
        pose = se3.place_camera(world_from_segment.to(pose.device, non_blocking=True), pose).float()
    if world is not None and shown is not None and shown.is_calibrated:
        assert intrinsics is not None
        world = _onto_rays(world, _precise_pose(whole), intrinsics)
    if world is not None and segment:
        placement = world_from_segment.to(world.dtype).to(world.device, non_blocking=True)
        world = se3.apply(placement, world)
    placed = replace(
        said, points=points, world_points=world, world_from_camera=pose, intrinsics=intrinsics
    )
    return Prediction(
        **cast(dict[str, Any], placed.tensors()),
        index=index,
        timestamp=0.0 if shown is None else float(shown.frame.timestamp),
        image=None if shown is None else shown.image,
        segment=segment,
        scale=scale,
        scale_error=scale_error,
        transform=None if shown is None else shown.frame.transform,
        quality=None,
    )


def camera_of(output: Reading, shown: Shown | None) -> tuple[Tensor | None, Tensor | None]:
    """Return points [height, width, 3] and intrinsics [3, 3] of the first sample of a batch.

    The intrinsics are those of the frame if known, else those that the network gives, else what
    explains the points best; None if nothing says them.
    """
    points, intrinsics = first(output.points), first(output.intrinsics)
    if shown is not None and shown.frame.intrinsics is not None:
        known = torch.from_numpy(shown.frame.intrinsics)
        where = shown.pixels.device if points is None else points.device
        intrinsics = known.float().to(where, non_blocking=True)
        points = None if points is None else unproject(points[..., 2], intrinsics.to(points))
    if points is not None and intrinsics is None:
        intrinsics = _intrinsics(points)
    return points, intrinsics


def _onto_rays(
    world: Float[Tensor, "height width 3"],
    world_from_camera: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "3 3"],
) -> Float[Tensor, "height width 3"]:
    """Move points in a world onto a camera's rays; their depth in the camera stays."""
    pose = world_from_camera.to(world)
    depth = se3.apply(se3.invert(pose), world)[..., 2]
    return se3.apply(pose, unproject(depth, intrinsics.to(world)))


def pose_of(output: Reading) -> Float[Tensor, "4 4"]:
    """Return the pose of the first sample in its segment, float64 on the CPU.

    A matrix counts before an encoding: it may come from elsewhere than the pose head, see `posing`.
    """
    return _precise_pose(output).cpu()


def _precise_pose(output: Reading) -> Float[Tensor, "4 4"]:
    """The same where the output lies, so that nobody waits for it."""
    if output.world_from_camera is not None:
        # Through a quaternion, which makes the rotation exact.
        encoding = se3.encoding_from_pose(_double(output.world_from_camera[0]))
    else:
        assert output.pose_encoding is not None
        encoding = _double(output.pose_encoding[0])
    return se3.pose_from_encoding(encoding)


def _double(tensor: Tensor) -> Tensor:
    """In float64: on the CPU where the device, Apple's, has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def first(batch: Tensor | None) -> Tensor | None:
    """Return the first sample of a batch, if there is one."""
    return None if batch is None else batch[0]


def _scale(world_from_segment: Float[Tensor, "4 4"]) -> float:
    """Scale of a segment; a chain of rigid poses is exactly 1 but for rounding."""
    scale = float(se3.similarity_scale(world_from_segment))
    return 1.0 if math.isclose(scale, 1.0, rel_tol=1e-9) else scale


def _as_tensor(image: np.ndarray | Tensor) -> Tensor:
    if isinstance(image, Tensor):
        return image
    try:  # torch takes neither reversed nor read-only arrays
        return torch.from_numpy(np.require(image, requirements=("C", "W")))
    except (TypeError, ValueError) as error:
        raise InputError(f"push takes arrays of numbers: {error}") from error


def _intrinsics(points: Float[Tensor, "height width 3"]) -> Float[Tensor, "3 3"]:
    height, width = points.shape[:2]
    return default_intrinsics((height, width), focal_from_points(points))
