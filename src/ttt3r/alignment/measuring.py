"""Lengths by hand: a factor, or two places of a run whose distance is known."""

import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.alignment.aligning import place_world
from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.geometry import se3
from ttt3r.runs.placement import Placement
from ttt3r.runs.reader import Run
from ttt3r.types import LARGEST_HALF, Prediction

_PLACE = re.compile(r"(\d+):(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)")
SMOOTH = 0.05  # depths around a place that differ by less, as a share, are of one surface


class Place(NamedTuple):
    """A pixel of a frame: of the original image, turned and cut as the run's images are.

    Attributes:
        frame: its index.
        x, y: pixels, centres at integers.
    """

    frame: int
    x: float
    y: float

    @staticmethod
    def parse(text: str) -> "Place":
        """Read FRAME:X,Y.

        Raises:
            SettingError: if it is something else.
        """
        match = _PLACE.fullmatch(text.strip())
        if match is None:
            raise SettingError(f"a place is FRAME:X,Y, such as 12:310,205.5; not {text!r}")
        return Place(int(match[1]), float(match[2]), float(match[3]))


def scale_by(folder: Path, factor: float, text: str = "") -> float:
    """Multiply the lengths of a run, as the network gave them, so that they are metres.

    Args:
        folder: of the run.
        factor: metres in one unit of the network's.
        text: how it was found, for people.

    Returns:
        The factor.

    Raises:
        SettingError: if the factor is not a positive number.
        RunError: if the run is aligned to known positions, which say its lengths already.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise SettingError(f"a factor of lengths must be above 0, not {factor:g}")
    refuse_aligned(Run.open(folder).placement)
    world = torch.diag(torch.tensor([factor, factor, factor, 1.0], dtype=torch.float64))
    place_world(folder, world, f"measured: {text or f'lengths times {factor:.6g}'}")
    return factor


def scale_by_distance(folder: Path, places: tuple[Place, Place], metres: float) -> float:
    """Let the distance of two places be what it was measured to be; see `scale_by`.

    Args:
        folder: of the run.
        places: the two.
        metres: their true distance.

    Returns:
        What the network's lengths are multiplied by.

    Raises:
        SettingError: if the distance is not a positive number, or the places are the same.
        InputError: if one of them has no point.
        RunError: see `scale_by`.
    """
    _check_distance(metres)
    run = Run.open(folder)
    first, second = (point_at(run, place) for place in places)
    length = float((first - second).norm()) / run.placement.scale
    named = " and ".join(f"{place.frame}:{place.x:g},{place.y:g}" for place in places)
    return scale_by_length(folder, length, metres, named)


def scale_by_length(folder: Path, length: float, metres: float, named: str) -> float:
    """Let the distance of two points be what it was measured to be; see `scale_by`.

    Args:
        folder: of the run.
        length: their distance in the network's unit.
        metres: their true distance.
        named: the two, for people.

    Returns:
        What the network's lengths are multiplied by.

    Raises:
        SettingError: if the distance is not a positive number, or the points are the same.
        RunError: see `scale_by`.
    """
    _check_distance(metres)
    if not (math.isfinite(length) and length > 1e-9):
        raise SettingError("the two places are the same point, so no distance can be told")
    return scale_by(folder, metres / length, f"{metres:g} m between {named}")


def _check_distance(metres: float) -> None:
    if not (math.isfinite(metres) and metres > 0):
        raise SettingError(f"a distance must be above 0, not {metres:g} m")


def point_at(run: Run, place: Place) -> Float[Tensor, "3"]:
    """The point of the run's world, float64, that a pixel shows.

    It lies between the points of the four pixels around where these are of one surface, and is that
    of the nearest pixel elsewhere.

    Raises:
        InputError: if there is no such frame or pixel, or nothing is known there.
        RunError: if the run holds no points or poses.
    """
    if place.frame >= len(run):
        raise InputError(f"the run holds {len(run)} frames; there is no frame {place.frame}")
    said = run[place.frame]
    if said.points is None or said.world_from_camera is None:
        raise RunError(
            "this run holds no points and poses; run again with the outputs 'points pose'"
        )
    camera = _camera_point(said, place)
    pose = said.world_from_camera.double()
    if not bool(camera.isfinite().all()) or not bool(pose.isfinite().all()):
        raise InputError(f"nothing is known at {place.x:g},{place.y:g} of frame {place.frame}")
    return se3.apply(pose, camera)


def refuse_aligned(placement: Placement) -> None:
    """Refuse to scale what known positions have scaled.

    Raises:
        RunError: if the run is aligned.
    """
    if placement.is_aligned:
        raise RunError(
            f"this run is {placement.world_text.split(':')[0]}, which says its lengths; take that "
            "back first with ttt3r align RUN --undo"
        )


def _camera_point(said: Prediction, place: Place) -> Float[Tensor, "3"]:
    assert said.points is not None
    points = said.points.double()
    height, width = points.shape[:2]
    at = np.array([place.x, place.y, 1.0])
    if said.transform is not None:
        at = said.transform.processed_from_original @ at
    if not (-0.5 <= at[0] <= width - 0.5 and -0.5 <= at[1] <= height - 0.5):
        raise InputError(
            f"{place.x:g},{place.y:g} of frame {place.frame} was cut off, or lies outside of the "
            "image; places are in pixels of the original image, as --rotate and --crop left it"
        )
    x, y = float(np.clip(at[0], 0, width - 1)), float(np.clip(at[1], 0, height - 1))
    left, top = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    four = points[top : top + 2, left : left + 2]
    depths = four[..., 2]
    least, most = float(depths.min()), float(depths.max())
    if four.shape[:2] == (2, 2) and least > 0 and most < min(LARGEST_HALF, (1 + SMOOTH) * least):
        a, b = x - left, y - top
        rows = (1 - a) * four[:, 0] + a * four[:, 1]
        return (1 - b) * rows[0] + b * rows[1]
    nearest = points[round(y), round(x)]
    known = 0 < float(nearest[2]) < LARGEST_HALF
    return nearest if known else torch.full((3,), float("nan"), dtype=torch.float64)
