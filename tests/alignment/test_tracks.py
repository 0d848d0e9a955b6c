"""Trajectories and GPS logs as people have them."""

from pathlib import Path

import numpy as np
import pytest

from ttt3r.alignment.tracks import Track, read_track
from ttt3r.errors import InputError


def read(folder: Path, text: str) -> Track:
    (folder / "log").write_text(text, "utf-8")
    return read_track(folder / "log")


def test_a_trajectory(tmp_path: Path) -> None:
    lines = ["# a comment", "1.5 1 2 3 0 0 0 1", "", "0.5 4 5 6 0 0 0 1"]
    lines += ["2.5 nan 0 0 0 0 0 1", "1.5 9 9 9 0 0 0 1"]
    track = read(tmp_path, "\n".join(lines))
    np.testing.assert_array_equal(track.times, [0.5, 1.5])
    np.testing.assert_array_equal(track.places, [[4, 5, 6], [1, 2, 3]])
    assert track.origin is None and track.skipped == 2
    assert len(read(tmp_path, "0 1 2 3\n1 2 3 4\n").times) == 2  # positions alone


# 10 µ° north and east of it, and 2 m above.
FIX, NEXT = (47.0, 8.0, 400.0), (47.00001, 8.00001, 402.0)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("time,lat,lon,alt", "{t},{lat},{lon},{alt}"),
        ("Timestamp;Latitude;Longitude;Altitude", "{t};{lat};{lon};{alt}"),
        ("lon\tlat\tele\ttime", "{lon}\t{lat}\t{alt}\t{t}"),
        ("sats,GPS_Lat,GPS_Lng,time_ms,height (m)", '"12, good",{lat},{lon},{ms},{alt}'),
        ("time (s),latitude [deg],longitude [deg],altitude(ft)", "{t},{lat},{lon},{ft}"),
        ("timestamp [ns],lat_rad,lon_rad,alt_m", "{ns},{rlat},{rlon},{alt}"),
        ("utc,lat,long,elevation", "1970-01-01T00:00:0{t}+00:00,{lat},{lon},{alt}"),
        ("datetime,lat,lon,alt", "1970-01-01 01:00:0{t}+01:00,{lat},{lon},{alt}"),
        ("datetime,lat,lon,alt", "1970-01-01T00:00:0{t}Z,{lat},{lon},{alt}"),
    ],
)
def test_heads_as_people_have_them(tmp_path: Path, head: str, row: str) -> None:
    rows = [
        row.format(
            t=t,
            ms=1000 * t,
            ns=10**9 * t,
            lat=lat,
            lon=lon,
            alt=alt,
            ft=alt / 0.3048,
            rlat=np.radians(lat),
            rlon=np.radians(lon),
        )
        for t, (lat, lon, alt) in ((1, FIX), (3, NEXT))
    ]
    track = read(tmp_path, "\n".join([head, *rows]) + "\n")
    np.testing.assert_allclose(track.times, [1, 3], rtol=1e-12)
    assert track.origin == pytest.approx(FIX)
    np.testing.assert_allclose(track.places, [[0, 0, 0], [0.7605, 1.1117, 2]], atol=1e-3)


def test_lines_without_reception(tmp_path: Path) -> None:
    text = (
        "time,lat,lon,alt\n0,,,\n1,0,0,0\n2,47,8,400\n3,nan,nan,nan\n4,47,8.1,400\n4,47,8.1,400\n"
    )
    track = read(tmp_path, text)
    assert track.times.tolist() == [2, 4] and track.skipped == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("time,lat,lon,alt\n", "no line with a position"),
        ("time,lat,lon,alt\n0,,,\n", r"no line with a position \(1 without\)"),
        ("time,lat,alt\n0,1,2\n", "no column of longitude; its head is 'time, lat, alt'"),
        ("a,b,c\n0,1,2\n", "no column of time and latitude and longitude and altitude"),
        ("time,lat,lon,alt\n0,470000000,80000000,400\n", "line 2 of .* they must be in degrees"),
        ("time,lat,lon,alt\n0,47,200,400\n", "they must be in degrees"),
        ("time,lat,lon,alt (mm)\n0,47,20,400\n", "altitude in 'mm'; known units are m"),
        ("time,lat,lon,alt\n0,47N,8E,400\n", "the latitude '47N', which is not understood"),
        ("time,lat,lon,alt\nnoon,47,8,400\n", "the time 'noon'"),
        ("time,lat,lon,alt\n0,47,8\n", "line 2 of .* has 3 columns, and the head 4"),
        ("0 1 2 3 0 0 0 1\n1 2 3\n", "line 2 of .* is not `timestamp tx ty tz"),
        ("0 1 2 3 0 0 0 1\n1 2 3 x 0 0 0 1\n", "line 2 of"),
        ("0 nan nan nan 0 0 0 1\n", "no line with a position"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="is not a text"):
        read_track(tmp_path / "log")
    with pytest.raises(InputError, match="cannot be read"):
        read_track(tmp_path / "other")
