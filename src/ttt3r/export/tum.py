"""The trajectory as text, one `timestamp tx ty tz qx qy qz qw` per line (TUM RGB-D format)."""

from pathlib import Path

from ttt3r.files import write_atomically
from ttt3r.stream.run import Run


def write_tum(run: Run, path: Path) -> str:
    """Write the camera poses, world from camera, in the run's units and seconds.

    Returns:
        What was written.

    Raises:
        RunError: if the run holds no poses.
        OSError: if the file cannot be written.
    """
    trajectory = run.trajectory()
    text = trajectory.to_tum()
    write_atomically(path, lambda file: file.write_text(text, encoding="ascii", newline="\n"))
    return f"{len(trajectory):,} poses"
