"""Values that pass between the parts, and the conventions that hold everywhere.

Conventions, stated once:

* Camera axes follow OpenCV: x right, y down, z forward.
* A matrix is named ``target_from_source``; ``world_from_camera`` maps camera points to the world.
* The world is the camera of the first frame of the stream.
* Pixel centres are at integer coordinates: the centre of the top-left pixel is (0, 0).
* Lengths are metres where the weights are metric, and otherwise share one unknown scale.
* Images are RGB. Sizes are written (height, width) for arrays and (width, height) for files.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ttt3r.errors import InputError

Image = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class ImageTransform:
    """How an image was resized and then cropped on its way into a network.

    Attributes:
        original_size: (width, height) of the upright source image, in stored pixels, which may be
            wider than high or the other way round.
        resized_size: (width, height) after resizing.
        crop: (left, top, width, height) cut from the resized image.
    """

    original_size: tuple[int, int]
    resized_size: tuple[int, int]
    crop: tuple[int, int, int, int]

    @staticmethod
    def identity(width: int, height: int) -> "ImageTransform":
        """Describe an image that enters the network as it is."""
        return ImageTransform((width, height), (width, height), (0, 0, width, height))

    @property
    def processed_from_original(self) -> Float[np.ndarray, "3 3"]:
        """Matrix from homogeneous original pixels to processed pixels (centres at integers)."""
        scale_x = self.resized_size[0] / self.original_size[0]
        scale_y = self.resized_size[1] / self.original_size[1]
        left, top = self.crop[:2]
        return np.array(
            [
                [scale_x, 0.0, 0.5 * scale_x - 0.5 - left],
                [0.0, scale_y, 0.5 * scale_y - 0.5 - top],
                [0.0, 0.0, 1.0],
            ]
        )


@dataclass(frozen=True)
class Preparation:
    """The image preparation that a set of weights was trained with; it travels with them.

    Attributes:
        size: longer side in pixels; 224 means a square centre crop of that side.
        patch: sides must be multiples of this.
        square_ok: keep square images square instead of cropping them to 4:3.
        by_width: make images `size` wide, of the nearest height in whole patches, cut rows beyond
            `size`, and make white what is transparent, as VGGT was trained; otherwise the longer
            side counts, and transparent pixels keep their colour.
    """

    size: int = 512
    patch: int = 16
    square_ok: bool = False
    by_width: bool = False


@dataclass(frozen=True)
class Frame:
    """One image of a stream.

    Attributes:
        image: RGB, uint8 [height, width, 3].
        index: position in the stream, from 0.
        timestamp: seconds since the stream's own origin.
        intrinsics: pinhole matrix of `image` in pixels, if known; a prediction keeps to it.
        name: where the frame comes from (a file name, say), for messages.
        transform: how `image` was made from the source image; None if nothing was done to it.
        alpha: opacity of each pixel, 0 to 255; None where all pixels are opaque.
        stored_size: (width, height) of the upright image as its file stores it, where the stored
            pixels are not square and `image` was stretched so that they are; otherwise None.

    Raises:
        InputError: if the timestamp is not finite.
    """

    image: Image
    index: int = 0
    timestamp: float = 0.0
    intrinsics: Float[np.ndarray, "3 3"] | None = None
    name: str = ""
    transform: ImageTransform | None = None
    alpha: UInt8[np.ndarray, "height width"] | None = None
    stored_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.timestamp):
            raise InputError(
                f"the timestamp of frame {self.index} is {self.timestamp}; give finite seconds, or "
                "leave it out"
            )


@dataclass(frozen=True)
class Camera:
    """A pinhole camera placed in the world.

    Attributes:
        world_from_camera: rigid transform [4, 4], in the world's units.
        intrinsics: pinhole matrix [3, 3] in pixels.
        size: (height, width) in pixels.
    """

    world_from_camera: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    size: tuple[int, int]


# `typing.Self` cannot be checked by beartype on single methods, hence the variable.
AnyReading = TypeVar("AnyReading", bound="Reading")


def _said(*outputs: str, on_disk: torch.dtype = torch.float32) -> dict[str, Any]:
    """What a field of `Reading` says of itself.

    Args:
        outputs: which of them fill the field; none: it always comes along.
        on_disk: how it is stored.
    """
    return {"outputs": outputs, "on_disk": on_disk}


_POINTS, _WORLD, _RGB = (_said(name, on_disk=torch.float16) for name in ("points", "world", "rgb"))


@dataclass(frozen=True)
class Reading:
    """What a network says of views; a field is None if nobody asked for it or nobody can say it.

    Leading axes are [batch] for one step of a stream, [batch, views] for a set, and none for a
    `Prediction`. A new output is one more field here, and the head that fills it.

    Attributes:
        points: 3D point of each pixel in the frame of its own camera.
        confidence: confidence of `points`, at least 1.
        pose_encoding: [tx, ty, tz, qw, qx, qy, qz] relative to the segment, of networks that
            predict poses in this form.
        world_from_camera: camera pose; the world is the first camera of the stream or set.
        intrinsics: pinhole matrix of the processed image, in pixels.
        world_points: 3D point of each pixel in the world, as the network predicts it directly.
        world_confidence: confidence of `world_points`, at least 1.
        rgb: colour that the network predicts, in (-1, 1).
        gate: β that the update rule applied to each state token. In a session it is None where
            nothing of the segment was remembered yet: such a frame is taken over whole.
    """

    points: Float[Tensor, "*batch height width 3"] | None = field(default=None, metadata=_POINTS)
    confidence: Float[Tensor, "*batch height width"] | None = field(default=None, metadata=_POINTS)
    pose_encoding: Float[Tensor, "*batch 7"] | None = field(default=None, metadata=_said("pose"))
    world_from_camera: Float[Tensor, "*batch 4 4"] | None = field(
        default=None, metadata=_said("pose")
    )
    intrinsics: Float[Tensor, "*batch 3 3"] | None = field(
        default=None, metadata=_said("points", "pose")
    )
    world_points: Float[Tensor, "*batch height width 3"] | None = field(
        default=None, metadata=_WORLD
    )
    world_confidence: Float[Tensor, "*batch height width"] | None = field(
        default=None, metadata=_WORLD
    )
    rgb: Float[Tensor, "*batch height width 3"] | None = field(default=None, metadata=_RGB)
    gate: Float[Tensor, "*batch tokens"] | None = field(default=None, metadata=_said())

    def tensors(self) -> dict[str, Tensor]:
        """Return what was said, by name of the field."""
        named = {item.name: getattr(self, item.name) for item in fields(Reading)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def map(self: AnyReading, function: Callable[[Tensor], Tensor]) -> AnyReading:
        """Apply a function to all that was said."""
        return replace(self, **{name: function(item) for name, item in self.tensors().items()})

    def only(self: AnyReading, outputs: Collection[str]) -> AnyReading:
        """Leave out what belongs to none of the outputs."""
        dropped = {
            item.name: None
            for item in fields(Reading)
            if item.metadata["outputs"] and not set(item.metadata["outputs"]) & set(outputs)
        }
        return replace(self, **dropped)

    def view(self, index: int) -> "Reading":
        """Return what is said of one view of each set, in memory of its own."""
        return self.map(lambda tensor: tensor[:, index].clone())

    @staticmethod
    def stack(readings: "Sequence[Reading]") -> "Reading":
        """Join what is said of single views into a set; a field that one of them lacks is None."""
        said = [reading.tensors() for reading in readings]
        shared = [name for name in said[0] if all(name in tensors for tensors in said)]
        return Reading(
            **{name: torch.stack([tensors[name] for tensors in said], dim=1) for name in shared}
        )


# Names of outputs that can be asked for.
OUTPUTS: tuple[str, ...] = tuple(
    dict.fromkeys(name for item in fields(Reading) for name in item.metadata["outputs"])
)
# How each field is stored.
ON_DISK: dict[str, torch.dtype] = {item.name: item.metadata["on_disk"] for item in fields(Reading)}


# What is too far for the half precision that frames are stored in, infinity too, is stored as this.
LARGEST_HALF = torch.finfo(torch.float16).max


# Where the pose of a frame comes from, see `ttt3r.stream.posing`.
PoseFrom = Literal["head", "points", "auto"]
POSE_SOURCES: tuple[str, ...] = get_args(PoseFrom)

Health = Literal["in-domain", "drifting", "lost"]


@dataclass(frozen=True)
class Quality:
    """How far a frame can be trusted, judged without any truth.

    Attributes:
        health: "in-domain", "drifting" or "lost", see ``docs/diagnostics.md``; None where there is
            nothing to judge by, as in the first frame.
        agreement: share of the pixels of the frame before whose depth, carried here, is the one
            that this frame has there; None if unknown.
        confidence: mean confidence, relative to that of the first frames of the segment; None if
            unknown.
    """

    health: Health | None = None
    agreement: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Prediction(Reading):
    """What one frame yields: a `Reading` without leading axes, placed in the stream's world.

    Tensors are detached, and all on one device. `pose_encoding` is as the network gives it,
    relative to its segment. `intrinsics` are those of the frame where they were known, and `points`
    and `world_points` lie on their rays; otherwise estimated from `points` where the network gives
    none.

    Attributes:
        index: position of the frame in the session, from 0.
        timestamp: the frame's timestamp in seconds.
        image: the image the network saw, uint8 [height, width, 3]; None for a virtual view.
        segment: number of the segment the frame belongs to, from 0.
        scale: factor already applied to lengths so that segments share the first one's scale.
        scale_error: standard error of the natural logarithm of `scale`; None if it is not known,
            as stitchings other than "robust" do not tell.
        transform: how the processed image was made from the source image.
        quality: how far the frame can be trusted; None where the session keeps no trace.
    """

    index: int = field(kw_only=True)
    timestamp: float = field(kw_only=True)
    image: UInt8[Tensor, "height width 3"] | None = field(default=None, kw_only=True)
    segment: int = field(default=0, kw_only=True)
    scale: float = field(default=1.0, kw_only=True)
    scale_error: float | None = field(default=None, kw_only=True)
    transform: ImageTransform | None = field(default=None, kw_only=True)
    quality: Quality | None = field(default=None, kw_only=True)

    def to(self, device: torch.device | str) -> "Prediction":
        """Return the prediction with all its tensors, the image included, on a device."""
        # A copy from a device must have come before its content is looked at; one to a device is
        # done before the device reads it.
        ahead = torch.device(device).type != "cpu"
        moved = self.map(lambda tensor: tensor.to(device, non_blocking=ahead))
        image = None if self.image is None else self.image.to(device, non_blocking=ahead)
        return replace(moved, image=image)

    @property
    def depth(self) -> Float[Tensor, "height width"] | None:
        """Distance along the optical axis, the z of `points`."""
        return None if self.points is None else self.points[..., 2]

    @property
    def original_intrinsics(self) -> Float[Tensor, "3 3"] | None:
        """Pinhole matrix for the source image, before resizing and cropping, in its pixels."""
        if self.intrinsics is None or self.transform is None:
            return self.intrinsics
        original_from_processed = np.linalg.inv(self.transform.processed_from_original)
        matrix = torch.from_numpy(original_from_processed).to(self.intrinsics)
        return matrix @ self.intrinsics
