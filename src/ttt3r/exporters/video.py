"""A video that shows each frame beside its depth and its confidence."""

import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from ttt3r.drawing.colours import Range, confidence_colours, depth_colours, robust_range
from ttt3r.drawing.frames import GREY, depth_of
from ttt3r.drawing.videos import CONTAINERS, video_writer
from ttt3r.errors import RunError, SettingError
from ttt3r.exporters.placed import points_of
from ttt3r.types import Prediction

TICKS = 30_000  # per second
RATE = 30  # to expect; each frame has its own time
FOLLOWED = 0.05  # how fast the range of colours follows the frames
CAPTION = 18  # height of the line of text below the pictures


def write_video(predictions: Iterable[Prediction], path: Path, *, rate: float | None = None) -> str:
    """Write image, depth and confidence side by side, as H.264.

    Near is red and far is blue; dark is a low confidence and yellow a high one. The ranges follow
    the frames slowly, so that colours do not flicker. Frames without a pose are shown too.

    Args:
        predictions: with points.
        path: file to write; a name that ends in .mov or .mkv makes such a file, all others MP4.
        rate: frames per second; by default each frame has its own time.

    Returns:
        What was written.

    Raises:
        SettingError: if the rate makes no sense.
        RunError: if the run holds no points, or the encoder fails.
        OSError: if the file cannot be written.
    """
    if rate is not None and not (math.isfinite(rate) and 0.01 <= rate <= 1000):
        raise SettingError(f"rate must be between 0.01 and 1000 frames per second, not {rate}")
    coming = iter(predictions)
    first = next(coming)
    height, width = points_of(first)[0].shape[:2]
    panels = _Panels((height, width))
    clock = _Clock(rate)
    container = CONTAINERS.get(path.suffix.lower(), "mp4")
    count = 0
    try:
        with video_writer(path, container, panels.size, RATE, TICKS) as write:
            for prediction in chain([first], coming):
                write(panels.draw(prediction), clock.tick(count, prediction.timestamp))
                count += 1
    except OSError as error:  # a failing encoder is one too, with numbers of its own
        if error.errno is not None and error.errno < 1000:
            raise
        raise RunError(f"cannot encode the video: {error.strerror or error}") from error
    return f"{count:,} frames of {panels.size[1]}x{panels.size[0]} pixels"


class _Clock:
    """Times of frames in ticks, each later than the one before."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._start: float | None = None
        self._last = -1

    def tick(self, number: int, timestamp: float) -> int:
        if self._start is None:
            self._start = timestamp
        seconds = timestamp - self._start if self._rate is None else number / self._rate
        self._last = max(round(seconds * TICKS), self._last + 1)
        return self._last


class _Panels:
    """Draws frames; all pictures have the size that the first frame asks for.

    Attributes:
        size: (height, width) of what is drawn, even numbers.
    """

    def __init__(self, frame: tuple[int, int]) -> None:
        self._frame = frame
        height, width = frame[0] + CAPTION, 3 * frame[1]
        self.size = height + height % 2, width + width % 2
        self._depth: Range | None = None
        self._confidence: Range | None = None

    def draw(self, prediction: Prediction) -> UInt8[np.ndarray, "height width 3"]:
        points, confidence = points_of(prediction)
        depth, confidence = depth_of(points), confidence.float().numpy()
        self._depth = _followed(self._depth, depth)
        self._confidence = _followed(self._confidence, confidence)
        image = prediction.image
        colours = np.full((*depth.shape, 3), GREY, np.uint8) if image is None else image.numpy()
        depth_text, confidence_text = _text(self._depth), _text(self._confidence)
        canvas = Image.new("RGB", (self.size[1], self.size[0]))
        for column, (picture, text) in enumerate(
            (
                (colours, f"{prediction.timestamp:.2f} s"),
                (depth_colours(depth, self._depth), f"depth {depth_text}"),
                (confidence_colours(confidence, self._confidence), f"conf. {confidence_text}"),
            )
        ):
            self._place(canvas, picture, column, text)
        return np.array(canvas)

    def _place(self, canvas: Image.Image, picture: np.ndarray, column: int, text: str) -> None:
        height, width = self._frame
        panel = Image.fromarray(picture)
        if panel.size != (width, height):  # another image size than the first frame's
            panel.thumbnail((width, height))
        left = column * width
        canvas.paste(panel, (left + (width - panel.width) // 2, (height - panel.height) // 2))
        caption = Image.new("RGB", (width, CAPTION))
        font = ImageFont.load_default(CAPTION * 0.66)
        ImageDraw.Draw(caption).text((4, CAPTION / 2), text, (220, 220, 220), font, anchor="lm")
        canvas.paste(caption, (left, height))


def _followed(shown: Range | None, values: Float[np.ndarray, "height width"]) -> Range:
    """A range that moves a little from what was shown to what these values need."""
    needed = robust_range(values, logarithmic=True)
    if shown is None:
        return needed
    ends = (
        math.exp((1 - FOLLOWED) * math.log(before) + FOLLOWED * math.log(now))
        for before, now in ((shown.low, needed.low), (shown.high, needed.high))
    )
    return Range(*ends, logarithmic=True)


def _text(shown: Range) -> str:
    return f"{shown.low:.3g} to {shown.high:.3g}"
