"""Draw the figures of an evaluation and write its report, from what lies in its folder."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ttt3r.errors import InputError, MissingExtraError
from ttt3r.evaluation.reports import figures
from ttt3r.evaluation.reports.report import latex, markdown, names_of
from ttt3r.evaluation.results import Evaluation, Score
from ttt3r.evaluation.store import (
    CLOUDS,
    ESTIMATE,
    LENGTHS,
    MAPS,
    PLOTS,
    REPORTS,
    SEQUENCES,
    TRUTH,
    evaluations_in,
    explained,
    slug,
)
from ttt3r.evaluation.text import read_tum
from ttt3r.files import write_atomically, write_text

LOG = logging.getLogger(__name__)


def publish(folder: Path) -> list[Evaluation]:
    """Write `summary.md`, `summary.tex` and `plots/` of all rules in a folder.

    A figure that cannot be drawn, because matplotlib or its data are missing, is left out with a
    warning. The report is always written.

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
            for path, draw in _figures(folder, evaluations):
                if _drawn(draw, path):
                    drawn.append(path.relative_to(folder))
        except MissingExtraError as error:
            LOG.warning("the report has no figures: %s", error)
        if drawn:
            _write(folder, evaluations, drawn)
    return evaluations


def _write(folder: Path, evaluations: Sequence[Evaluation], plots: Sequence[Path]) -> None:
    texts = (markdown(evaluations, plots), latex(evaluations))
    for name, text in zip(REPORTS, texts, strict=True):
        write_atomically(folder / name, lambda path, text=text: write_text(path, text))


def _drawn(draw: Callable[[Path], object], path: Path) -> bool:
    try:
        return draw(path) is not False
    except MissingExtraError:
        raise
    except (InputError, ValueError, EOFError, KeyError, BadZipFile, FileNotFoundError) as error:
        LOG.warning("a figure is missing: %s", error)
        return False


def _figures(
    folder: Path, evaluations: Sequence[Evaluation]
) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Return the path of every figure, and what draws it; sequences without a score have none."""
    settings = evaluations[0].settings
    if len(settings.lengths) > 1:
        yield folder / PLOTS / LENGTHS, lambda path: figures.plot_lengths(evaluations, path)
    for name in names_of(evaluations):
        path = folder / PLOTS / f"{slug(name)}.png"
        kept = {
            e.label: folder / slug(e.label) / SEQUENCES / slug(name)
            for e in evaluations
            if any(score and score.status == "ok" for score in _scores(e, name))
        }
        if settings.task == "pose" and kept:
            yield path, partial(_draw_trajectories, kept, name)
        elif settings.task != "pose":
            draw = _draw_depth if settings.task == "depth" else _draw_clouds
            for label, one in kept.items():
                own = path if len(kept) == 1 else path.with_stem(f"{path.stem}-{slug(label)}")
                yield own, partial(draw, one, f"{name}, {label}")


def _scores(evaluation: Evaluation, name: str) -> list[Score | None]:
    return [evaluation.score(name, length) for length in evaluation.settings.lengths]


def _draw_trajectories(kept: dict[str, Path], name: str, path: Path) -> None:
    estimates = {label: read_tum(folder / ESTIMATE)[1] for label, folder in kept.items()}
    truth = read_tum(next(iter(kept.values())) / TRUTH)[1]
    figures.plot_trajectories(truth, estimates, path, name)


def _draw_depth(folder: Path, title: str, path: Path) -> bool:
    """Draw the frames that have true depth; say whether there is one."""
    with np.load(folder / MAPS) as kept:
        maps = [
            figures.DepthMap(i, *(kept[f"{what}_{i}"] for what in ("image", "truth", "prediction")))
            for i in kept["frames"].tolist()
            if (kept[f"truth_{i}"] > 0).any()
        ]
    if maps:
        figures.plot_depth_errors(maps, path, title)
    return bool(maps)


def _draw_clouds(folder: Path, title: str, path: Path) -> None:
    with np.load(folder / CLOUDS) as kept:
        figures.plot_clouds(kept["prediction"], kept["truth"], path, title)
