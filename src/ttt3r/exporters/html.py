"""One page that shows a run in any browser, from a disk and without a network."""

import math
from dataclasses import replace
from pathlib import Path

from ttt3r.errors import RunError, SettingError
from ttt3r.exporters.placed import is_placed, left_out_text, no_pose, points_of
from ttt3r.files import bytes_text
from ttt3r.runs.facts import facts_of
from ttt3r.runs.reader import TRACE, Run
from ttt3r.trace.report import verdict
from ttt3r.trace.trace import Trace
from ttt3r.viewer.page import packed, page
from ttt3r.viewer.scene import Limits, Picture, Points, Scene
from ttt3r.viewer.wire import BYTES_PER_POINT

LEAST = 0.5  # MB; the page alone takes a tenth of it
TEXT = 4 / 3  # bytes of text for a byte of content
PICTURES = 0.4  # most of the content that pictures may take
PICTURE = 10_000  # bytes that one may take, about, at the first size tried


def write_html(run: Run, path: Path, *, max_megabytes: float = 14.0) -> str:
    """Write a page that shows points, path and images; the largest part in memory is the page.

    Args:
        run: with points and poses.
        path: file to write.
        max_megabytes: size that the page may have; points and images are thinned to fit.

    Returns:
        What was written.

    Raises:
        SettingError: if the size makes no sense.
        RunError: if the run holds no points or poses, no frame has a place, or the run's trace is
            damaged.
        OSError: if the file cannot be written.
    """
    if not (math.isfinite(max_megabytes) and max_megabytes >= LEAST):
        raise SettingError(f"max_megabytes must be at least {LEAST:g}, not {max_megabytes:g}")
    content = (max_megabytes - 0.1) * 1e6 / TEXT
    scene = Scene(_limits(len(run), content))
    placed = False
    for prediction in run:
        placed |= is_placed(prediction)
        points_of(prediction)
        scene.add(prediction)
    if not placed:
        raise no_pose()
    facts = facts_of(run.folder.resolve().name, run.manifest, run.placement)
    if (run.folder / TRACE).exists():
        _, health = verdict(Trace.read(run.folder / TRACE))
        facts = replace(facts, lines=(*facts.lines, health))
    path.write_bytes(page(facts, scene, content=_fitted(scene, content * TEXT)))
    count = sum(len(node.levels) for node in scene.nodes().values() if isinstance(node, Points))
    return f"{count:,} points{left_out_text(scene.unplaced)}"


def _limits(frames: int, content: float) -> Limits:
    """How much fits, to begin with."""
    images = max(1, min(frames, 300, int(PICTURES * content / PICTURE)))
    rest = max(content - images * PICTURE, content * (1 - PICTURES))
    return Limits(points=max(1000, int(rest / BYTES_PER_POINT)), images=images)


def _fitted(scene: Scene, most: float) -> bytes:
    """The scene for the page, thinned until it has at most so many bytes."""
    while len(content := packed(scene)) > most:
        nodes = scene.nodes().values()
        pictures = [len(node.jpeg) for node in nodes if isinstance(node, Picture)]
        points = sum(len(node.levels) for node in nodes if isinstance(node, Points))
        if len(pictures) > 1 and sum(pictures) * TEXT > PICTURES * most:
            scene.leave_out_pictures()
        elif points < 100:
            raise RunError(
                f"the page does not fit into {bytes_text(int(most))}; give it more: --max-megabytes"
            )
        else:
            scene.shrink(int(points * 0.9 * most / len(content)))
    return content
