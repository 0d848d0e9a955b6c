"""The points of frames as coloured clouds in the world, for the formats that hold points."""

import math

import numpy as np

from ttt3r.drawing.frames import cloud_of
from ttt3r.drawing.voxels import Cloud, VoxelCloud
from ttt3r.errors import RunError, SettingError
from ttt3r.exporters.placed import is_placed, points_of
from ttt3r.types import Prediction

DETAIL = 500  # default cells between the camera and half of what it sees
MIN_CONFIDENCE = 1.5


def check_steps(**steps: int) -> None:
    """Refuse a step that is not a whole number above 0.

    Raises:
        SettingError: naming it.
    """
    for name, value in steps.items():
        if not isinstance(value, int) or value < 1:
            raise SettingError(f"{name} must be a whole number, at least 1, not {value!r}")


def check_confidence(min_confidence: float) -> None:
    """Refuse a threshold that is not a number.

    Raises:
        SettingError: if it is not.
    """
    if math.isnan(min_confidence):
        raise SettingError("min_confidence must be a number; 0 keeps every point")


def check_voxel(voxel: float | None) -> None:
    """Refuse a size of voxels that is not above 0; None stands for a default.

    Raises:
        SettingError: if it is not.
    """
    if voxel is not None and not (math.isfinite(voxel) and voxel > 0):
        raise SettingError(f"voxel must be a number above 0, not {voxel}")


class CloudReader:
    """Gives the points of frames, and remembers what it left out.

    Args:
        min_confidence: keep points whose confidence is above this.
        pixel_stride: take every n-th pixel, along rows and along columns.

    Attributes:
        left_out: frames that have no place.
        kept: points given so far.

    Raises:
        SettingError: if an argument makes no sense.
    """

    def __init__(self, min_confidence: float, pixel_stride: int = 1) -> None:
        check_steps(pixel_stride=pixel_stride)
        check_confidence(min_confidence)
        self.left_out = self.kept = 0
        self._least, self._stride = min_confidence, pixel_stride
        self._largest = -math.inf

    def __call__(self, prediction: Prediction) -> Cloud:
        """The points of a frame that are finite and confident enough, in the world.

        Raises:
            RunError: if the prediction has no points or no pose.
        """
        points_of(prediction)
        cloud = cloud_of(prediction, self._stride)
        self.left_out += not is_placed(prediction)
        self._largest = max(self._largest, float(cloud.confidence.max(initial=-math.inf)))
        chosen = cloud.confidence > self._least
        self.kept += int(chosen.sum())
        return Cloud(*(column[chosen] for column in cloud))

    def check(self) -> None:
        """Refuse to go on with nothing.

        Raises:
            RunError: if no point was given, saying why.
        """
        if self.kept:
            return
        if self._largest == -math.inf:
            raise RunError(
                "no point of this run is finite and has a place, so there is nothing to write"
            )
        raise RunError(
            f"no point has a confidence above {self._least:g}; the largest is "
            f"{self._largest:.4g}, so there is nothing to write. Choose a lower min_confidence (on "
            "the command line, --min-confidence)"
        )


def thinning(cloud: Cloud, prediction: Prediction, voxel: float | None, most: int) -> VoxelCloud:
    """What thins a cloud: cells of a size, or fine ones that widen until they are few enough.

    Args:
        cloud: the first points; not yet added.
        prediction: the frame they are from.
        voxel: edge of a cell; None takes a fine one for what this frame sees.
        most: cells to hold at most.
    """
    return VoxelCloud(voxel or typical_distance(cloud, prediction) / DETAIL, most)


def typical_distance(cloud: Cloud, prediction: Prediction) -> float:
    """Half of what a placed frame sees is nearer than this; 1 if it sees nothing."""
    assert prediction.world_from_camera is not None
    if len(cloud.points) == 0:
        return 1.0
    camera = prediction.world_from_camera[:3, 3].float().numpy()
    return max(float(np.median(np.linalg.norm(cloud.points - camera, axis=1))), 1e-6)


def cells_text(voxels: VoxelCloud, asked: float | None) -> str:
    """What to add to the text on what was written: how points were thinned."""
    wider = asked is not None and voxels.size > asked
    why = ", wider than asked for to bound memory" if wider else ""
    far = f"; {voxels.left_out:,} points too far away left out" if voxels.left_out else ""
    return f", one per cell of {voxels.size:.3g}{why}{far}"
