"""Draw the figures of an evaluation and write its report, from what lies in its folder."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

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
from ttt3r.evaluation.store import (
    CLOUDS,
    LENGTHS,
    MAPS,
    PLOTS,
    REPORTS,
    SEQUENCES,
    evaluations_in,
    explained,
    slug,
)
from ttt3r.evaluation.tasks.pose import read_trajectories
from ttt3r.files import write_atomically

LOG = logging.getLogger(__name__)

Figure = Callable[[], list[Path]]


def publish(folder: Path) -> list[Evaluation]:
    """Write `summary.md`, `summary.tex` and `plots/` of all rules in a folder.

    A figure that cannot be drawn, for want of matplotlib or of what it shows, is left out with a
    warning; the report never is.

    Returns:
        What the report is about, one entry per rule.

    Raises:
        RunError: if a summary is damaged or something cannot be written.
    """
    evaluations = evaluations_in(folder)
    with explained(folder):
        (folder / PLOTS).mkdir(exist_ok=True)
        _write(folder, evaluations, [])
        drawn = []
        try:
            for draw in _figures(folder, evaluations):
                drawn += _drawn(draw)
        except MissingExtraError as error:
            LOG.warning("the report has no figures: %s", error)
        if drawn:
            _write(folder, evaluations, [path.relative_to(folder) for path in drawn])
    return evaluations


def _write(folder: Path, evaluations: Sequence[Evaluation], plots: Sequence[Path]) -> None:
    texts = (markdown(evaluations, plots), latex(evaluations))
    for name, text in zip(REPORTS, texts, strict=True):
        write_atomically(folder / name, lambda path, text=text: path.write_text(text, "utf-8"))


def _drawn(draw: Figure) -> list[Path]:
    try:
        return draw()
    except MissingExtraError:
        raise
    except (InputError, ValueError, EOFError, KeyError, BadZipFile, FileNotFoundError) as error:
        LOG.warning("a figure is missing: %s", error)
        return []


def _figures(folder: Path, evaluations: Sequence[Evaluation]) -> Iterator[Figure]:
    """Functions that draw one figure each and return where it is, if there is one to draw."""
    settings = evaluations[0].settings
    if len(settings.lengths) > 1:
        yield partial(_draw_lengths, evaluations, folder / PLOTS / LENGTHS)
    for name in settings.sequences:
        path = folder / PLOTS / f"{slug(name)}.png"
        folders = {
            e.label: folder / slug(e.label) / SEQUENCES / slug(name)
            for e in evaluations
            if any(scores.sequence == name for scores in e.sequences)
        }
        if settings.task == "pose":
            yield partial(_draw_trajectories, folders, path, name)
            continue
        draw = _draw_depth if settings.task == "depth" else _draw_clouds
        for label, kept in folders.items():
            one = path if len(folders) == 1 else path.with_stem(f"{path.stem}-{slug(label)}")
            yield partial(draw, kept, one, f"{name}, {label}")


def _draw_lengths(evaluations: Sequence[Evaluation], path: Path) -> list[Path]:
    plot_lengths(evaluations, path)
    return [path]


def _draw_trajectories(folders: dict[str, Path], path: Path, name: str) -> list[Path]:
    read = {label: read_trajectories(folder) for label, folder in folders.items()}
    estimates = {
        label: estimate for label, (estimate, _) in read.items() if np.isfinite(estimate).all()
    }
    if not estimates:
        return []
    plot_trajectories(next(iter(read.values()))[1], estimates, path, name)
    return [path]


def _draw_depth(folder: Path, path: Path, title: str) -> list[Path]:
    if not (folder / MAPS).exists():
        return []
    with np.load(folder / MAPS) as kept:
        maps = [
            DepthMap(i, *(kept[f"{what}_{i}"] for what in ("image", "truth", "prediction")))
            for i in kept["frames"].tolist()
            if (kept[f"truth_{i}"] > 0).any()
        ]
    if not maps:
        return []
    plot_depth_errors(maps, path, title)
    return [path]


def _draw_clouds(folder: Path, path: Path, title: str) -> list[Path]:
    if not (folder / CLOUDS).exists():
        return []
    with np.load(folder / CLOUDS) as kept:
        plot_clouds(kept["prediction"], kept["truth"], path, title)
    return [path]
