"""Furnishes synthetic scenes: adds solids with materials to a growing scene.

The scene's own world has y down, its floor at y = 0, and lengths in metres.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from ttt3r.scenes.solids import Geometry, Ground, Solids
from ttt3r.scenes.textures import PATTERN_NAMES, Materials

Kind = Literal["box", "ball", "tube", "room"]
Vector = tuple[float, float, float]


def turned(yaw: float) -> np.ndarray:
    """Rotation about the vertical by `yaw` radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


@dataclass(frozen=True)
class Placement:
    """Where a piece of furniture stands: its origin is on the floor, its front is -z."""

    x: float
    z: float
    yaw: float = 0.0

    def world(self, at: Vector) -> np.ndarray:
        """Move a point of the piece (y is height above the floor) into the scene."""
        return turned(self.yaw) @ np.array([at[0], -at[1], at[2]]) + [self.x, 0.0, self.z]


@dataclass
class Item:
    """One solid of a scene.

    A solid that moves swings by the vector `sway` to either side of `centre` and back within
    `period` frames, and turns by as much as `turn` radians meanwhile.

    Attributes:
        kind: its shape.
        centre: where it is, or the middle of its motion.
        half: half the extent along each of its own axes.
        yaw: radians by which it is turned about the vertical.
        material: row of the material table.
        sway: amplitude of its motion; None for a solid at rest.
        turn: amplitude of its turning, radians; only for a solid that moves.
        period: frames from one swing to the next.
        phase: where in the swing it starts, radians.
    """

    kind: Kind
    centre: np.ndarray
    half: np.ndarray
    yaw: float
    material: int
    sway: np.ndarray | None = None
    turn: float = 0.0
    period: float = 100.0
    phase: float = 0.0


@dataclass
class Builder:
    """A scene under construction.

    Attributes:
        random: source of all choices.
        items: solids so far.
        materials: rows of the material table so far.
        ground: wave vectors, amplitudes, phases and material of the ground, if there is one.
    """

    random: np.random.Generator
    items: list[Item] = field(default_factory=list)
    materials: list[tuple[int, np.ndarray, np.ndarray, float, float, float, float]] = field(
        default_factory=list
    )
    ground: tuple[np.ndarray, np.ndarray, np.ndarray, int] | None = None

    def uniform(self, low: float, high: float) -> float:
        """A number between two bounds."""
        return float(self.random.uniform(low, high))

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.random.random() < share)

    def colour(
        self, saturation: float = 0.35, bright: tuple[float, float] = (0.04, 0.85)
    ) -> np.ndarray:
        """A colour of natural saturation: mostly greys, woods and beiges, now and then vivid."""
        value = float(np.exp(self.uniform(*np.log(bright))))
        warm = np.array([1.0, self.uniform(0.6, 0.9), self.uniform(0.25, 0.75)])
        hue = warm if self.chance(0.55) else self.random.random(3)
        share = self.uniform(0.0, saturation) if self.chance(0.75) else self.uniform(0.3, 0.95)
        return value * (1 - share + share * hue / hue.max())

    def paint(
        self,
        pattern: str | None = None,
        scale: float | None = None,
        colour: np.ndarray | None = None,
        contrast: float | None = None,
        glow: float = 0.0,
    ) -> int:
        """Add a material; what is not given is drawn at random.

        Args:
            pattern: one of `textures.PATTERN_NAMES`.
            scale: cells per metre.
            colour: linear RGB.
            contrast: of the pattern, 0 to 1.
            glow: light that it gives off itself, 0 to 1.

        Returns:
            Its row in the material table.
        """
        names = ("plain", "mottled", "planks", "speckle", "tiles", "print", "picture", "stripes")
        weights = np.array([0.42, 0.14, 0.14, 0.1, 0.05, 0.05, 0.05, 0.05])
        pattern = str(self.random.choice(names, p=weights)) if pattern is None else pattern
        first = self.colour() if colour is None else colour
        if pattern in ("print", "picture", "checks", "stripes", "windows"):
            second = self.colour(0.6)
        else:  # two shades of one colour
            second = np.clip(first * self.uniform(1.15, 1.9), 0, 0.95)
        default = {"plain": 0.25, "speckle": 0.6}.get(pattern, self.uniform(0.4, 1.0))
        row = (
            PATTERN_NAMES.index(pattern),
            first,
            second,
            float(np.exp(self.uniform(0.3, 1.8))) if scale is None else scale,
            default if contrast is None else contrast,
            self.uniform(0.05, 0.5),
            glow,
        )
        self.materials.append(row)
        return len(self.materials) - 1

    def add(self, kind: Kind, place: Placement, at: Vector, size: Vector, material: int) -> Item:
        """Add a solid of full extent `size` whose centre is `at` in the piece's coordinates."""
        half = np.array(size) / 2
        item = Item(kind, place.world(at), half, place.yaw, material)
        self.items.append(item)
        return item

    def box(self, place: Placement, at: Vector, size: Vector, material: int) -> Item:
        """Add a box; see `add`."""
        return self.add("box", place, at, size, material)


def table(b: Builder, place: Placement, cluttered: float = 0.7) -> None:
    """A table or desk, perhaps with things on it."""
    width, depth, high = b.uniform(0.8, 1.8), b.uniform(0.5, 0.9), b.uniform(0.45, 0.8)
    top, legs = b.paint(), b.paint("plain")
    b.box(place, (0.0, high, 0.0), (width, 0.04, depth), top)
    x, z = width / 2 - 0.05, depth / 2 - 0.05
    if b.chance(0.6):
        for sx in (-x, x):
            for sz in (-z, z):
                b.box(place, (sx, high / 2, sz), (0.05, high, 0.05), legs)
    else:
        for sx in (-x, x):
            b.box(place, (sx, high / 2, 0.0), (0.04, high, depth * 0.9), legs)
    if b.chance(cluttered):
        clutter(b, place, high + 0.02, width * 0.8, depth * 0.8, int(b.random.integers(2, 7)))


def clutter(
    b: Builder, place: Placement, high: float, width: float, depth: float, count: int
) -> None:
    """Small things on a surface of the given height."""
    for _ in range(count):
        x, z = b.uniform(-width / 2, width / 2), b.uniform(-depth / 2, depth / 2)
        s, t = b.uniform(0.05, 0.3), b.uniform(0.04, 0.35)
        material = b.paint()
        spot = place.world((x, 0.0, z))
        here = Placement(float(spot[0]), float(spot[2]), place.yaw + b.uniform(-1.0, 1.0))
        choice = b.random.random()
        if choice < 0.6:
            b.box(here, (0.0, high + t / 2, 0.0), (s, t, s * b.uniform(0.3, 1.2)), material)
        elif choice < 0.85:
            b.add("tube", here, (0.0, high + t / 2, 0.0), (s * 0.5, t, s * 0.5), material)
        else:
            b.add("ball", here, (0.0, high + s / 2, 0.0), (s, s, s), material)


def chair(b: Builder, place: Placement) -> None:
    """A chair."""
    seat, legs = b.paint(), b.paint("plain")
    b.box(place, (0.0, 0.45, 0.0), (0.45, 0.05, 0.45), seat)
    b.box(place, (0.0, 0.72, 0.21), (0.45, 0.5, 0.04), seat)
    for sx in (-0.2, 0.2):
        b.box(place, (sx, 0.22, 0.0), (0.04, 0.44, 0.4), legs)


def shelf(b: Builder, place: Placement) -> None:
    """A shelf with rows of books and boxes."""
    width, high, depth = b.uniform(0.6, 1.6), b.uniform(0.8, 2.1), b.uniform(0.25, 0.4)
    wood = b.paint()
    for sx in (-width / 2, width / 2):
        b.box(place, (sx, high / 2, 0.0), (0.03, high, depth), wood)
    b.box(place, (0.0, high / 2, depth / 2), (width, high, 0.02), wood)
    count = max(2, round(high / b.uniform(0.35, 0.5)))
    for i in range(count + 1):
        y = 0.03 + (high - 0.05) * i / count
        b.box(place, (0.0, y, 0.0), (width, 0.03, depth), wood)
        if i < count and b.chance(0.85):
            filled = b.uniform(0.3, 0.95) * width
            tall = b.uniform(0.5, 0.85) * high / count
            left = (filled - width) / 2
            books = b.paint("stripes" if b.chance(0.6) else None, scale=b.uniform(8.0, 20.0))
            b.box(place, (left, y + tall / 2, 0.0), (filled, tall, depth * 0.8), books)


def cabinet(b: Builder, place: Placement) -> None:
    """A cupboard or chest of drawers."""
    width, high, depth = b.uniform(0.4, 1.4), b.uniform(0.5, 2.1), b.uniform(0.35, 0.6)
    body, front = b.paint(), b.paint("plain" if b.chance(0.6) else None)
    b.box(place, (0.0, high / 2, 0.0), (width, high, depth), body)
    rows, columns = max(1, round(high / b.uniform(0.25, 0.9))), 1 + (width > 0.8)
    for row in range(min(rows, 4)):
        for column in range(columns):
            w, h = width / columns, high / min(rows, 4)
            at = (-width / 2 + w * (column + 0.5), h * (row + 0.5), -depth / 2)
            b.box(place, at, (w - 0.03, h - 0.03, 0.03), front)
    if high < 1.2 and b.chance(0.7):
        clutter(b, place, high, width * 0.8, depth * 0.6, int(b.random.integers(1, 5)))


def sofa(b: Builder, place: Placement) -> None:
    """A sofa, or a bed if it comes out deep."""
    width, depth = b.uniform(1.2, 2.2), b.uniform(0.8, 1.9)
    cloth = b.paint(str(b.random.choice(("plain", "speckle", "mottled", "stripes"))))
    b.box(place, (0.0, 0.2, 0.0), (width, 0.4, depth), cloth)
    b.box(place, (0.0, 0.4, depth / 2 - 0.1), (width, 0.8, 0.2), cloth)
    if depth < 1.2:
        for sx in (-width / 2 + 0.1, width / 2 - 0.1):
            b.box(place, (sx, 0.3, 0.0), (0.2, 0.6, depth), cloth)
    for _ in range(int(b.random.integers(0, 4))):
        x = b.uniform(-width / 2 + 0.3, width / 2 - 0.3)
        b.add(
            "ball", place, (x, 0.5, b.uniform(-0.2, depth / 2 - 0.3)), (0.5, 0.3, 0.35), b.paint()
        )


def plant(b: Builder, place: Placement) -> None:
    """A plant in a pot."""
    pot, leaf = (
        b.paint(),
        b.paint(
            "mottled", scale=b.uniform(6.0, 14.0), colour=b.random.random(3) * (0.2, 0.4, 0.15)
        ),
    )
    high = b.uniform(0.2, 1.2)
    b.add("tube", place, (0.0, 0.15, 0.0), (0.3, 0.3, 0.3), pot)
    b.add("tube", place, (0.0, 0.3 + high / 4, 0.0), (0.04, high / 2, 0.04), leaf)
    for _ in range(int(b.random.integers(2, 5))):
        at = (b.uniform(-0.15, 0.15), 0.3 + high * b.uniform(0.4, 1.0), b.uniform(-0.15, 0.15))
        b.add(
            "ball",
            place,
            at,
            (b.uniform(0.2, 0.5), b.uniform(0.15, 0.5), b.uniform(0.2, 0.5)),
            leaf,
        )


def lamp(b: Builder, place: Placement) -> None:
    """A floor lamp."""
    high, metal = b.uniform(1.1, 1.7), b.paint("plain")
    b.add("tube", place, (0.0, high / 2, 0.0), (0.04, high, 0.04), metal)
    b.add("tube", place, (0.0, 0.02, 0.0), (0.3, 0.04, 0.3), metal)
    shade = b.paint("plain", colour=np.array([0.9, 0.85, 0.7]), glow=b.uniform(0.2, 0.7))
    b.add("tube", place, (0.0, high, 0.0), (0.35, 0.3, 0.35), shade)


def stack(b: Builder, place: Placement) -> None:
    """Cartons piled up."""
    high = 0.0
    for _ in range(int(b.random.integers(1, 4))):
        w, h, d = b.uniform(0.25, 0.6), b.uniform(0.2, 0.5), b.uniform(0.25, 0.6)
        turned_place = Placement(place.x, place.z, place.yaw + b.uniform(-0.4, 0.4))
        b.box(turned_place, (0.0, high + h / 2, 0.0), (w, h, d), b.paint())
        high += h


def on_wall(b: Builder, place: Placement, ceiling: float) -> None:
    """Something flat on a wall: a picture, a window, a door, a board or a curtain."""
    choice = b.random.random()
    if choice < 0.4:
        w, h = b.uniform(0.3, 1.4), b.uniform(0.3, 1.1)
        y = b.uniform(1.2, min(1.8, ceiling - h / 2 - 0.1))
        frame = b.paint("plain")
        kind = str(b.random.choice(("picture", "print", "mottled")))
        picture = b.paint(kind, scale=b.uniform(2.0, 8.0))
        b.box(place, (0.0, y, 0.0), (w + 0.06, h + 0.06, 0.03), frame)
        b.box(place, (0.0, y, -0.01), (w, h, 0.03), picture)
    elif choice < 0.65:
        w, h, y = b.uniform(0.7, 1.8), b.uniform(0.8, 1.4), 1.5
        frame = b.paint("plain", colour=np.full(3, 0.8))
        sky = b.paint("mottled", colour=np.array([0.6, 0.75, 0.95]), glow=b.uniform(0.4, 0.9))
        b.box(place, (0.0, y, 0.0), (w + 0.12, h + 0.12, 0.05), frame)
        b.box(place, (0.0, y, -0.01), (w, h, 0.05), sky)
        b.box(place, (0.0, y, -0.02), (0.05, h, 0.06), frame)
        b.box(place, (0.0, y, -0.02), (w, 0.05, 0.06), frame)
    elif choice < 0.85:
        frame, leaf = b.paint("plain"), b.paint()
        b.box(place, (0.0, 1.02, 0.0), (1.0, 2.05, 0.05), frame)
        b.box(place, (0.0, 1.0, -0.02), (0.85, 2.0, 0.05), leaf)
        b.add("ball", place, (0.35, 1.0, -0.07), (0.06, 0.06, 0.06), b.paint("plain"))
    else:
        cloth = b.paint("stripes", scale=b.uniform(4.0, 9.0), contrast=0.5)
        b.box(place, (0.0, ceiling / 2, -0.03), (b.uniform(0.4, 1.0), ceiling * 0.9, 0.1), cloth)


PIECES = (table, table, chair, shelf, cabinet, sofa, plant, lamp, stack)


def to_tensors(builder: Builder, times: np.ndarray) -> tuple[Geometry, Materials]:
    """The finished scene at each of `times` (frames since the start)."""
    # Boxes are padded to one solid, so that there is always something to choose from.
    boxes = _solids([item for item in builder.items if item.kind == "box"], times, least=1)
    balls, tubes, rooms = (
        _solids([item for item in builder.items if item.kind == kind], times)
        for kind in ("ball", "tube", "room")
    )
    geometry = Geometry(boxes, balls, tubes, rooms, _ground(builder, len(times)))
    columns = zip(*builder.materials, strict=True)
    rows = [
        np.array(column, np.int64 if i == 0 else np.float32) for i, column in enumerate(columns)
    ]
    materials = Materials(*(_repeated(row, len(times)) for row in rows))
    return geometry, materials


def _solids(items: list[Item], times: np.ndarray, least: int = 0) -> Solids:
    centre = np.zeros((len(times), max(len(items), least), 3), np.float32)
    half, turn = np.zeros_like(centre), np.zeros((*centre.shape[:2], 2), np.float32)
    material, moving = np.zeros((2, *centre.shape[:2]), np.int64)
    for i, item in enumerate(items):
        swing = np.sin(2 * np.pi * times / item.period + item.phase)
        sway = np.zeros(3) if item.sway is None else item.sway
        centre[:, i] = item.centre + swing[:, None] * sway
        half[:, i], material[:, i] = item.half, item.material
        moving[:, i] = item.sway is not None
        angle = item.yaw + item.turn * swing * (item.sway is not None)
        turn[:, i] = np.stack((np.cos(angle), np.sin(angle)), 1)
    centre, half, turn, material, moving = map(
        torch.from_numpy, (centre, half, turn, material, moving)
    )
    return Solids(centre, half, turn, material, moving)


def _ground(builder: Builder, frames: int) -> Ground:
    wave, amplitude, phase, material = builder.ground or (
        np.zeros((1, 2)),
        np.zeros(1),
        np.zeros(1),
        -1,
    )
    return Ground(
        _repeated(wave.astype(np.float32), frames),
        _repeated(amplitude.astype(np.float32), frames),
        _repeated(phase.astype(np.float32), frames),
        torch.full((frames,), material),
    )


def _repeated(values: np.ndarray, frames: int) -> torch.Tensor:
    """The same values in each frame of a batch."""
    return torch.from_numpy(values).expand(frames, *values.shape)
