"""Input, depth and confidence of a few frames, each in a row with one scale."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ttt3r.drawing.colours import Range, confidence_colours, depth_colours, robust_range
from ttt3r.summary.canvas import (
    EMPTY,
    GAP,
    INK,
    INNER,
    LABEL,
    PAPER,
    QUIET,
    SMALL,
    Panel,
    moment_text,
    scale_bar,
    write,
)
from ttt3r.summary.samples import Sample, Samples

HEAD = 42  # pixels of the line above a strip
FOOT = 24  # pixels of the line below the input
WANTED, TALLEST = 150, 230  # pixels of an image's height


def strips(samples: Samples, unit: str) -> list[Panel]:
    """Rows of images of the same frames: input, depth, confidence."""
    frames = _chosen(list(samples.frames))
    size = _cell(frames)
    depths = [frame.depth for frame in frames if frame.depth is not None]
    confidences = [frame.confidence for frame in frames if frame.confidence is not None]
    far = robust_range(depths, logarithmic=True)
    sure = robust_range(confidences, logarithmic=True)
    panels = [_row("Input", frames, size, lambda frame: frame.image, captions=True)]
    if depths:
        depth = _row("Depth", frames, size, lambda frame: _painted(frame.depth, far, depth_colours))
        scale_bar(depth, "rainbow", far, unit, flip=True)
        panels.append(depth)
    if confidences:
        confidence = _row(
            "Confidence",
            frames,
            size,
            lambda frame: _painted(frame.confidence, sure, confidence_colours),
        )
        scale_bar(confidence, "ordered", sure)
        panels.append(confidence)
    if not depths:
        panels.append(Panel.empty(60, "This run holds no points, so it has no depth."))
    return panels


def _painted(
    values: np.ndarray | None, shown: Range, colour: Callable[..., np.ndarray]
) -> np.ndarray | None:
    return None if values is None else colour(values, shown)


def _aspect(frame: Sample) -> float:
    """Width of a frame's image divided by its height."""
    shape = next((m.shape for m in (frame.image, frame.depth) if m is not None), (3, 4))
    return shape[1] / shape[0]


def _chosen(frames: Sequence[Sample]) -> list[Sample]:
    """As many frames as fit, at even steps, with the first and the last."""
    fit = max(1, round((INNER + GAP) / (WANTED * _aspect(frames[0]) + GAP)))
    count = min(len(frames), fit)
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [frames[place] for place in places]


def _cell(frames: Sequence[Sample]) -> tuple[int, int]:
    """Width and height of each image, so that the row is full or as high as it may be."""
    aspect = _aspect(frames[0])
    width = min((INNER - GAP * (len(frames) - 1)) / len(frames), TALLEST * aspect)
    return max(1, int(width)), max(1, round(width / aspect))


def _row(
    title: str,
    frames: Sequence[Sample],
    size: tuple[int, int],
    picture: Callable[[Sample], np.ndarray | None],
    captions: bool = False,
) -> Panel:
    width, height = size
    panel = Panel(Image.new("RGB", (INNER, HEAD + height + (FOOT if captions else 0)), PAPER))
    draw = panel.draw()
    write(draw, (0, HEAD - 12), title, LABEL, INK, "ls")
    for place, frame in enumerate(frames):
        left = place * (width + GAP)
        shown = picture(frame)
        if shown is None:
            draw.rectangle((left, HEAD, left + width - 1, HEAD + height - 1), EMPTY)
        else:
            image = Image.fromarray(np.ascontiguousarray(shown))
            smooth = Image.Resampling.LANCZOS if captions else Image.Resampling.BILINEAR
            panel.image.paste(image.resize(size, smooth), (left, HEAD))
        if captions:
            text = f"{frame.index:,}"
            if width > 140:
                text = moment_text(frame.index, frame.timestamp)
            write(draw, (left, HEAD + height + 4), text, SMALL, QUIET)
    return panel
