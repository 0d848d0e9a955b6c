"""Figures: the style of all of them, errors against length, trajectories, depth and clouds.

All need matplotlib, which is loaded when the first one is drawn. Files are PNG.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from ttt3r.errors import InputError, MissingExtraError
from ttt3r.evaluation.metrics.depth import valid_pixels
from ttt3r.evaluation.metrics.neighbours import Neighbours
from ttt3r.evaluation.metrics.trajectory import align, finite_poses
from ttt3r.evaluation.reports.compare import headlines
from ttt3r.evaluation.reports.published import counterpart, origin, published_beside
from ttt3r.evaluation.reports.report import check_alike, title_of
from ttt3r.evaluation.reports.tables import frames_text, heading
from ttt3r.evaluation.results import Evaluation, Length, Metric
from ttt3r.files import write_atomically

# Distinct also to most colour-blind eyes (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
BLACK, GREY, UNKNOWN = "#222222", "#888888", "#bdbdbd"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.usetex": False,
    "text.parse_math": False,  # names of sequences may contain dollar signs
}
AXES = "xyz"
LOGARITHMIC_FROM = 8.0  # ratio of the longest to the shortest length
MARKERS = "D^sov<>pPX*"
PANEL_WIDTH = 3.1  # inches, of one depth map
MOST_COLUMNS = 480  # of a depth map that is drawn; sparse truth would vanish in larger ones
SHOWN_POINTS = 40_000
# Name of a view of a cloud, its horizontal and vertical axis, and the axis it looks along.
VIEWS = (("top view", 0, 2, 1), ("front view", 0, 1, 2))


@contextmanager
def new_figure(path: Path, title: str, width: float, height: float) -> Iterator[Any]:
    """Give an empty matplotlib figure, and write it once it is drawn.

    Args:
        path: PNG file to create or replace; folders are made.
        title: above everything.
        width: inches.
        height: inches.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "eval", "drawing figures") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # names in scripts that the font lacks become boxes
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=160))


def colour(index: int) -> str:
    """Return the colour of the index-th line."""
    return COLOURS[index % len(COLOURS)]


def plot_lengths(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw the headline metric against the length.

    Lines are means, bands the quartiles of the sequences, and hollow markers published means, where
    these are comparable.

    Args:
        evaluations: one or more that differ in rule, reset and sequences only.
        path: PNG file to write.

    Raises:
        SettingError: if there is none, or they differ in anything else.
        MissingExtraError: if matplotlib is not installed.
    """
    check_alike(evaluations)
    metric, places = headlines(evaluations[0])[0], _places(evaluations)
    with new_figure(path, title_of(evaluations), 8.6, 4.6) as figure:
        axis = figure.subplots()
        for i, evaluation in enumerate(evaluations):
            _draw_rule(axis, evaluation, metric, places, colour(i))
        _draw_published(axis, evaluations, metric, places)
        xs = sorted(places.values())
        if xs[-1] > LOGARITHMIC_FROM * xs[0]:
            axis.set_xscale("log")
        axis.set_xticks(list(places.values()), map(frames_text, places), rotation=60, fontsize=8)
        axis.minorticks_off()
        axis.set(xlabel="frames", ylabel=heading(metric))
        axis.set_ylim(bottom=0.0)
        axis.grid()
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def _places(evaluations: Sequence[Evaluation]) -> dict[Length, float]:
    """Return where each length lies on the axis: "all frames" at the longest sequence."""
    scores = [s for e in evaluations for entry in e.sequences for s in entry.scores]
    lengths = evaluations[0].settings.lengths
    longest = max([1, *(s.frames for s in scores), *(n for n in lengths if n is not None)])
    return {length: float(longest if length is None else length) for length in lengths}


def _draw_rule(
    axis: Any, evaluation: Evaluation, metric: Metric, places: dict[Length, float], tone: str
) -> None:
    """Draw means and quartiles; the label counts failures."""
    rows = []
    for length, x in places.items():
        values = [score.metrics[metric.key] for score in evaluation.scores(length).values()]
        if values:
            quartiles = np.percentile(values, (25.0, 75.0))
            rows.append((x, evaluation.mean(length).metrics[metric.key], *quartiles))
    failed = max(mean.failed for mean in evaluation.means)
    label = f"{evaluation.label}: mean" + (f", {failed} failed" if failed else "")
    if not rows:
        axis.plot([], [], color=tone, label=f"{evaluation.label}: no score")
        return
    xs, *ys = np.array(sorted(rows)).T
    mean, low, high = (metric.factor * y for y in ys)
    axis.fill_between(xs, low, high, color=tone, alpha=0.15, linewidth=0)
    axis.plot(xs, mean, color=tone, linewidth=2.2, marker="o", markersize=5, label=label)


def _draw_published(
    axis: Any, evaluations: Sequence[Evaluation], metric: Metric, places: dict[Length, float]
) -> None:
    """Draw published means, in the colour of the rule that is the same method."""
    series: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in published_beside(evaluations)[0]:
        entry = row.entry
        usual = entry.statistic == "mean" and not entry.sequences and not row.note
        if usual and metric.key in entry.metrics:
            own = counterpart(evaluations, entry)
            tone = GREY if own is None else colour(evaluations.index(own))
            point = places[row.length], metric.factor * entry.metrics[metric.key]
            series.setdefault((entry.title, origin(entry), tone), []).append(point)
    for i, ((title, source, tone), points) in enumerate(series.items()):
        axis.plot(
            *zip(*points, strict=True),
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=8,
            markerfacecolor="none",
            color=tone,
            label=f"{title}, {source}",
        )


def plot_trajectories(
    truth: Float[np.ndarray, "n 4 4"],
    estimates: Mapping[str, Float[np.ndarray, "n 4 4"]],
    path: Path,
    title: str,
) -> None:
    """Draw trajectories over the true one, and their position errors over time.

    Each is aligned by a similarity transform, and seen along the axis in which the true path
    extends least.

    Args:
        truth: true ``world_from_camera`` [n, 4, 4]; poses that are not finite are unknown.
        estimates: what to call each estimate, to its ``world_from_camera`` [n, 4, 4].
        path: PNG file to write.
        title: above everything.

    Raises:
        InputError: if no estimate can be aligned. One that cannot is named as such beside others.
        MissingExtraError: if matplotlib is not installed.
    """
    known = finite_poses(truth)
    aligned = {
        label: _aligned_positions(estimate, truth, known) for label, estimate in estimates.items()
    }
    if all(positions is None for positions in aligned.values()):
        raise InputError(
            f"no estimate of {title} can be aligned with the true trajectory, so there is nothing "
            "to draw: too few poses are known, they lie on a line, or the estimates are not finite."
        )
    positions = np.where(known[:, None], truth[:, :3, 3], np.nan).astype(np.float64)
    extent = np.nanmax(positions, axis=0) - np.nanmin(positions, axis=0)
    across, up = sorted(np.argsort(-extent, kind="stable")[:2].tolist())
    with new_figure(path, title, 11.0, 4.8) as figure:
        above, errors = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
        above.plot(*positions[:, [across, up]].T, color=BLACK, linewidth=2.4, label="true")
        start = positions[known][0]
        above.plot(start[across], start[up], "o", color=BLACK, markersize=6, label="start")
        for i, (label, estimate) in enumerate(aligned.items()):
            if estimate is None:
                above.plot([], [], color=colour(i), label=f"{label}: cannot be aligned")
                continue
            distance = np.linalg.norm(estimate - positions, axis=-1)
            rms = float(np.sqrt(np.nanmean(np.square(distance))))
            style = {"color": colour(i), "linewidth": 1.3}
            above.plot(*estimate[:, [across, up]].T, label=f"{label}: ATE {rms:.3f} m", **style)
            errors.plot(distance, **style)
        above.set(xlabel=f"{AXES[across]} (m)", ylabel=f"{AXES[up]} (m)")
        above.set_title("positions after Sim(3) alignment")
        above.set_aspect("equal", adjustable="datalim")
        errors.set(xlabel="frame", ylabel="distance from the true position (m)")
        errors.set_ylim(bottom=0.0)
        above.grid()
        errors.grid()
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


def _aligned_positions(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "n 4 4"],
    known: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, "n 3"] | None:
    """Return positions in the true world; None where no alignment is defined."""
    try:
        similarity = align(estimate, truth, "sim3", known)
    except InputError:
        return None
    return estimate[:, :3, 3] @ similarity[:3, :3].T + similarity[:3, 3]


@dataclass(frozen=True)
class DepthMap:
    """True and predicted depth of one frame.

    Attributes:
        frame: its index.
        image: RGB, of any size.
        truth: true depth, metres; what is not positive and finite is unknown.
        prediction: predicted depth after alignment, metres.
    """

    frame: int
    image: UInt8[np.ndarray, "rows columns 3"]
    truth: Float[np.ndarray, "height width"]
    prediction: Float[np.ndarray, "height width"]


def plot_depth_errors(maps: Sequence[DepthMap], path: Path, title: str) -> None:
    """Draw rows of image, true depth, predicted depth and relative error |p - g| / g.

    All rows share their colour scales. Unknown depth is grey.

    Args:
        maps: a few frames.
        path: PNG file to write.
        title: above everything.

    Raises:
        InputError: if there is no map, or no true depth in any of them.
        MissingExtraError: if matplotlib is not installed.
    """
    rows = [_shrunk(entry) for entry in maps]
    known = np.concatenate([truth[~np.isnan(truth)] for truth, _, _ in rows] or [np.zeros(0)])
    if not len(known):
        raise InputError(f"no true depth of {title} is known, so there is no error to draw")
    least, most = (float(v) for v in np.percentile(known, (1.0, 99.0)))
    relative = np.concatenate([error[~np.isnan(error)] for _, _, error in rows])
    limit = float(np.percentile(relative, 90.0)) if len(relative) else 1.0
    ratio = max(truth.shape[0] / truth.shape[1] for truth, _, _ in rows)
    height = len(rows) * (PANEL_WIDTH * ratio + 0.08) + 1.3
    with new_figure(path, title, 4 * PANEL_WIDTH, height) as figure:
        depths = _scale(least, max(most, 1.001 * least))
        errors = _scale(0.0, min(1.0, max(0.01, limit)), "inferno")
        grid = figure.subplots(len(rows), 4, squeeze=False)
        for axes, entry, row in zip(grid, maps, rows, strict=True):
            axes[0].imshow(entry.image)
            axes[0].set_ylabel(f"frame {entry.frame}")
            for axis, values, scale in zip(axes[1:], row, (depths, depths, errors), strict=True):
                axis.imshow(values, norm=scale.norm, cmap=scale.cmap)
            for axis in axes:
                axis.set(xticks=(), yticks=())
                axis.spines[:].set_visible(False)
        names = ("image", "true depth", "predicted depth, aligned", "relative error")
        for axis, name in zip(grid[0], names, strict=True):
            axis.set_title(name)
        bar = {"location": "bottom", "aspect": 40, "pad": 0.02}
        figure.colorbar(
            depths, ax=grid[:, 1:3], extend="both", label="depth (m); grey is unknown", **bar
        )
        figure.colorbar(
            errors, ax=grid[:, 3], extend="max", label="|predicted - true| / true", **bar
        )


def _shrunk(entry: DepthMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, prediction and relative error, NaN where unknown, at the size of the figure.

    Blocks of pixels become the mean of those that are known, which keeps sparse truth visible.
    """
    truth = np.where(valid_pixels(entry.truth), entry.truth, np.nan).astype(np.float64)
    prediction = entry.prediction.astype(np.float64)
    step = -(-truth.shape[1] // MOST_COLUMNS)
    error = np.abs(prediction - truth) / truth
    return _blocks(truth, step), _blocks(prediction, step), _blocks(error, step)


def _blocks(values: Num[np.ndarray, "height width"], step: int) -> Num[np.ndarray, "rows columns"]:
    """Return the means of the known values of step × step pixels, NaN where there is none."""
    padding = [(0, -size % step) for size in values.shape]
    blocks = np.pad(values, padding, constant_values=np.nan)
    blocks = blocks.reshape(len(blocks) // step, step, -1, step)
    with warnings.catch_warnings():  # of blocks in which nothing is known
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(np.where(np.isfinite(blocks), blocks, np.nan), axis=(1, 3))


def plot_clouds(
    prediction: Float[np.ndarray, "k 3"],
    truth: Float[np.ndarray, "m 3"],
    path: Path,
    title: str,
) -> None:
    """Draw both clouds from the top and from the front, coloured by the distance to the other.

    The axes are those of a camera: x to the right, y down, z forward. The top view looks along y,
    the front view along z. Distances are to the points given, so sparse clouds look worse than
    dense ones.

    Args:
        prediction: predicted points, aligned.
        truth: true points.
        path: PNG file to write.
        title: above everything.

    Raises:
        InputError: if a cloud is empty or not finite.
        MissingExtraError: if matplotlib or scipy is not installed.
    """
    for name, points in (("predicted", prediction), ("true", truth)):
        if not len(points) or not np.isfinite(points).all():
            raise InputError(f"the {name} cloud of {title} is empty or not finite; nothing to draw")
    clouds = []
    for name, points, other in (("prediction", prediction, truth), ("truth", truth, prediction)):
        order = np.random.default_rng(0).permutation(len(points))[:SHOWN_POINTS]
        shown = points[order].astype(np.float64)
        clouds.append((name, shown, Neighbours(other.astype(np.float64)).nearest(shown)[0]))
    far = float(np.percentile(np.concatenate([distance for *_, distance in clouds]), 95.0))
    limits = _limits([points for _, points, _ in clouds])
    with new_figure(path, title, 10.5, 8.6) as figure:
        scale = _scale(0.0, max(far, 1e-6))
        grid = figure.subplots(2, 2, sharex="row", sharey="row")
        for axes, (view, across, up, along) in zip(grid, VIEWS, strict=True):
            for axis, (name, points, distance) in zip(axes, clouds, strict=True):
                nearer_last = np.argsort(-points[:, along])
                axis.scatter(
                    *points[nearer_last][:, [across, up]].T,
                    c=distance[nearer_last],
                    s=2.0,
                    linewidths=0,
                    norm=scale.norm,
                    cmap=scale.cmap,
                )
                axis.set(xlim=limits[across], ylim=limits[up], aspect="equal")
                axis.set(xlabel=f"{AXES[across]} (m)", title=f"{name}, {view}")
                axis.set_ylabel(f"{AXES[up]} (m)")
                axis.grid()
        grid[1, 0].invert_yaxis()  # y points down, and both share it
        label = "distance to the nearest point of the other cloud (m)"
        figure.colorbar(scale, ax=grid, shrink=0.7, aspect=35, extend="max", label=label)


def _scale(least: float, most: float, colours: str = "viridis") -> Any:
    """Return what turns numbers into colours, NaN into grey."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(least, most), colormaps[colours].with_extremes(bad=UNKNOWN))


def _limits(clouds: Sequence[Float[np.ndarray, "_ 3"]]) -> list[tuple[float, float]]:
    """Return the range of each axis that holds nearly all points of all clouds, with a margin."""
    low = np.min([np.percentile(points, 0.5, axis=0) for points in clouds], axis=0)
    high = np.max([np.percentile(points, 99.5, axis=0) for points in clouds], axis=0)
    margin = 0.05 * float((high - low).max()) + 1e-6
    return [(float(a) - margin, float(b) + margin) for a, b in zip(low, high, strict=True)]
