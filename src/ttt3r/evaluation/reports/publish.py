"""Draw the figures of an evaluation and write its report, from what lies in its folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ttt3r.errors import InputError, MissingExtraError
from ttt3r.evaluation.reports.plot_lengths import plot_lengths
from ttt3r.evaluation.reports.plots import (
    DepthMap,
    plot_clouds,
    plot_depth_errors,
    plot_trajectories,
)
from ttt3r.evaluation.reports.report import latex, markdown
from ttt3r.evaluation.results import Evaluation
from ttt3r.evaluation.store import PLOTS, REPORTS, SEQUENCES, evaluations_in, explained, slug
from ttt3r.evaluation.tasks.depth import MAPS
from ttt3r.evaluation.tasks.pose import read_trajectories
from ttt3r.evaluation.tasks.recon import CLOUDS
from ttt3r.files import write_atomically

LOG = logging.getLogger(__name__)


def publish(folder: Path) -> list[Evaluation]:
    """Write `summary.md`, `summary.tex` and `plots/` of all rules in a folder.

    Without matplotlib the report has no figures, and a warning says how to get them.

    Returns:
        What the report is about, one entry per rule.

    Raises:
        RunError: if a summary is damaged or something cannot be written.
    """
    evaluations = evaluations_in(folder)
    with explained(folder):
        (folder / PLOTS).mkdir(exist_ok=True)
        try:
            plots = [path.relative_to(folder) for path in _draw(folder, evaluations)]
        except MissingExtraError as error:
            LOG.warning("the report has no figures: %s", error)
            plots = []
        for name, text in zip(
            REPORTS, (markdown(evaluations, plots), latex(evaluations)), strict=True
        ):
            write_atomically(folder / name, lambda path, text=text: path.write_text(text, "utf-8"))
    return evaluations


def _draw(folder: Path, evaluations: Sequence[Evaluation]) -> list[Path]:
    settings = evaluations[0].settings
    drawn = []
    if len(settings.lengths) > 1:
        drawn.append(folder / PLOTS / "lengths.png")
        plot_lengths(evaluations, drawn[-1])
    for name in settings.sequences:
        path = folder / PLOTS / f"{slug(name)}.png"
        folders = {
            e.label: folder / slug(e.label) / SEQUENCES / slug(name)
            for e in evaluations
            if any(scores.sequence == name for scores in e.sequences)
        }
        if settings.task == "pose":
            drawn += _draw_trajectories(folders, path, name)
        else:
            draw = _draw_depth if settings.task == "depth" else _draw_clouds
            for label, kept in folders.items():
                one = path if len(folders) == 1 else path.with_stem(f"{path.stem}-{slug(label)}")
                drawn += draw(kept, one, f"{name}, {label}")
    return drawn


def _draw_trajectories(folders: dict[str, Path], path: Path, name: str) -> list[Path]:
    read = {label: read_trajectories(folder) for label, folder in folders.items()}
    estimates = {
        label: estimate for label, (estimate, _) in read.items() if np.isfinite(estimate).all()
    }
    if not estimates:
        return []
    try:
        plot_trajectories(next(iter(read.values()))[1], estimates, path, name)
    except InputError:  # too few true poses to align with; the tables say so
        return []
    return [path]


def _draw_depth(folder: Path, path: Path, title: str) -> list[Path]:
    if not (folder / MAPS).exists():
        return []
    with np.load(folder / MAPS) as kept:
        maps = [
            DepthMap(int(frame), image, truth, prediction)
            for frame, image, truth, prediction in zip(
                kept["frame"], kept["image"], kept["truth"], kept["prediction"], strict=True
            )
        ]
    plot_depth_errors(maps, path, title)
    return [path]


def _draw_clouds(folder: Path, path: Path, title: str) -> list[Path]:
    if not (folder / CLOUDS).exists():
        return []
    with np.load(folder / CLOUDS) as kept:
        plot_clouds(kept["prediction"], kept["truth"], path, title)
    return [path]
