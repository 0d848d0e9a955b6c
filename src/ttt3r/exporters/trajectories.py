"""Camera paths as text, one pose per line: TUM RGB-D, KITTI odometry and EuRoC."""

from collections.abc import Callable, Iterable
from pathlib import Path

from ttt3r.exporters.placed import is_placed, left_out_text, no_pose
from ttt3r.geometry.rotation import quaternion_from_matrix
from ttt3r.runs.trajectory import tum_line
from ttt3r.types import Prediction

EUROC_HEAD = (
    "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],"
    "q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []\n"
)


def write_tum(predictions: Iterable[Prediction], path: Path) -> str:
    """Write `timestamp tx ty tz qx qy qz qw` for each frame: world from camera, seconds.

    Lengths are in the run's unit. A frame that could not be placed has no line.

    Args:
        predictions: with poses.
        path: file to write.

    Returns:
        What was written.

    Raises:
        RunError: if there are no poses, or no frame could be placed.
        OSError: if the file cannot be written.
    """
    return _write(predictions, path, _tum)


def write_kitti(predictions: Iterable[Prediction], path: Path) -> str:
    """Write the first three rows of ``world_from_camera`` for each frame, as KITTI's odometry has.

    There are no stamps, so line i is frame i only if every frame could be placed: one that could
    not has no line. See `write_tum` for arguments, result and errors.
    """
    return _write(predictions, path, _kitti)


def write_euroc(predictions: Iterable[Prediction], path: Path) -> str:
    """Write nanoseconds, position and quaternion (w first) for each frame, as EuRoC's CSV has.

    A frame that could not be placed has no line. See `write_tum` for arguments, result and errors.
    """
    return _write(predictions, path, _euroc, EUROC_HEAD)


def _write(
    predictions: Iterable[Prediction],
    path: Path,
    line_of: Callable[[Prediction], str],
    head: str = "",
) -> str:
    count = left_out = 0
    with path.open("w", encoding="ascii", newline="\n") as stream:
        stream.write(head)
        for prediction in predictions:
            if is_placed(prediction):
                stream.write(line_of(prediction))
                count += 1
            else:
                left_out += 1
    if count == 0:
        raise no_pose()
    return f"{count:,} poses{left_out_text(left_out)}"


def _tum(prediction: Prediction) -> str:
    assert prediction.world_from_camera is not None
    return tum_line(prediction.timestamp, prediction.world_from_camera)


def _kitti(prediction: Prediction) -> str:
    assert prediction.world_from_camera is not None
    numbers = prediction.world_from_camera[:3].flatten().tolist()
    return " ".join(f"{number:.9g}" for number in numbers) + "\n"


def _euroc(prediction: Prediction) -> str:
    assert prediction.world_from_camera is not None
    pose = prediction.world_from_camera.double()
    numbers = [*pose[:3, 3].tolist(), *quaternion_from_matrix(pose[:3, :3]).tolist()]
    stamp = round(prediction.timestamp * 1e9)
    return ",".join([str(stamp), *(f"{number:.9g}" for number in numbers)]) + "\n"
