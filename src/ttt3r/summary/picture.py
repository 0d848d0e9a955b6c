"""The whole picture: a head with the facts of the run, and the panels below each other."""

from pathlib import Path

import numpy as np
from PIL import Image

from ttt3r.errors import RunError
from ttt3r.files import write_atomically
from ttt3r.runs.facts import Facts, facts_of
from ttt3r.runs.reader import Run
from ttt3r.summary.canvas import (
    INNER,
    MARGIN,
    PAPER,
    QUIET,
    SMALL,
    TITLE,
    WARNING,
    WIDTH,
    Panel,
    shortened,
    write,
)
from ttt3r.summary.gates import gates
from ttt3r.summary.samples import Samples, read_samples
from ttt3r.summary.strips import strips
from ttt3r.summary.views import views

SPACE = 18  # pixels between panels


def draw_summary(samples: Samples, facts: Facts) -> Image.Image:
    """Draw the picture of a run, 1600 pixels wide.

    Args:
        samples: of the run, at least one frame.
        facts: what its head says.
    """
    panels = [_head(samples, facts), *strips(samples, facts.unit), views(samples, facts.unit)]
    panels.append(gates(samples))
    height = sum(panel.image.height + SPACE for panel in panels) + 2 * MARGIN - SPACE
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    top = MARGIN
    for panel in panels:
        picture.paste(panel.image, (MARGIN, top))
        top += panel.image.height + SPACE
    return picture


def _head(samples: Samples, facts: Facts) -> Panel:
    panel = Panel(Image.new("RGB", (INNER, 96 if facts.warning else 66), PAPER))
    draw = panel.draw()
    write(draw, (0, 0), shortened(facts.title, TITLE, INNER), TITLE)
    words = [f"{samples.count:,} frame{'s' * (samples.count != 1)}"]
    first = samples.moments[0].timestamp
    if samples.last_timestamp > first:
        words.append(f"{samples.last_timestamp - first:.1f} s")
    length = path_length(samples)
    if length is not None:
        words.append(f"path {length:.3g} {facts.unit}")
    text = "   ·   ".join([*words, *facts.lines])
    write(draw, (0, 42), shortened(text, SMALL + 2, INNER), SMALL + 2, QUIET)
    if facts.warning:
        write(draw, (0, 72), facts.warning, SMALL + 2, WARNING)
    return panel


def write_summary(run: Run, path: Path) -> None:
    """Draw the picture of a run folder and write it atomically; `path` ends in .png.

    Raises:
        RunError: if the run holds no frames, or one is damaged.
        OSError: if the picture cannot be written.
    """
    if len(run) == 0:
        raise RunError("the run holds no frames yet, so there is nothing to draw")
    facts = facts_of(run.folder.resolve().name, run.manifest, run.placement)
    picture = draw_summary(read_samples(run.upright()), facts)
    write_atomically(path, lambda file: save(picture, file))


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, quickly rather than small.

    Raises:
        OSError: if it cannot be written.
    """
    picture.save(path, "PNG", compress_level=2)


def path_length(samples: Samples) -> float | None:
    """Length of the way between the kept poses, in the run's unit; None without poses."""
    poses = [moment.world_from_camera for moment in samples.moments]
    centres = np.array([p[:3, 3] for p in poses if p is not None and np.isfinite(p).all()])
    if len(centres) < 2:
        return None
    return float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())
