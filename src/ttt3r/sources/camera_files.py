"""Intrinsics from the files of other programs: COLMAP, OpenCV, ROS, Kalibr, EuRoC.

Models that a pinhole with radial and tangential distortion cannot express, those of fisheyes above
all, are refused by their name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttt3r.errors import InputError, SettingError
from ttt3r.files import user_path
from ttt3r.sources.intrinsics import FORM, Intrinsics, Size
from ttt3r.sources.plain_yaml import read_yaml

# Where each parameter of a COLMAP model goes; f is both focal lengths.
COLMAP = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
}
COEFFICIENTS = ["k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"]
# What the others call a lens that distorts as this project's do; without underscores and the like.
RADTAN = {
    *("", "none", "radtan", "radialtangential", "plumbbob", "rationalpolynomial", "opencv"),
}
MATRIX = ("cameramatrix", "k", "intrinsicmatrix")
DISTORTION = ("distortioncoefficients", "distortioncoeffs", "distcoeffs", "distortion", "d")


def intrinsics_of(given: "str | Path | Intrinsics") -> Intrinsics:
    """Take intrinsics in any form.

    Args:
        given: intrinsics; numbers between commas, see `Intrinsics.of_numbers`; or a file: COLMAP's
            cameras.txt or a folder that holds it, or YAML of OpenCV, ROS, Kalibr or EuRoC. Of a
            file of several cameras, FILE:NAME takes one, such as camchain.yaml:cam1 or
            cameras.txt:2.

    Raises:
        SettingError: if numbers make no sense.
        InputError: if the file cannot be read, or its camera is not a pinhole with radial and
            tangential distortion.
    """
    if isinstance(given, Intrinsics):
        return given
    text = str(given)
    if not text.strip():
        raise SettingError(f"intrinsics are {FORM} in pixels, or a file; not an empty text")
    path, name = user_path(text), None
    if not path.exists():
        if text.replace(",", "").strip("0123456789.+-eE ") == "":
            return Intrinsics.of_numbers(text)
        before, colon, after = text.rpartition(":")
        if colon and user_path(before).exists():
            path, name = user_path(before), after
        else:
            raise InputError(f"{text} does not exist; intrinsics are {FORM}, or a file")
    if path.is_dir():
        path = path / "cameras.txt"
    return _read(path, name)


def _read(path: Path, name: str | None) -> Intrinsics:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        hint = (
            "; write it as text: colmap model_converter --output_type TXT"
            if path.suffix == ".bin"
            else ""
        )
        raise InputError(f"{path} is not a text of intrinsics{hint}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise InputError(f"{path} is empty")
    try:
        return _colmap(text, name) if _is_colmap(text) else _yaml(read_yaml(text), name)
    except (KeyError, TypeError, ValueError, SettingError) as error:  # SettingError is a ValueError
        raise InputError(f"{path} cannot be used: {error}") from error


def _is_colmap(text: str) -> bool:
    lines = _content(text)
    return not lines or (len(lines[0]) > 4 and ":" not in lines[0][0] and lines[0][0].isdecimal())


def _content(text: str) -> list[list[str]]:
    lines = (line.strip() for line in text.splitlines())
    return [line.split() for line in lines if line and not line.startswith("#")]


def _colmap(text: str, name: str | None) -> Intrinsics:
    """COLMAP's text form: number, model, width, height, parameters; centres at half integers."""
    cameras = {line[0]: line[1:] for line in _content(text)}
    model, width, height, *numbers = cameras[_chosen(list(cameras), name)]
    if model not in COLMAP:
        raise ValueError(f"its camera model is {model}; {_refusal(COLMAP)}")
    names = COLMAP[model].split()
    if len(names) != len(numbers):
        raise ValueError(f"{model} has {len(names)} parameters, not {len(numbers)}")
    said = dict(zip(names, map(float, numbers), strict=True))
    fx, fy = (said.get(axis, said.get("f", 0.0)) for axis in ("fx", "fy"))
    lens = tuple(said.get(coefficient, 0.0) for coefficient in COEFFICIENTS)
    size = (int(width), int(height))
    return Intrinsics(fx, fy, said["cx"] - 0.5, said["cy"] - 0.5, _shortest(lens), size)


def _yaml(content: Any, name: str | None) -> Intrinsics:
    if not isinstance(content, dict):
        raise ValueError("it holds no names with values")
    cameras = {
        key: value
        for key, value in content.items()
        if isinstance(value, dict) and "intrinsics" in value
    }
    if cameras:
        return _kalibr(cameras[_chosen(list(cameras), name)])
    if "intrinsics" in content:
        return _kalibr(content)
    return _opencv({_plain(key): value for key, value in content.items()})


def _kalibr(said: dict[str, Any]) -> Intrinsics:
    """A camera of Kalibr's camchain, or EuRoC's sensor.yaml."""
    model = str(said.get("camera_model", "pinhole"))
    if model != "pinhole":
        raise ValueError(f"its camera model is {model}; {_refusal(('pinhole',))}")
    _check_lens(said.get("distortion_model"))
    lens = said.get("distortion_coeffs", said.get("distortion_coefficients")) or []
    fx, fy, cx, cy = _numbers(said["intrinsics"])
    width, height = _numbers(said["resolution"]) if "resolution" in said else (None, None)
    return Intrinsics(fx, fy, cx, cy, _shortest(_numbers(lens)), _size(width, height))


def _opencv(said: dict[str, Any]) -> Intrinsics:
    """What OpenCV's calibration writes, or ROS's camera_info."""
    matrix = next((said[key] for key in MATRIX if key in said), None)
    if matrix is None:
        raise ValueError(
            f"it has no camera_matrix; it has {', '.join(said) or 'nothing'}. Known are COLMAP's "
            "cameras.txt, and YAML of OpenCV, ROS, Kalibr and EuRoC"
        )
    if said.get("fisheyemodel", 0.0) not in (0.0, "", None):
        raise ValueError(f"its camera model is a fisheye; {_refusal(('pinhole',))}")
    _check_lens(said.get("distortionmodel"))
    fx, skew, cx, lower, fy, cy, *rest = _data(matrix)
    if len(rest) != 3 or skew or lower or list(rest) != [0.0, 0.0, 1.0]:
        raise ValueError("its camera_matrix is not [fx 0 cx; 0 fy cy; 0 0 1], nine numbers by rows")
    lens = next((said[key] for key in DISTORTION if key in said), [])
    size = _size(said.get("imagewidth"), said.get("imageheight"))
    return Intrinsics(fx, fy, cx, cy, _shortest(_data(lens)), size)


def _data(value: Any) -> tuple[float, ...]:
    return _numbers(value["data"] if isinstance(value, dict) else value)


def _numbers(value: Any) -> tuple[float, ...]:
    """Numbers of a list, or of a list of lists."""
    items = value if isinstance(value, list) else [value]
    flat = [n for item in items for n in (item if isinstance(item, list) else [item])]
    if not all(isinstance(number, float) for number in flat):
        raise ValueError(f"{value!r} is not a list of numbers")
    return tuple(flat)


def _shortest(lens: Sequence[float]) -> tuple[float, ...]:
    """Coefficients without zeros at the end, as far as `Intrinsics` allows."""
    if any(lens[8:]):
        raise ValueError(
            f"its lens has {len(lens)} coefficients; those of thin prisms and of tilted sensors "
            "are not understood"
        )
    padded = (*lens[:8], *(0.0,) * (8 - len(lens)))
    for length in (0, 4, 5):
        if not any(padded[length:]):
            return padded[:length]
    return padded


def _check_lens(model: Any) -> None:
    if _plain(str(model or "")) not in RADTAN:
        known = ("radtan", "plumb_bob", "rational_polynomial", "none")
        raise ValueError(f"its distortion model is {model}; {_refusal(known)}")


def _refusal(known: Any) -> str:
    return (
        f"known are {', '.join(known)}. Undistort the images with the program that calibrated them "
        "to a pinhole camera, and give that one's intrinsics"
    )


def _chosen(names: list[str], name: str | None) -> str:
    """The camera asked for, or the only one."""
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        asked = "choose one" if name is None else f"there is no {name}"
        raise ValueError(
            f"it holds {len(names)} cameras ({', '.join(names)}): {asked} with FILE:NAME"
        )
    return name


def _size(width: Any, height: Any) -> Size | None:
    return None if width is None or height is None else (int(width), int(height))


def _plain(name: str) -> str:
    """A name without case, underscores, dashes and blanks."""
    return "".join(c for c in name.casefold() if c.isalnum())
