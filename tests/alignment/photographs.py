"""Photographs that say where they were taken."""

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage


def degrees(angle: float) -> tuple[float, float, float]:
    """Degrees, minutes, seconds."""
    minutes = (angle - int(angle)) * 60
    return float(int(angle)), float(int(minutes)), (minutes - int(minutes)) * 60


def photograph(
    path: Path,
    fix: tuple[float, float, float] | None,
    pixels: np.ndarray | None = None,
    refs: str = "NE",
) -> None:
    """Write a JPEG taken at a latitude, a longitude and an altitude."""
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    image = PillowImage.fromarray(pixels)
    exif = PillowImage.Exif()
    if fix is not None:
        latitude, longitude, altitude = fix
        exif.get_ifd(0x8825).update(
            {
                1: refs[0],
                2: degrees(latitude),
                3: refs[1],
                4: degrees(longitude),
                5: b"\x01" if altitude < 0 else b"\x00",
                6: abs(altitude),
            }
        )
    image.save(path, exif=exif)
