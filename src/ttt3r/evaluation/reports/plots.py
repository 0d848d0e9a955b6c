"""Figures of evaluations: errors against length, trajectories, depth errors and clouds.

All need matplotlib, which is loaded when the first one is drawn. Files are PNG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.depth import valid_pixels
from ttt3r.evaluation.metrics.neighbours import Neighbours
from ttt3r.evaluation.metrics.trajectory import align, finite_poses
from ttt3r.evaluation.reports.figures import (
    BLACK,
    UNKNOWN,
    colour,
    new_figure,
    round_up,
)
from ttt3r.evaluation.reports.plot_lengths import plot_lengths

__all__ = ["DepthMap", "plot_clouds", "plot_depth_errors", "plot_lengths", "plot_trajectories"]

AXES = "xyz"
PANEL_WIDTH = 3.1  # inches, of one depth map
BAR_HEIGHT = 0.12  # inches, of a colour bar
MOST_COLUMNS = 480  # of a depth map that is drawn; sparse truth would vanish in larger ones
WIDE_RANGE = 8.0  # ratio of depths from which on their colours are logarithmic
SHOWN_POINTS = 40_000
# Name of a view of a cloud, its horizontal and vertical axis, and the axis it looks along.
VIEWS = (("top view", 0, 2, 1), ("front view", 0, 1, 2))


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
        errors.set(xlabel="frame", ylabel="position error (m)", xlim=(0, len(truth) - 1))
        errors.set_ylim(bottom=0.0)
        errors.set_title("distance from the true position")
        for axis in (above, errors):
            axis.grid()
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


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
    usual = float(np.percentile(relative, 90.0)) if len(relative) else 1.0
    limit = min(1.0, round_up(max(0.01, usual)))
    ratio = max(truth.shape[0] / truth.shape[1] for truth, _, _ in rows)
    height = len(rows) * (PANEL_WIDTH * ratio + 0.08) + 1.3
    with new_figure(path, title, 4 * PANEL_WIDTH, height) as figure:
        from matplotlib.colors import LogNorm, Normalize

        wide = most / least > WIDE_RANGE
        depths = _scale((LogNorm if wide else Normalize)(least, max(most, 1.001 * least)))
        errors = _scale(Normalize(0.0, limit), "inferno")
        parts = figure.add_gridspec(
            len(rows) + 1, 4, height_ratios=[*[PANEL_WIDTH * ratio] * len(rows), BAR_HEIGHT]
        )
        grid = np.array(
            [[figure.add_subplot(parts[r, c]) for c in range(4)] for r in range(len(rows))]
        )
        for axes, entry, row in zip(grid, maps, rows, strict=True):
            axes[0].imshow(entry.image)
            axes[0].set_ylabel(f"frame {entry.frame}")
            scales = (depths, depths, errors)
            for axis, values, scale in zip(axes[1:], row, scales, strict=True):
                axis.imshow(values, norm=scale.norm, cmap=scale.cmap)
            for axis in axes:
                axis.set(xticks=(), yticks=())
                axis.spines[:].set_visible(False)
        names = ("image", "true depth", "predicted depth, aligned", "relative error")
        for axis, name in zip(grid[0], names, strict=True):
            axis.set_title(name)
        bar = _bar(figure, parts[-1, 1:3], depths, "depth (m); grey is unknown", "both")
        if wide:
            _plain_ticks(bar)
        _bar(figure, parts[-1, 3], errors, "|predicted - true| / true", "max")


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
    for name, points, other in (
        ("prediction", prediction, truth),
        ("truth", truth, prediction),
    ):
        order = np.random.default_rng(0).permutation(len(points))[:SHOWN_POINTS]
        shown = points[order].astype(np.float64)
        clouds.append((name, shown, Neighbours(other.astype(np.float64)).nearest(shown)[0]))
    far = float(np.percentile(np.concatenate([distance for *_, distance in clouds]), 95.0))
    limits = _limits([points for _, points, _ in clouds])
    with new_figure(path, title, 10.5, 8.6) as figure:
        from matplotlib.colors import Normalize

        scale = _scale(Normalize(0.0, round_up(max(far, 1e-6))))
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
                axis.set(xlabel=f"{AXES[across]} (m)", ylabel=f"{AXES[up]} (m)")
                axis.set_title(f"{name}, {view}")
                axis.locator_params(nbins=6)
                axis.grid()
        grid[1, 0].invert_yaxis()  # y points down, and both share it
        bar = figure.colorbar(scale, ax=grid, location="right", shrink=0.7, aspect=35, extend="max")
        bar.set_label("distance to the nearest point of the other cloud (m)")


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


def _shrunk(entry: DepthMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, prediction and relative error, NaN where unknown, at the size of the figure.

    Blocks of pixels become the mean of those that are known, which keeps sparse truth visible.
    """
    known = valid_pixels(entry.truth)
    truth = np.where(known, entry.truth, np.nan).astype(np.float64)
    prediction = entry.prediction.astype(np.float64)
    error = np.abs(prediction - truth) / truth
    step = -(-truth.shape[1] // MOST_COLUMNS)
    good = np.where(np.isfinite(prediction), prediction, np.nan)
    return _blocks(truth, step), _blocks(good, step), _blocks(error, step)


def _blocks(values: Num[np.ndarray, "height width"], step: int) -> Num[np.ndarray, "rows columns"]:
    """Return the means of the known values of step × step pixels, NaN where there is none."""
    height, width = values.shape
    padding = [(0, -size % step) for size in (height, width)]
    blocks = np.pad(values, padding, constant_values=np.nan)
    blocks = blocks.reshape(len(blocks) // step, step, -1, step)
    known = np.isfinite(blocks)
    count = known.sum((1, 3))
    total = np.where(known, blocks, 0.0).sum((1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _scale(norm: Any, colours: str = "viridis") -> Any:
    """Return what turns numbers into colours, NaN into grey."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, colormaps[colours].with_extremes(bad=UNKNOWN))


def _bar(figure: Any, place: Any, scale: Any, label: str, extend: str) -> Any:
    """Draw a colour bar of its own, which takes no room from the maps."""
    bar = figure.colorbar(
        scale, cax=figure.add_subplot(place), orientation="horizontal", extend=extend
    )
    bar.set_label(label)
    return bar


def _plain_ticks(bar: Any) -> None:
    """Label a logarithmic bar with 1, 2 and 5 times powers of ten, written out."""
    steps = (step * 10.0**power for power in range(-4, 5) for step in (1.0, 2.0, 5.0))
    ticks = [tick for tick in steps if bar.vmin <= tick <= bar.vmax]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def _limits(clouds: Sequence[Float[np.ndarray, "_ 3"]]) -> list[tuple[float, float]]:
    """Return the range of each axis that holds nearly all points of all clouds, with a margin."""
    low = np.min([np.percentile(points, 0.5, axis=0) for points in clouds], axis=0)
    high = np.max([np.percentile(points, 99.5, axis=0) for points in clouds], axis=0)
    margin = 0.05 * float((high - low).max()) + 1e-6
    return [(float(a) - margin, float(b) + margin) for a, b in zip(low, high, strict=True)]
