"""The picture that `ttt3r run` leaves in a run, of any run and at any place."""

from pathlib import Path

from ttt3r.runs.facts import facts_of
from ttt3r.runs.reader import Run
from ttt3r.summary.picture import draw_summary, save
from ttt3r.summary.samples import Samples


def write_summary(run: Run, path: Path) -> str:
    """Draw the run in one picture: some frames, the path, points from two sides, the gate.

    Args:
        run: what of it is there is drawn; it may lack poses or points.
        path: file to write, a PNG.

    Returns:
        What was written.

    Raises:
        RunError: if a frame is damaged.
        OSError: if the file cannot be written.
    """
    samples = Samples(len(run))
    for prediction in run.stored():
        samples.add(prediction)
    facts = facts_of(run.folder.resolve().name, run.manifest, run.placement)
    save(draw_summary(samples, facts), path)
    return f"{samples.count:,} frames in one picture"
