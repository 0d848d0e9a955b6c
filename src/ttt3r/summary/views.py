"""The path of the camera and the points, seen from above and from the side, on a grid."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from ttt3r.drawing.colours import palette
from ttt3r.summary.canvas import (
    EMPTY,
    GAP,
    INK,
    INNER,
    LABEL,
    LINE,
    PAPER,
    QUIET,
    SMALL,
    Colour,
    Panel,
    Point,
    font,
    round_step,
    write,
)
from ttt3r.summary.samples import Moment, Samples

HEAD = 42
SHARP = 2  # drawn this many times larger, then reduced, for smooth lines
HEIGHTS = (260, 520)  # pixels of a view, least and most
PERCENTILES = (1.0, 99.0)  # of the points that a view shows at least
JOIN: Colour = (214, 39, 40)
CAMERAS = 16  # drawn along the path, at most


@dataclass(frozen=True)
class Direction:
    """How the world is seen; the world is the first camera: x right, y down, z forward.

    Attributes:
        title: what the view is called.
        axes: which world axis goes to the right and which goes down.
        signs: of these axes.
        names: what the two axes are called, to the right and down or up.
    """

    title: str
    axes: tuple[int, int]
    signs: tuple[int, int]
    names: tuple[str, str]


ABOVE = Direction("From above", (0, 2), (1, -1), ("right", "forward"))
SIDE = Direction("From the right", (2, 1), (1, 1), ("forward", "down"))


@dataclass(frozen=True)
class Frame:
    """Where a view's world lies in its picture.

    Attributes:
        direction: of the view.
        centre: of the part shown, along its two axes, in the run's unit.
        scale: pixels per unit.
        size: width and height in pixels.
    """

    direction: Direction
    centre: Float[np.ndarray, "2"]
    scale: float
    size: tuple[int, int]

    def pixels(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Where points of the world are in the picture."""
        return (flat(points, self.direction) - self.centre) * self.scale + np.array(self.size) / 2


def flat(points: Float[np.ndarray, "*n 3"], direction: Direction) -> Float[np.ndarray, "*n 2"]:
    """The two coordinates that a view shows."""
    return points[..., list(direction.axes)] * np.array(direction.signs)


def views(samples: Samples, unit: str) -> Panel:
    """Both views beside each other."""
    placed = [
        moment
        for moment in samples.moments
        if moment.world_from_camera is not None and np.isfinite(moment.world_from_camera).all()
    ]
    if not placed:
        return Panel.empty(60, "No frame of this run has a place, so there is no path to show.")
    points = np.concatenate([frame.points for frame in samples.frames])
    colours = np.concatenate([frame.colours for frame in samples.frames])
    path = np.stack([moment.world_from_camera[:3, 3] for moment in placed])  # type: ignore[index]
    width = (INNER - 2 * GAP) // 2
    frames = [_fit(points, path, direction, width) for direction in (ABOVE, SIDE)]
    height = max(frame.size[1] for frame in frames)
    panel = Panel(Image.new("RGB", (INNER, HEAD + height), PAPER))
    for number, direction in enumerate((ABOVE, SIDE)):
        frame = Frame(direction, frames[number].centre, frames[number].scale, (width, height))
        left = number * (width + 2 * GAP)
        view, step = _view(frame, points, colours, placed)
        panel.image.paste(view, (left, HEAD))
        title = f"{direction.title}, grid {step:g} {unit}"
        write(panel.draw(), (left, HEAD - 12), title, LABEL, INK, "ls")
    return panel


def _fit(points: np.ndarray, path: np.ndarray, direction: Direction, width: int) -> Frame:
    """Show the whole path and most points."""
    seen, way = flat(points, direction), flat(path, direction)
    low, high = way.min(axis=0), way.max(axis=0)
    if len(seen):
        edges = np.percentile(seen, PERCENTILES, axis=0)
        low, high = np.minimum(low, edges[0]), np.maximum(high, edges[1])
    extent = np.maximum(high - low, 1e-6 * max(1.0, float(np.abs(high).max())))
    extent = np.maximum(extent, extent.max() / 20) * 1.08
    least, most = HEIGHTS
    height = int(np.clip(width * extent[1] / extent[0], least, most))
    scale = float(min(width / extent[0], height / extent[1]))
    return Frame(direction, (low + high) / 2, scale, (width, height))


def _view(
    frame: Frame, points: np.ndarray, colours: np.ndarray, placed: list[Moment]
) -> tuple[Image.Image, float]:
    """A view, and the distance between its grid lines."""
    step = round_step(min(frame.size) / frame.scale, 4)
    lines = _grid(frame, step)
    width, height = frame.size
    image = Image.new("RGB", frame.size, EMPTY)
    draw = ImageDraw.Draw(image)
    for place, _ in lines[0]:
        draw.line((place, 0, place, height), LINE)
    for place, _ in lines[1]:
        draw.line((0, place, width, place), LINE)
    image = _splatted(image, frame.pixels(points), colours)
    image = image.resize((width * SHARP, height * SHARP), Image.Resampling.BICUBIC)
    large = Frame(frame.direction, frame.centre, frame.scale * SHARP, image.size)
    _path(ImageDraw.Draw(image), large, placed)
    image = image.resize(frame.size, Image.Resampling.BOX)
    _labels(ImageDraw.Draw(image), frame, lines)
    return image, step


def _grid(frame: Frame, step: float) -> list[list[tuple[float, float]]]:
    """Places and values of the grid lines along both axes."""
    lines = []
    for axis, sign in enumerate(frame.direction.signs):
        half = frame.size[axis] / 2 / frame.scale
        first, last = frame.centre[axis] - half, frame.centre[axis] + half
        values = np.arange(np.ceil(first / step), np.floor(last / step) + 1) * step
        places = (values - frame.centre[axis]) * frame.scale + frame.size[axis] / 2
        lines.append([(float(p), float(v) * sign) for p, v in zip(places, values, strict=True)])
    return lines


def _labels(
    draw: ImageDraw.ImageDraw, frame: Frame, lines: list[list[tuple[float, float]]]
) -> None:
    """Values of the grid lines at the lower and the left edge, and the names of the axes."""
    width, height = frame.size
    right, other = frame.direction.names
    for place, value in lines[0]:
        if 60 < place < width - 90:
            _outlined(draw, (place, height - 6), _tick(value), "ms")
    for place, value in lines[1]:
        if 40 < place < height - 40:
            _outlined(draw, (6, place), _tick(value), "lm")
    _outlined(draw, (width - 30, height - 6), right, "rs")
    arrow(draw, (width - 24, height - 12), (1, 0))
    up = frame.direction.signs[1] < 0
    top = 6 if up else height - 22
    _outlined(draw, (24, top), other, "la")
    arrow(draw, (13, top + 17 if up else top - 1), (0, -1 if up else 1))


def arrow(draw: ImageDraw.ImageDraw, at: Point, way: tuple[int, int]) -> None:
    """A small arrow that begins at a place; the font has none."""
    (x, y), (dx, dy), length, head = at, way, 17, 5
    tip = x + dx * length, y + dy * length
    draw.line((x, y, *tip), QUIET, 2)
    for side in (-1, 1):
        back = tip[0] - head * (dx + side * dy), tip[1] - head * (dy + side * dx)
        draw.line((*tip, *back), QUIET, 2)


def _tick(value: float) -> str:
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"


def _outlined(draw: ImageDraw.ImageDraw, at: Point, text: str, anchor: str) -> None:
    draw.text(at, text, QUIET, font(SMALL), anchor, stroke_width=2, stroke_fill=PAPER)


def _splatted(image: Image.Image, pixels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Lay points over an image: a pixel takes their mean colour, more of it the more there are."""
    canvas = np.asarray(image).astype(np.float32)
    height, width = canvas.shape[:2]
    sums = np.zeros((4, height * width), np.float32)
    reach = 1 if len(pixels) > 100_000 else 2  # pixels that a point covers, along each axis
    corner = np.floor(np.nan_to_num(pixels, nan=-1e6).clip(-1e6, 1e6)).astype(np.int64)
    weights = [*colours.T.astype(np.float32), np.ones(len(colours), np.float32)]
    for dx in range(reach):
        for dy in range(reach):
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            cells = y[inside] * width + x[inside]
            for row, weight in zip(sums, weights, strict=True):
                row += np.bincount(cells, weight[inside], height * width).astype(np.float32)
    count = sums[3].reshape(height, width, 1)
    mean = (sums[:3] / np.maximum(sums[3], 1)).T.reshape(height, width, 3)
    opacity = 1 - np.exp(-0.7 * count)
    return Image.fromarray((canvas * (1 - opacity) + mean * opacity).round().astype(np.uint8))


def _path(draw: ImageDraw.ImageDraw, frame: Frame, placed: list[Moment]) -> None:
    """The path from dark to light, some cameras, its ends, and where segments were joined."""
    poses = np.stack([m.world_from_camera for m in placed if m.world_from_camera is not None])
    at = frame.pixels(poses[:, :3, 3])
    shades = palette("ordered")[np.linspace(30, 235, len(at)).astype(int)].tolist()
    for width, fixed in ((7, PAPER), (4, None)):
        for index in range(len(at) - 1):
            colour = fixed or tuple(shades[index])
            ends = [tuple(at[index]), tuple(at[index + 1])]
            draw.line(ends, colour, width, joint="curve")
    for index in np.linspace(0, len(at) - 1, min(CAMERAS, len(at))).round().astype(int):
        _camera(draw, frame, poses[index], tuple(shades[index]))
    segments = np.array([moment.segment for moment in placed])
    for index in np.flatnonzero(np.diff(segments)) + 1:
        _dot(draw, at[index], 5, JOIN)
    _dot(draw, at[0], 9, tuple(shades[0]))
    _dot(draw, at[-1], 9, tuple(shades[-1]))
    _named(draw, at[0], "start", -1)
    if len(at) > 1:
        _named(draw, at[-1], "end", 1)


def _named(draw: ImageDraw.ImageDraw, place: np.ndarray, text: str, side: int) -> None:
    """Write a name on the left (-1) or on the right (1) of a place."""
    where = (float(place[0]) + side * 14, float(place[1]) + 10)
    anchor = "rs" if side < 0 else "ls"
    draw.text(where, text, INK, font(SMALL * SHARP), anchor, stroke_width=3, stroke_fill=PAPER)


def _dot(draw: ImageDraw.ImageDraw, at: np.ndarray, radius: int, colour: Colour) -> None:
    x, y = (float(value) for value in at)
    for size, fill in ((radius + 2, PAPER), (radius, colour)):
        draw.ellipse((x - size, y - size, x + size, y + size), fill)


def _camera(draw: ImageDraw.ImageDraw, frame: Frame, pose: np.ndarray, colour: Colour) -> None:
    """Two lines that open in the direction in which a camera looks."""
    reach = 26 / frame.scale
    corners = np.array([[-0.5, 0, 1], [0, 0, 0], [0.5, 0, 1]], np.float32) * reach
    ends = frame.pixels(corners @ pose[:3, :3].T + pose[:3, 3])
    draw.line([tuple(end) for end in ends], colour, 3)
