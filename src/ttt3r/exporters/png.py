"""Depth maps as PNG files of 16 bits."""

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

SIGNATURE = b"\x89PNG\r\n\x1a\n"
UP = 2  # the filter that subtracts the row above
LEVEL, BITS, MEMORY = 1, 15, 9  # of zlib: the least work, its largest window, its most memory


def write_png16(path: Path, values: UInt16[np.ndarray, "height width"]) -> None:
    """Write a grey image of 16 bits, in less than half of the time that Pillow takes.

    Rows are stored as differences from the row above, and repeated bytes as runs: for depth of a
    network, whose last digits are noise, that makes smaller files than looking for longer patterns.
    Several threads may write at once, each another file.

    Raises:
        OSError: if the file cannot be written.
    """
    height, width = values.shape
    rows = np.empty((height, 1 + 2 * width), np.uint8)
    rows[:, 0], pixels = UP, rows[:, 1:]
    pixels[:] = values.astype(">u2").view(np.uint8)
    pixels[1:] -= pixels[:-1].copy()
    coder = zlib.compressobj(LEVEL, zlib.DEFLATED, BITS, MEMORY, zlib.Z_RLE)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    packed = coder.compress(rows.data) + coder.flush()
    with path.open("wb") as file:
        file.write(SIGNATURE)
        for kind, content in ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + kind)
            file.write(content)
            file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
