"""Values that pass between the parts, and the conventions that hold everywhere.

Conventions, stated once:

* Camera axes follow OpenCV: x right, y down, z forward.
* A matrix is named ``target_from_source``; ``world_from_camera`` maps camera points to the world.
* The world is the camera of the first frame of the stream.
* Pixel centres are at integer coordinates: the centre of the top-left pixel is (0, 0).
* Lengths are metres where the weights are metric, and otherwise share one unknown scale.
* Images are RGB. Sizes are written (height, width) for arrays and (width, height) for files.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Image = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class ImageTransform:
    """How an image was resized and then cropped on its way into a network.

    Attributes:
        original_size: (width, height) of the upright source image, in pixels.
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
class ImagePolicy:
    """The image preparation that a set of weights was trained with; it travels with them.

    Attributes:
        size: longer side in pixels; 224 means a square centre crop of that side.
        patch: sides must be multiples of this.
        square_ok: keep square images square instead of cropping them to 4:3.
        by_width: make images `size` wide, of the nearest height in whole patches, and cut rows
            beyond `size`, as VGGT was trained; otherwise the longer side counts.
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
        intrinsics: pinhole matrix of `image` in pixels, if known.
        name: where the frame comes from (a file name, say), for messages.
        transform: how `image` was made from the source image; None if nothing was done to it.
    """

    image: Image
    index: int = 0
    timestamp: float = 0.0
    intrinsics: Float[np.ndarray, "3 3"] | None = None
    name: str = ""
    transform: ImageTransform | None = None


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


@dataclass(frozen=True)
class Prediction:
    """What one frame yields. Tensors are detached; fields nobody asked for are None.

    Attributes:
        index: position of the frame in the session, from 0.
        timestamp: the frame's timestamp in seconds.
        image: the image the network saw, uint8 [height, width, 3]; None for a virtual view.
        points: 3D point of each pixel in this camera's frame, [height, width, 3].
        confidence: confidence of `points`, at least 1, [height, width].
        pose_encoding: the network's own [tx, ty, tz, qw, qx, qy, qz], relative to its segment.
        world_from_camera: camera pose in the stream's world, [4, 4].
        intrinsics: pinhole matrix of the processed image, [3, 3] pixels; estimated from `points`
            where the network gives none.
        gate: β that the rule applied to each state token, [tokens]; None on the first frame of a
            segment, where the state is taken over before any rule has acted.
        world_points: point of each pixel in the world as the network predicts it directly.
        world_confidence: confidence of `world_points`.
        rgb: colour that the network predicts, in (-1, 1), [height, width, 3].
        segment: number of the segment the frame belongs to, from 0.
        scale: factor already applied to lengths so that segments share the first one's scale.
        transform: how the processed image was made from the source image.
    """

    index: int
    timestamp: float
    image: UInt8[Tensor, "height width 3"] | None = None
    points: Float[Tensor, "height width 3"] | None = None
    confidence: Float[Tensor, "height width"] | None = None
    pose_encoding: Float[Tensor, "7"] | None = None
    world_from_camera: Float[Tensor, "4 4"] | None = None
    intrinsics: Float[Tensor, "3 3"] | None = None
    gate: Float[Tensor, " tokens"] | None = None
    world_points: Float[Tensor, "height width 3"] | None = None
    world_confidence: Float[Tensor, "height width"] | None = None
    rgb: Float[Tensor, "height width 3"] | None = None
    segment: int = 0
    scale: float = 1.0
    transform: ImageTransform | None = None

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
