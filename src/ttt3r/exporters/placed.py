"""What exporters ask of a prediction: points, a pose, and whether the frame could be placed."""

import math

from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import RunError
from ttt3r.types import Prediction


def is_placed(prediction: Prediction) -> bool:
    """Whether a frame has a place in the world; its pose is not finite if it could not be placed.

    Raises:
        RunError: if the run was made without poses.
    """
    if prediction.world_from_camera is None:
        raise RunError("this run holds no poses; run again with the output 'pose'")
    return all(map(math.isfinite, prediction.world_from_camera.flatten().tolist()))


def points_of(
    prediction: Prediction,
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "height width"]]:
    """Points in the camera's frame, and their confidence.

    Raises:
        RunError: if the run was made without points.
    """
    if prediction.points is None or prediction.confidence is None:
        raise RunError("this run holds no points; run again with the output 'points'")
    return prediction.points, prediction.confidence


def no_pose() -> RunError:
    """What to raise where no frame could be placed."""
    return RunError("no frame of this run has a pose, so there is nothing to write")


def left_out_text(count: int) -> str:
    """What to add to the text on what was written, for frames without a pose."""
    return f" ({count:,} frames without a pose left out)" if count else ""
