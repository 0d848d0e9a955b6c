"""Positions on the Earth as metres east, north and up of one of them.

The ellipsoid is that of WGS84 (National Geospatial-Intelligence Agency, NGA.STND.0036, 2014).
Heights are taken as they are given. If they are above sea level and not above the ellipsoid, as
most devices say them, everything moves up or down alike, by at most 110 m.
"""

import numpy as np
from jaxtyping import Float

SEMI_MAJOR = 6378137.0  # metres
FLATTENING = 1 / 298.257223563
ECCENTRICITY_2 = FLATTENING * (2 - FLATTENING)  # squared

Fixes = Float[np.ndarray, "n 3"]  # latitude and longitude in degrees, altitude in metres


def earth_centred(fixes: Fixes) -> Float[np.ndarray, "n 3"]:
    """Metres from the Earth's centre: x to latitude and longitude 0, z to the north pole."""
    latitude, longitude = np.radians(fixes[:, 0]), np.radians(fixes[:, 1])
    altitude = fixes[:, 2]
    normal = SEMI_MAJOR / np.sqrt(1 - ECCENTRICITY_2 * np.sin(latitude) ** 2)
    out = (normal + altitude) * np.cos(latitude)
    return np.column_stack(
        [
            out * np.cos(longitude),
            out * np.sin(longitude),
            (normal * (1 - ECCENTRICITY_2) + altitude) * np.sin(latitude),
        ]
    )


def east_north_up(fixes: Fixes, origin: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Metres east, north and up of `origin`, in the plane that touches the Earth there.

    Args:
        fixes: latitude and longitude in degrees, altitude in metres [n, 3].
        origin: a fix [3].
    """
    latitude, longitude = np.radians(origin[0]), np.radians(origin[1])
    sin_lat, cos_lat = np.sin(latitude), np.cos(latitude)
    sin_lon, cos_lon = np.sin(longitude), np.cos(longitude)
    axes = np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )
    return (earth_centred(fixes) - earth_centred(origin[None])) @ axes.T
