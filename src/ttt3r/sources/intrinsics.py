"""Known intrinsics of a camera: a pinhole with radial and tangential distortion."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ttt3r.errors import InputError, SettingError

Size = tuple[int, int]  # (width, height)
Normalised = Float[np.ndarray, "*grid"]

LENGTHS = (0, 4, 5, 8)  # numbers of distortion coefficients that are understood
NARROWEST, WIDEST = 0.5, 170.0  # degrees; what is seen beyond is a mistake in units
FORM = "fx,fy,cx,cy or fx,fy,cx,cy,k1,k2,p1,p2[,k3[,k4,k5,k6]]"


@dataclass(frozen=True)
class Intrinsics:
    """A camera with a known lens: OpenCV's pinhole with radial and tangential distortion.

    They hold for the original image: upright, and before it is turned, cut or resized. Pixel
    centres are at integers, so the centre of the top-left pixel is (0, 0).

    Attributes:
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels.
        distortion: k1, k2, p1, p2, then k3, then k4, k5, k6, all of them in OpenCV's order and
            meaning; empty for a lens that does not distort.
        size: (width, height) of the images that they hold for; None if that is not known.

    Raises:
        SettingError: if a number is not finite, a focal length or a size is not positive, or the
            number of coefficients is none of 0, 4, 5 and 8.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    size: Size | None = None

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise SettingError(f"intrinsics must be finite numbers, not {numbers}")
        if self.fx <= 0 or self.fy <= 0:
            raise SettingError(f"focal lengths must be above 0, not {self.fx:g} and {self.fy:g}")
        if len(self.distortion) not in LENGTHS:
            raise SettingError(
                f"{len(self.distortion)} distortion coefficients are not understood: give none, or "
                "k1,k2,p1,p2, or these and k3, or these and k3,k4,k5,k6, in OpenCV's order"
            )
        if self.size is not None and min(self.size) < 1:
            raise SettingError(f"images of {self.size[0]}x{self.size[1]} pixels cannot be")

    @staticmethod
    def of_numbers(text: str) -> "Intrinsics":
        """Read numbers between commas, see `FORM`.

        Raises:
            SettingError: if they are not such.
        """
        try:
            numbers = [float(word) for word in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) - 4 not in LENGTHS:
            raise SettingError(f"intrinsics are {FORM} in pixels, or a file; not {text!r}")
        return Intrinsics(*numbers[:4], distortion=tuple(numbers[4:]))

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """Pinhole matrix of the undistorted original image."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def distorts(self) -> bool:
        """Whether the lens distorts."""
        return any(self.distortion)

    def distorted(self, x: Normalised, y: Normalised) -> tuple[Normalised, Normalised]:
        """Where the lens shows the point (x, y, 1) of the camera's frame, at depth 1 too.

        Brown's model with a rational radial part, as in OpenCV's documentation of calib3d.
        """
        coefficients = (*self.distortion, *(0.0,) * (8 - len(self.distortion)))
        k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        if k4 or k5 or k6:
            radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        tangential = 2 * x * y
        return (
            x * radial + p1 * tangential + p2 * (r2 + 2 * x * x),
            y * radial + p2 * tangential + p1 * (r2 + 2 * y * y),
        )

    def check(self, size: Size, name: str) -> None:
        """Refuse images that these intrinsics cannot hold for.

        Args:
            size: (width, height) of an original image.
            name: what it is called in messages.

        Raises:
            InputError: if it has another size than stated, the principal point lies outside of
                it, or it would show next to nothing or half a sphere.
        """
        width, height = size
        if self.size is not None and size != self.size:
            turned = "; is one of them turned?" if size == self.size[::-1] else ""
            raise InputError(
                f"the intrinsics hold for images of {self.size[0]}x{self.size[1]} pixels, and "
                f"{name} has {width}x{height}{turned}. Give the images that were calibrated, or "
                "the intrinsics of these"
            )
        if not (-0.5 <= self.cx <= width - 0.5 and -0.5 <= self.cy <= height - 0.5):
            raise InputError(
                f"the principal point ({self.cx:g}, {self.cy:g}) lies outside of {name}, which has "
                f"{width}x{height} pixels. Intrinsics are in pixels of the original images; are "
                "these of another size?"
            )
        for focal, side in ((self.fx, width), (self.fy, height)):
            seen = math.degrees(2 * math.atan(side / 2 / focal))
            if not NARROWEST < seen < WIDEST:
                raise InputError(
                    f"a focal length of {focal:g} pixels lets {name}, with {width}x{height} "
                    f"pixels, see {seen:.2g} degrees. Focal lengths are in pixels of the original "
                    "images, not in millimetres or parts of a side"
                )

    def describe(self) -> dict[str, Any]:
        """All numbers, as JSON values."""
        return {
            "fx": self.fx,
            "fy": self.fy,
            "cx": self.cx,
            "cy": self.cy,
            "distortion": list(self.distortion),
            "size": None if self.size is None else list(self.size),
        }

    @staticmethod
    def of_description(said: dict[str, Any]) -> "Intrinsics":
        """Read what `describe` gave.

        Raises:
            SettingError: if it is something else.
        """
        try:
            size = said["size"]
            return Intrinsics(
                *(float(said[name]) for name in ("fx", "fy", "cx", "cy")),
                distortion=tuple(float(number) for number in said["distortion"]),
                size=None if size is None else (int(size[0]), int(size[1])),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SettingError(f"the noted intrinsics cannot be read: {error!r}") from error
