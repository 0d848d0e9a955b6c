"""Where photographs were taken, as their EXIF says it."""

import math
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ttt3r.sources.images import opened

GPS = 0x8825  # the part of EXIF that the numbers below are of
LATITUDE, LONGITUDE, ALTITUDE = 2, 4, 6
SOUTH_OR_NORTH, WEST_OR_EAST, BELOW_SEA_LEVEL = 1, 3, 5

Fix = tuple[float, float, float]  # latitude and longitude in degrees, altitude in metres


def fix_of(path: Path) -> Fix | None:
    """Latitude, longitude and altitude of an image file; None if it does not say all of them.

    Raises:
        InputError: if the file cannot be read.
    """
    with opened(path) as image:
        return _fix(image)


def _fix(image: Image) -> Fix | None:
    said = image.getexif().get_ifd(GPS)
    try:
        latitude = _degrees(said[LATITUDE])
        longitude = _degrees(said[LONGITUDE])
        altitude = float(said[ALTITUDE])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if str(said.get(SOUTH_OR_NORTH, "N")).strip("\0 ").upper() == "S":
        latitude = -latitude
    if str(said.get(WEST_OR_EAST, "E")).strip("\0 ").upper() == "W":
        longitude = -longitude
    if said.get(BELOW_SEA_LEVEL) in (1, b"\x01"):
        altitude = -altitude
    fix = latitude, longitude, altitude
    return fix if all(map(math.isfinite, fix)) and (latitude or longitude) else None


def _degrees(parts: Any) -> float:
    degrees, minutes, seconds = map(float, parts)
    return degrees + minutes / 60 + seconds / 3600
