"""Kinds of places: rooms, corridors, furnished interiors, open ground with buildings."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ttt3r.scenes.layout import PIECES, Builder, Item, Placement, lamp, on_wall, shelf, table


@dataclass(frozen=True)
class Place:
    """What a kind of place leaves behind for cameras and lights.

    Attributes:
        low: smallest (x, z) a camera may stand at.
        high: largest.
        eye: heights between which a camera is held, metres.
        ceiling: height of the ceiling; infinite outdoors.
        lights: positions of lamps, y down; the first is the one that casts shadows.
        sky: linear RGB of what rays see that meet nothing.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    eye: tuple[float, float]
    ceiling: float
    lights: np.ndarray
    sky: np.ndarray

    @property
    def outdoors(self) -> bool:
        """Whether there is sky above."""
        return self.ceiling == float("inf")


def _shell(b: Builder, width: float, depth: float, ceiling: float) -> None:
    """Floor, ceiling and four walls around the origin."""
    wall = b.paint("plain" if b.chance(0.6) else None, colour=b.colour(0.3, (0.35, 0.85)))
    accent = b.paint(None, colour=b.colour(0.5, (0.15, 0.8))) if b.chance(0.5) else wall
    floor_kind = str(b.random.choice(("planks", "tiles", "speckle", "checks", "mottled")))
    floor = b.paint(floor_kind, scale=b.uniform(1.2, 5.0), colour=b.colour(0.3, (0.1, 0.6)))
    roof = b.paint("plain", colour=np.full(3, b.uniform(0.6, 0.9)))
    # Faces of a room show six materials in a row: -x, +x, ceiling (-y), floor (+y), -z, +z.
    for row in (wall, accent, roof, floor, wall, wall if b.chance(0.7) else accent):
        b.materials.append(b.materials[row])
    half = np.array([width, ceiling, depth]) / 2
    first = len(b.materials) - 6
    b.items.append(Item("room", np.array([0.0, -ceiling / 2, 0.0]), half, 0.0, first))
    skirting = b.paint("plain", colour=b.colour(0.2))
    if b.chance(0.6):
        for side in (-1, 1):
            b.box(Placement(side * width / 2, 0.0), (0.0, 0.05, 0.0), (0.03, 0.1, depth), skirting)
            b.box(Placement(0.0, side * depth / 2), (0.0, 0.05, 0.0), (width, 0.1, 0.03), skirting)


def _walls(width: float, depth: float) -> list[tuple[float, float, float, float]]:
    """(x, z, yaw, length) of each wall's middle; furniture there faces the room."""
    return [
        (0.0, depth / 2, 0.0, width),
        (0.0, -depth / 2, np.pi, width),
        (width / 2, 0.0, np.pi / 2, depth),
        (-width / 2, 0.0, -np.pi / 2, depth),
    ]


def _line_walls(b: Builder, width: float, depth: float, ceiling: float, fullness: float) -> None:
    """Put furniture and flat things along the walls."""
    for x, z, yaw, length in _walls(width, depth):
        along = np.array([np.cos(yaw), -np.sin(yaw)])
        inward = np.array([-np.sin(yaw), -np.cos(yaw)])
        at = -length / 2 + b.uniform(0.4, 1.2)
        while at < length / 2 - 0.6:
            spot = np.array([x, z]) + along * at
            if b.chance(fullness):
                stand = spot + inward * 0.35
                piece = PIECES[int(b.random.integers(len(PIECES)))]
                piece(b, Placement(float(stand[0]), float(stand[1]), yaw))
            if b.chance(0.6):
                hang = spot + inward * 0.02
                on_wall(b, Placement(float(hang[0]), float(hang[1]), yaw), ceiling)
            at += b.uniform(1.2, 2.4)


def _indoor(b: Builder, width: float, depth: float, ceiling: float, margin: float) -> Place:
    count = int(b.random.integers(1, 4))
    x, z = b.random.uniform(-0.35, 0.35, (2, count)) * [[width], [depth]]
    lights = np.stack((x, np.full(count, 0.15 - ceiling), z), 1)
    return Place(
        (-width / 2 + margin, -depth / 2 + margin),
        (width / 2 - margin, depth / 2 - margin),
        (0.9, min(1.8, ceiling - 0.4)),
        ceiling,
        lights,
        np.zeros(3),
    )


def room(b: Builder) -> Place:
    """An ordinary room, with furniture mostly along its walls."""
    width, depth, ceiling = b.uniform(3.0, 7.0), b.uniform(3.0, 7.0), b.uniform(2.3, 3.2)
    _shell(b, width, depth, ceiling)
    _line_walls(b, width, depth, ceiling, b.uniform(0.3, 0.9))
    for _ in range(int(b.random.integers(0, 3))):
        spot = Placement(
            b.uniform(-1.0, 1.0) * width / 4, b.uniform(-1.0, 1.0) * depth / 4, b.uniform(-3.0, 3.0)
        )
        (table if b.chance(0.6) else PIECES[int(b.random.integers(len(PIECES)))])(b, spot)
    if b.chance(0.4):
        size = (b.uniform(1.0, 2.5), 0.02, b.uniform(1.0, 2.5))
        b.box(Placement(0.0, 0.0, b.uniform(-0.4, 0.4)), (0.0, 0.01, 0.0), size, b.paint())
    return _indoor(b, width, depth, ceiling, 0.8)


def corridor(b: Builder) -> Place:
    """A long narrow hallway with doors and pillars."""
    width, depth, ceiling = b.uniform(1.6, 3.0), b.uniform(8.0, 20.0), b.uniform(2.3, 3.0)
    _shell(b, width, depth, ceiling)
    _line_walls(b, width, depth, ceiling, b.uniform(0.0, 0.25))
    frame = b.paint("plain")
    for z in np.arange(-depth / 2 + 2, depth / 2 - 1, b.uniform(2.5, 5.0)):
        for side in (-1, 1):
            b.box(
                Placement(side * width / 2, float(z)),
                (0.0, ceiling / 2, 0.0),
                (0.2, ceiling, 0.3),
                frame,
            )
    return _indoor(b, width, depth, ceiling, 0.45)


def interior(b: Builder) -> Place:
    """A larger, crowded room: desks in rows, shelves, partitions."""
    width, depth, ceiling = b.uniform(6.0, 11.0), b.uniform(6.0, 11.0), b.uniform(2.5, 3.8)
    _shell(b, width, depth, ceiling)
    _line_walls(b, width, depth, ceiling, b.uniform(0.5, 0.9))
    for x in np.arange(-width / 2 + 2, width / 2 - 1.5, b.uniform(2.0, 3.2)):
        for z in np.arange(-depth / 2 + 2, depth / 2 - 1.5, b.uniform(2.0, 3.2)):
            if b.chance(0.5):
                spot = Placement(
                    float(x) + b.uniform(-0.3, 0.3),
                    float(z) + b.uniform(-0.3, 0.3),
                    b.uniform(-3.0, 3.0),
                )
                PIECES[int(b.random.integers(len(PIECES)))](b, spot)
    if b.chance(0.5):
        panel = b.paint()
        spot = Placement(
            b.uniform(-1.0, 1.0) * width / 4, b.uniform(-1.0, 1.0) * depth / 4, b.uniform(-3.0, 3.0)
        )
        b.box(spot, (0.0, 1.0, 0.0), (b.uniform(1.0, 3.0), 2.0, 0.1), panel)
    return _indoor(b, width, depth, ceiling, 1.0)


def desktop(b: Builder) -> Place:
    """A table top seen from close by, in a room."""
    width, depth, ceiling = b.uniform(3.0, 6.0), b.uniform(3.0, 6.0), b.uniform(2.3, 3.0)
    _shell(b, width, depth, ceiling)
    _line_walls(b, width, depth, ceiling, b.uniform(0.3, 0.7))
    for x in (-0.5, 0.5):
        table(b, Placement(x, b.uniform(-0.1, 0.1), b.uniform(-0.1, 0.1)), cluttered=1.0)
    for make in (shelf, lamp):
        if b.chance(0.3):
            make(b, Placement(b.uniform(-1.0, 1.0), 0.8))
    place = _indoor(b, width, depth, ceiling, 0.5)
    return Place((-1.3, -1.3), (1.3, 1.3), (0.9, 1.4), ceiling, place.lights, place.sky)


def outdoor(b: Builder) -> Place:
    """Open ground with buildings along a street, trees, parked cars and walls."""
    rolling = b.chance(0.5)
    count = 4
    wave = b.random.normal(size=(count, 2)) * 0.15
    amplitude = b.random.uniform(0.05, 0.35, count) * rolling
    ground = b.paint(
        str(b.random.choice(("speckle", "mottled", "plain"))), scale=b.uniform(0.5, 3.0)
    )
    b.ground = (wave, amplitude, b.random.uniform(0, 6.28, count), ground)
    half_street = b.uniform(3.5, 9.0)
    road = b.paint("speckle", scale=b.uniform(1.0, 3.0), colour=np.full(3, b.uniform(0.1, 0.3)))
    if not rolling:
        b.box(Placement(0.0, 0.0), (0.0, -0.03, 0.0), (half_street * 1.2, 0.1, 160.0), road)
    for side in (-1, 1):
        z = -60.0
        while z < 70:
            length = b.uniform(5.0, 16.0)
            if b.chance(0.8):
                _building(
                    b, side * (half_street + b.uniform(3.0, 6.0)), z + length / 2, length * 0.9
                )
            z += length
        for _ in range(int(b.random.integers(2, 9))):
            _roadside(b, side * (half_street - b.uniform(-1.5, 0.8)), b.uniform(-40.0, 40.0))
    sky = np.array([0.45, 0.6, 0.9]) * b.uniform(0.8, 1.3) + b.uniform(0.0, 0.3)
    sun = np.array([[b.uniform(-60.0, 60.0), -b.uniform(30.0, 90.0), b.uniform(-60.0, 60.0)]])
    reach = half_street * 0.55
    return Place((-reach, -25.0), (reach, 25.0), (1.4, 1.9), float("inf"), sun, sky)


def _building(b: Builder, x: float, z: float, length: float) -> None:
    high, depth = b.uniform(3.0, 14.0), b.uniform(4.0, 10.0)
    pattern = str(b.random.choice(("windows", "bricks", "windows", "plain", "mottled")))
    walls = b.paint(pattern, scale=b.uniform(0.35, 0.7) if pattern == "windows" else None)
    place = Placement(x + np.sign(x) * depth / 2, z)
    b.box(place, (0.0, high / 2 - 0.5, 0.0), (depth, high + 1, length), walls)
    if b.chance(0.5):
        b.box(place, (0.0, high, 0.0), (depth + 0.6, 0.4, length + 0.6), b.paint("plain"))
    if b.chance(0.5):
        at = (-np.sign(x) * depth / 2, 1.1, b.uniform(-0.3, 0.3) * length)
        b.box(place, at, (0.2, 2.2, 1.2), b.paint())


def _roadside(b: Builder, x: float, z: float) -> None:
    place, choice = Placement(x, z, b.uniform(-0.1, 0.1)), b.random.random()
    if choice < 0.4:
        bark = b.paint("planks", scale=6.0, colour=np.array([0.22, 0.16, 0.1]))
        leaf = b.paint(
            "mottled", scale=b.uniform(2.0, 6.0), colour=b.random.random(3) * (0.25, 0.45, 0.15)
        )
        high, r = b.uniform(1.5, 3.0), b.uniform(0.1, 0.25)
        b.add("tube", place, (0.0, high / 2 - 0.3, 0.0), (2 * r, high + 0.6, 2 * r), bark)
        for _ in range(3):
            at = (b.uniform(-0.7, 0.7), high + b.uniform(0.0, 1.5), b.uniform(-0.7, 0.7))
            b.add(
                "ball",
                place,
                at,
                (b.uniform(1.5, 3.0), b.uniform(1.2, 2.5), b.uniform(1.5, 3.0)),
                leaf,
            )
    elif choice < 0.8:
        body, glass = (
            b.paint("plain", colour=b.colour(0.8)),
            b.paint("plain", colour=np.full(3, 0.05)),
        )
        b.box(place, (0.0, 0.65, 0.0), (1.75, 0.7, 4.2), body)
        b.box(place, (0.0, 1.2, 0.2), (1.5, 0.55, 2.2), glass)
        for sx in (-0.85, 0.85):
            for sz in (-1.3, 1.3):
                b.add("ball", place, (sx, 0.32, sz), (0.2, 0.64, 0.64), glass)
    else:
        b.box(
            place,
            (0.0, 0.5, 0.0),
            (0.25, b.uniform(0.8, 2.4), b.uniform(2.0, 6.0)),
            b.paint("bricks"),
        )


WORLDS: dict[str, Callable[[Builder], Place]] = {
    "room": room,
    "corridor": corridor,
    "interior": interior,
    "desktop": desktop,
    "outdoor": outdoor,
}
WORLD_SHARES = {"room": 0.4, "corridor": 0.1, "interior": 0.22, "desktop": 0.14, "outdoor": 0.14}


def set_in_motion(b: Builder) -> None:
    """Let a few solids of middling size sway back and forth."""
    loose = [item for item in b.items if item.kind != "room" and 0.1 < item.half.max() < 0.8]
    for index in b.random.permutation(len(loose))[: int(b.random.integers(1, 5))]:
        item = loose[index]
        item.sway = b.random.normal(size=3) * (0.4, 0.1, 0.4)
        item.turn = b.uniform(-0.6, 0.6)
        item.period = b.uniform(10.0, 120.0)
        item.phase = b.uniform(0.0, 6.28)
