"""Where the camera goes: held in a hand, walking, orbiting, panning and driving.

Positions follow smooth closed curves, so that a long enough stream comes back to earlier places.
Directions are as smooth, with two exceptions: a walking camera turns on the spot where its walk
stops at the border of the place, and a driving camera looks 3 degrees aside once per period.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ttt3r.scenes.layout import Builder, Item, turned
from ttt3r.scenes.worlds import Place

STYLES = ("hand", "walk", "orbit", "pan", "drive")
INDOORS = ("hand", "hand", "walk", "orbit", "pan")  # drawn from; those named twice come more often
OUTDOORS = ("drive", "drive", "walk", "hand", "pan")
CLEARANCE = 0.25
SHARPEST = 0.2  # radians between two frames
ATTEMPTS = 60
ON_THE_SPOT = 40
Poses = Float[np.ndarray, "frames 4 4"]


def _wave(b: Builder, phase: np.ndarray, harmonics: int, fall: float = 1.0) -> np.ndarray:
    """A random smooth curve of period 1 in about [-1, 1] along each of three axes."""
    total = np.zeros((len(phase), 3))
    for k in range(1, harmonics + 1):
        weight, shift = b.random.normal(size=3) / k**fall, b.random.uniform(0, 2 * np.pi, 3)
        total += weight * np.sin(2 * np.pi * k * phase[:, None] + shift)
    return total / 1.5


def look(position: np.ndarray, forward: np.ndarray, roll: np.ndarray) -> Poses:
    """Camera poses at `position` [n, 3] that look along `forward`, tilted by `roll` radians."""
    forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(np.array([0.0, 1.0, 0.0]), forward)
    right = right / np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-6)
    down = np.cross(forward, right)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (len(position), 1, 1))
    poses[:, :3, 0], poses[:, :3, 1] = c * right + s * down, c * down - s * right
    poses[:, :3, 2], poses[:, :3, 3] = forward, position
    return poses


def heading(yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Unit vectors; positive pitch looks down."""
    return np.stack((np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)), 1)


def _positions(b: Builder, place: Place, style: str, phase: np.ndarray, size: float) -> np.ndarray:
    """Camera centres [n, 3] at phases of one period."""
    low = np.array([place.low[0], -place.eye[1], place.low[1]])
    high = np.array([place.high[0], -place.eye[0], place.high[1]])
    middle, reach = (low + high) / 2, (high - low) / 2
    anchor = middle + reach * b.random.uniform(-0.7, 0.7, 3)
    wave = _wave(b, phase, 3)
    if style in ("walk", "drive"):
        # Not clipped: a path that stands still at a border has no direction to look along.
        track = middle + reach * np.tanh(size * wave * (1.0, 0.3, 1.0))
        if style == "drive":  # up and down the street
            track[:, 2] = middle[2] + reach[2] * size * np.sin(2 * np.pi * phase)
            track[:, 0] = middle[0] + 0.5 * reach[0] * wave[:, 0]
            track[:, 1] = anchor[1]
        return track
    if style == "orbit":
        radius = size * b.uniform(0.5, 1.0) * np.minimum(reach[0], reach[2])
        angle = 2 * np.pi * phase + b.uniform(0.0, 6.28)
        circle = np.stack((np.cos(angle), np.zeros_like(angle), np.sin(angle)), 1)
        centre = np.array([middle[0], anchor[1], middle[2]])
        return centre + radius * circle + 0.1 * wave
    amplitude = size * (b.uniform(0.02, 0.25) if style == "pan" else b.uniform(0.2, 0.9))
    return np.clip(anchor + amplitude * wave, low, high)


def smoothed(angle: np.ndarray, width: float = 0.03) -> np.ndarray:
    """A periodic course of angles, blurred by a share `width` of the period.

    Over the period an angle may gain full turns; first and last sample are the same moment.
    """
    phase = np.linspace(0, 1, len(angle))
    gain = angle[-1] - angle[0]
    wave = np.fft.rfft((angle - gain * phase)[:-1])
    wave *= np.exp(-0.5 * (2 * np.pi * width * np.arange(len(wave))) ** 2)
    calm = np.fft.irfft(wave, len(angle) - 1)
    return np.append(calm, calm[0]) + gain * phase


def _directions(
    b: Builder, place: Place, style: str, phase: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Directions of view [n, 3]."""
    wave = _wave(b, phase, 4)
    pitch = b.uniform(-0.05, 0.35) + 0.15 * wave[:, 1]
    if style == "pan":
        turns = 2 * np.pi * phase if b.chance(0.5) else b.uniform(0.4, 1.5) * wave[:, 0]
        return heading(turns + b.uniform(0.0, 6.28), pitch)
    if style in ("walk", "drive"):
        step = np.gradient(position, axis=0)
        step = step + np.roll(step, 3, 0) + np.roll(step, -3, 0)  # periodic, so rolling is right
        yaw = smoothed(np.unwrap(np.arctan2(step[:, 0], step[:, 2])))
        if style == "drive":
            return heading(0.1 * wave[:, 0], 0.05 + 0.03 * wave[:, 1])
        return heading(yaw + 0.4 * wave[:, 0], pitch)
    middle = (np.array(place.low) + place.high) / 2
    if style == "orbit":
        target = np.array([middle[0], -b.uniform(0.3, 1.0), middle[1]]) + 0.2 * wave
        outwards = b.chance(0.35)
        return (position - target) * (1.0, 0.3, 1.0) if outwards else target - position
    yaw = b.uniform(0.0, 6.28)
    target = position.mean(0) + b.uniform(1.5, 4.0) * np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    target[1] = -b.uniform(0.3, 1.4)
    return target + 0.5 * wave - position


def free(items: Sequence[Item], points: np.ndarray) -> bool:
    """Whether all points [n, 3] keep clear of all solids, wherever those swing; rooms are empty."""
    for item in items:
        if item.kind == "room":
            continue
        sway = 0.0 if item.sway is None else np.abs(item.sway)
        local = np.abs((points - item.centre) @ turned(item.yaw))
        if (local < item.half + sway + CLEARANCE).all(1).any():
            return False
    return True


def _clear_positions(
    b: Builder, place: Place, style: str, phase: np.ndarray
) -> tuple[str, np.ndarray]:
    """Draw positions until they keep clear of solids, on ever smaller curves.

    Returns:
        The style, which becomes "pan" if there is little room, and the positions [n, 3]. Where
        even that does not help, they are the last ones drawn.
    """
    size, position = 1.0, np.zeros((len(phase), 3))
    for attempt in range(ATTEMPTS):
        position = _positions(b, place, style, phase, size)
        if free(b.items, position[::3]):
            break
        size *= 0.95
        if attempt == ON_THE_SPOT:
            style = "pan"
    return style, position


def camera_path(b: Builder, place: Place, frames: int, style: str | None = None) -> Poses:
    """Camera poses of a clip in the scene's world: one path, at one random speed.

    Args:
        b: the scene, whose solids are avoided.
        place: where cameras may stand.
        frames: number of poses.
        style: one of `STYLES`; None draws one.
    """
    if style is None:
        style = str(b.random.choice(OUTDOORS if place.outdoors else INDOORS))
    fine = np.linspace(0, 1, 721)
    style, position = _clear_positions(b, place, style, fine)
    forward = _directions(b, place, style, fine, position)
    length = np.linalg.norm(np.diff(position, axis=0), axis=1).sum()
    unit = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    turns = np.linalg.norm(np.diff(unit, axis=0), axis=1)
    speed = np.exp(b.uniform(*np.log((0.2, 1.2) if style == "drive" else (0.012, 0.12))))
    # Frames per period: at that speed, or so slow that turns are gentle on average, nowhere fast.
    gentle = turns.sum() / np.exp(b.uniform(*np.log((0.015, 0.1))))
    period = max(length / speed, gentle, len(turns) * turns.max() / SHARPEST, 24.0)
    phase = np.remainder(b.uniform(0.0, 1.0) + np.arange(frames) / period, 1.0)

    def sample(track: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(phase, fine, track[:, i]) for i in range(3)], 1)

    shake = b.uniform(0.0, 0.004) * b.random.normal(size=(frames, 3))
    roll = b.uniform(-0.08, 0.08) + 0.03 * np.sin(2 * np.pi * phase * 2) + 0.3 * shake[:, 0]
    bob = b.uniform(0.0, 0.03) * np.sin(np.arange(frames) * b.uniform(0.2, 0.6))
    bob = bob * (style == "walk")
    return look(sample(position) + shake + bob[:, None] * (0, 1, 0), sample(unit) + shake, roll)
