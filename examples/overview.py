"""Draws a run beside the truth: input, depth, true depth, the path from above, and the points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from examples.compare import Record
from ttt3r import Prediction, Run
from ttt3r.errors import InputError
from ttt3r.evaluation.metrics.trajectory import align

TILE, GAP, LABEL = (240, 180), 14, 26
INK, PAPER, PATH, TRUTH = (30, 34, 40), (250, 250, 248), (214, 84, 40), (40, 120, 200)
STOPS = np.array([[250, 230, 90], [150, 205, 90], [52, 160, 150], [62, 88, 160], [28, 22, 78]])


def colourise(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map depths [h, w] to RGB: yellow is near, dark blue far; unknown is grey."""
    known = np.isfinite(depth) & (depth > 0)
    t = np.log(np.where(known, depth, low) / low) / np.log(high / low)
    position = np.clip(t, 0, 1)[..., None] * (len(STOPS) - 1)
    index = np.minimum(position[..., 0].astype(int), len(STOPS) - 2)
    share = position - index[..., None]
    colours = STOPS[index] * (1 - share) + STOPS[index + 1] * share
    return np.where(known[..., None], colours, 200).astype(np.uint8)


def tile(rgb: np.ndarray) -> Image.Image:
    """Fit an RGB array into a tile, with paper around it."""
    return ImageOps.pad(Image.fromarray(rgb), TILE, Image.Resampling.NEAREST, color=PAPER)


def paths_from_above(estimate: np.ndarray, truth: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw two camera paths [n, 3] seen against the y axis; the start is a filled circle."""
    canvas = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    flat = [path[:, [0, 2]] * (1, -1) for path in (truth, estimate)]
    both = np.concatenate(flat)
    centre, extent = (both.min(0) + both.max(0)) / 2, max(float(np.ptp(both, axis=0).max()), 1e-6)
    for path, colour in zip(flat, (TRUTH, PATH), strict=True):
        points = [tuple(p) for p in (path - centre) / extent * 0.8 * min(size) + np.array(size) / 2]
        draw.line(points, fill=colour, width=3)
        (x, y), radius = points[0], 5
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    font = ImageFont.load_default(14)
    draw.text((8, 6), "truth", fill=TRUTH, font=font)
    draw.text((56, 6), "this run", fill=PATH, font=font)
    draw.text((8, size[1] - 24), f"{extent:.3g} m across", fill=INK, font=font)
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(210, 210, 206))
    return canvas


def points_from_behind(
    predictions: Sequence[Prediction], poses: np.ndarray, size: tuple[int, int]
) -> Image.Image:
    """Draw the points of some frames as a viewer behind and above the first camera sees them."""
    width, height = size
    clouds, colours = [], []
    for prediction, pose in zip(predictions, poses, strict=True):
        assert prediction.points is not None and prediction.image is not None
        points = prediction.points.numpy().reshape(-1, 3)
        clouds.append(points @ pose[:3, :3].T + pose[:3, 3])
        colours.append(prediction.image.numpy().reshape(-1, 3))
    cloud, colour = np.concatenate(clouds), np.concatenate(colours)
    reach = float(np.median(np.linalg.norm(cloud, axis=1)))
    tilt = np.radians(18)
    seen = cloud - np.array([0.0, -0.45, -0.7]) * reach
    y = seen[:, 1] * np.cos(tilt) - seen[:, 2] * np.sin(tilt)
    z = seen[:, 1] * np.sin(tilt) + seen[:, 2] * np.cos(tilt)
    order = np.argsort(-z)
    order = order[z[order] > 0.1 * reach]
    u = (seen[order, 0] / z[order] * 0.75 * width + width / 2).astype(int)
    v = (y[order] / z[order] * 0.75 * width + height / 2).astype(int)
    canvas = np.full((height, width, 3), 255, np.uint8)
    inside = (u >= 1) & (u < width - 1) & (v >= 1) & (v < height - 1)
    for down in (0, 1):
        for right in (0, 1):
            canvas[v[inside] + down, u[inside] + right] = colour[order][inside]
    return Image.fromarray(canvas)


def draw_overview(run: Run, record: Record, path: Path, title: str, columns: int = 4) -> None:
    """Write the picture of a run and the truth about it to `path`."""
    chosen = [round(i) for i in np.linspace(0, len(run) - 1, columns)]
    depths = [record.true_depth[i] for i in chosen]
    known = np.concatenate([depth[depth > 0] for depth in depths])
    low, high = np.percentile(known, (1, 99)) if len(known) else (1.0, 10.0)
    predictions = [run[i] for i in chosen]
    affine = record.scaled_errors().affine
    scale = 1.0 if affine is None else affine.scale
    rows = {
        "input": [p.image.numpy() for p in predictions if p.image is not None],
        f"depth of this run, times {scale:.2f}": [
            colourise(scale * p.depth.numpy(), low, high)
            for p in predictions
            if p.depth is not None
        ],
        f"true depth, {low:.1f} m (yellow) to {high:.1f} m (blue)": [
            colourise(depth, low, high) for depth in depths
        ],
    }
    step_x, step_y = TILE[0] + GAP, TILE[1] + LABEL
    left, top = GAP + columns * step_x, GAP + LABEL
    side = (2 * TILE[0] - 60, (len(rows) * step_y - 2 * LABEL) // 2)
    size = (left + side[0] + GAP, top + len(rows) * step_y + GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    font, bold = ImageFont.load_default(15), ImageFont.load_default(18)
    draw.text((GAP, GAP), title, fill=INK, font=bold)
    for row, (name, pictures) in enumerate(rows.items()):
        y = top + row * step_y
        draw.text((GAP, y + 4), name, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            canvas.paste(tile(picture), (GAP + column * step_x, y + LABEL))
    paths = _paths(record)
    draw.text((left, top + 4), "camera path from above, after Sim(3)", fill=INK, font=font)
    canvas.paste(paths_from_above(*paths, side), (left, top + LABEL))
    below = top + side[1] + LABEL
    draw.text((left, below + 4), "points of this run", fill=INK, font=font)
    some = list(range(0, len(run), max(1, len(run) // 12)))
    cloud = points_from_behind([run[i] for i in some], record.estimate[some], side)
    canvas.paste(cloud, (left, below + LABEL))
    canvas.save(path)


def _paths(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Estimated camera centres, moved onto the true ones as well as a similarity can, and those."""
    estimate, truth = record.estimate[:, :3, 3], record.truth[:, :3, 3]
    try:
        best = align(record.estimate, record.truth)
    except InputError:  # the path is a point or a line
        return estimate, truth
    return estimate @ best[:3, :3].T + best[:3, 3], truth
