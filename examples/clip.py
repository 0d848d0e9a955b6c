"""Draws a short video without any input: a camera that pans over coloured tiles."""

from pathlib import Path

import av
import numpy as np


def frame(index: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Return one RGB frame, uint8 [height, width, 3], of the pan."""
    x = np.arange(width)[None] + 3.0 * index
    y = np.arange(height)[:, None] + 20.0 * np.sin(index / 9)
    tile = np.floor(x / 40) * 7 + np.floor(y / 40) * 13
    shade = 0.75 + 0.25 * np.cos(x / 40 * 2 * np.pi) * np.cos(y / 40 * 2 * np.pi)
    hues = np.stack([0.5 + 0.5 * np.sin(tile + phase) for phase in (0.0, 2.1, 4.2)], axis=2)
    return (255 * hues * shade[..., None]).astype(np.uint8)


def write_clip(path: Path, frames: int = 60, fps: int = 30) -> None:
    """Write the pan as an H.264 video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(frame(index), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
