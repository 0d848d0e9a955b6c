"""Draws what a run holds into one picture: input, depth, confidence, and the path from above."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ttt3r import Run

TILE, GAP, LABEL = (240, 180), 14, 26
INK, PAPER, PATH = (30, 34, 40), (250, 250, 248), (214, 84, 40)


def colourise(values: np.ndarray) -> np.ndarray:
    """Map a float map [h, w] to RGB, dark blue for its 2nd and yellow for its 98th percentile."""
    low, high = np.percentile(values[np.isfinite(values)], (2, 98))
    t = np.clip((values - low) / max(high - low, 1e-9), 0, 1)[..., None]
    stops = np.array([[28, 22, 78], [62, 88, 160], [52, 160, 150], [150, 205, 90], [250, 230, 90]])
    position = np.nan_to_num(t[..., 0]) * (len(stops) - 1)
    index = np.minimum(position.astype(int), len(stops) - 2)
    share = (position - index)[..., None]
    return (stops[index] * (1 - share) + stops[index + 1] * share).astype(np.uint8)


def tile(rgb: np.ndarray) -> Image.Image:
    """Fit an RGB array into a tile, with paper around it."""
    return ImageOps.pad(Image.fromarray(rgb), TILE, color=PAPER)


def path_from_above(positions: np.ndarray, size: int) -> Image.Image:
    """Draw camera positions [n, 3] seen against the y axis; the start is a filled circle."""
    canvas = Image.new("RGB", (size, size), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    flat = positions[:, [0, 2]] * (1, -1)
    centre, extent = (flat.min(0) + flat.max(0)) / 2, max(float(np.ptp(flat, axis=0).max()), 1e-6)
    points = [tuple(p) for p in (flat - centre) / extent * 0.8 * size + size / 2]
    draw.line(points, fill=PATH, width=2)
    for (x, y), radius in ((points[0], 5), (points[-1], 3)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=INK)
    draw.text((8, size - 24), f"{extent:.3g} across", fill=INK, font=ImageFont.load_default(14))
    draw.rectangle((0, 0, size - 1, size - 1), outline=(210, 210, 206))
    return canvas


def draw_overview(run: Run, path: Path, title: str, columns: int = 4) -> None:
    """Write the picture of `run` to `path`."""
    chosen = [run[round(i)] for i in np.linspace(0, len(run) - 1, columns)]
    rows = {
        "input": [p.image.numpy() for p in chosen if p.image is not None],
        "depth": [colourise(p.depth.numpy()) for p in chosen if p.depth is not None],
        "confidence": [
            colourise(p.confidence.log().numpy()) for p in chosen if p.confidence is not None
        ],
    }
    step_x, step_y = TILE[0] + GAP, TILE[1] + LABEL
    left, top = GAP + columns * step_x, GAP + LABEL
    side = len(rows) * step_y - LABEL
    canvas = Image.new("RGB", (left + side + GAP, top + len(rows) * step_y + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    font, bold = ImageFont.load_default(15), ImageFont.load_default(18)
    draw.text((GAP, GAP), title, fill=INK, font=bold)
    for row, (name, pictures) in enumerate(rows.items()):
        y = top + row * step_y
        draw.text((GAP, y + 4), name, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            canvas.paste(tile(picture), (GAP + column * step_x, y + LABEL))
    draw.text((left, top + 4), "camera path from above", fill=INK, font=font)
    positions = run.trajectory().world_from_camera[:, :3, 3].numpy()
    canvas.paste(path_from_above(positions, side), (left, top + LABEL))
    canvas.save(path)
