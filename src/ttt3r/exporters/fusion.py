"""Depth maps fused into one field of distances, in blocks around surfaces only.

A truncated signed distance field (Curless and Levoy, "A volumetric method for building complex
models from range images", 1996), kept in blocks that are found by a hash of their place (Nießner
et al., "Real-time 3D reconstruction at scale using voxel hashing", 2013).
"""

import numpy as np
from jaxtyping import Float, Float32, Int64, Shaped, UInt8

from ttt3r.drawing.voxels import REACH, packed, unpacked
from ttt3r.errors import SettingError

BLOCK = 8  # samples along an edge
SAMPLES = BLOCK**3
MOST_BLOCKS = 40_000  # about 400 MB
TRUNCATION = 4.0  # voxels to each side of a surface in which distances are kept
AT_ONCE = 1024  # blocks that are looked at together

# Where the samples of a block lie in it, in voxels.
_INSIDE = np.stack(np.meshgrid(*[np.arange(BLOCK)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)

# What is known at a sample: distance to the surface in truncations, positive before it; the weight
# of what was averaged, 0 where nothing was seen; the colour.
SAMPLE = np.dtype([("distance", np.float32), ("weight", np.float32), ("colour", np.float32, 3)])


class Fusion:
    """Averages depth maps into a field whose zero is the surface.

    Samples lie at whole multiples of the voxel. A block holds 8 along each axis.

    Args:
        voxel: distance of the samples, in the unit of the depth.
        most: blocks to hold; if more are needed, voxels become twice as wide, as often as needed.

    Attributes:
        voxel: distance of the samples now.

    Raises:
        SettingError: if the voxel is not a positive number.
    """

    def __init__(self, voxel: float, most: int = MOST_BLOCKS) -> None:
        if not (np.isfinite(voxel) and voxel > 0):
            raise SettingError(f"the size of a voxel must be a number above 0, not {voxel}")
        self.voxel = float(voxel)
        self._most = most
        self._rows: dict[int, int] = {}  # of a block, by its packed place
        self._samples = np.zeros((16, SAMPLES), SAMPLE)

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self._rows)

    def places(self) -> Int64[np.ndarray, "blocks 3"]:
        """Places of the blocks, in blocks from the origin."""
        return unpacked(np.fromiter(self._rows, np.int64, len(self._rows)))

    def block(self, place: tuple[int, int, int]) -> Shaped[np.ndarray, "8 8 8"] | None:
        """The samples of a block, of type `SAMPLE`; None if there is no such block."""
        row = self._rows.get(int(packed(np.array([place]))[0]))
        return None if row is None else self._samples[row].reshape(BLOCK, BLOCK, BLOCK)

    def add(
        self,
        depth: Float[np.ndarray, "height width"],
        weight: Float[np.ndarray, "height width"],
        image: UInt8[np.ndarray, "height width 3"],
        intrinsics: Float[np.ndarray, "3 3"],
        world_from_camera: Float[np.ndarray, "4 4"],
    ) -> None:
        """Add what one camera saw.

        Args:
            depth: along the optical axis; pixels that are not finite or not above 0 do not count.
            weight: how much each pixel counts; 0 leaves it out.
            image: RGB.
            intrinsics: pinhole matrix, pixels.
            world_from_camera: rigid pose.
        """
        known = np.isfinite(depth) & (depth > 0) & (weight > 0)
        depth = np.where(known, depth, 0.0).astype(np.float32)
        weight = np.where(known, weight, 0.0).astype(np.float32)
        touched = self._touched(depth, intrinsics, world_from_camera)
        while len(new := [key for key in touched.tolist() if key not in self._rows]) + len(
            self._rows
        ) > max(self._most, len(touched)):
            self._widen()
            touched = self._touched(depth, intrinsics, world_from_camera)
        self._make_room(new)
        touched = np.union1d(touched, self._in_front(depth, intrinsics, world_from_camera))
        for first in range(0, len(touched), AT_ONCE):
            some = touched[first : first + AT_ONCE]
            self._update(some, depth, weight, image, intrinsics, world_from_camera)

    def _touched(
        self, depth: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray
    ) -> Int64[np.ndarray, " blocks"]:
        """Packed places of the blocks around the surface that a depth map shows."""
        v, u = np.nonzero(depth)
        pixels = np.stack([u, v, np.ones_like(u)], axis=1)
        rays = pixels @ np.linalg.inv(intrinsics).T @ world_from_camera[:3, :3].T
        band = TRUNCATION * self.voxel
        found = []
        for step in (-band, 0.0, band):
            along = np.maximum(depth[v, u] + step, 0)[:, None]
            points = world_from_camera[:3, 3] + along * rays
            places = np.floor(points / (BLOCK * self.voxel))
            near = (np.abs(places + 0.5) < REACH).all(axis=1)
            found.append(np.unique(packed(places[near].astype(np.int64))))
        return np.unique(np.concatenate(found))

    def _in_front(
        self, depth: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray
    ) -> Int64[np.ndarray, " blocks"]:
        """Packed places of the blocks that a camera sees through: what was there is averaged out.

        Only what other frames filled is looked at, so empty space takes no memory.
        """
        keys = np.fromiter(self._rows, np.int64, len(self._rows))
        side = BLOCK * self.voxel
        centres = (unpacked(keys) + 0.5) * side - world_from_camera[:3, 3]
        projected = centres @ world_from_camera[:3, :3] @ intrinsics.T
        z = projected[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = projected[:, 0] / z, projected[:, 1] / z
        height, width = depth.shape
        inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5) & (z > 0)
        seen = np.flatnonzero(inside)
        there = depth[v[seen].round().astype(np.int64), u[seen].round().astype(np.int64)]
        return keys[seen[there > z[seen] + side]]

    def _make_room(self, keys: list[int]) -> None:
        needed = len(self._rows) + len(keys)
        if needed > len(self._samples):
            larger = np.zeros((max(needed, 2 * len(self._samples)), SAMPLES), SAMPLE)
            larger[: len(self._rows)] = self._samples[: len(self._rows)]
            self._samples = larger
        for key in keys:
            self._rows[key] = len(self._rows)

    def _update(
        self,
        keys: Int64[np.ndarray, " blocks"],
        depth: np.ndarray,
        weight: np.ndarray,
        image: np.ndarray,
        intrinsics: np.ndarray,
        world_from_camera: np.ndarray,
    ) -> None:
        """Average what a camera saw into the samples of some blocks."""
        rotation, position = world_from_camera[:3, :3], world_from_camera[:3, 3]
        corners = (unpacked(keys) * BLOCK * self.voxel - position) @ rotation
        inside = _INSIDE * self.voxel @ rotation
        points = (corners[:, None] + inside).astype(np.float32).reshape(-1, 3)
        z = points[:, 2]
        projected = points @ intrinsics.T.astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = projected[:, 0] / projected[:, 2], projected[:, 1] / projected[:, 2]
        height, width = depth.shape
        seen = np.flatnonzero(
            (z > 0) & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        )
        column, row = u[seen].round().astype(np.int64), v[seen].round().astype(np.int64)
        band = TRUNCATION * self.voxel
        before = (_depth_at(depth, u[seen], v[seen], band) - z[seen]) / band
        counts = weight[row, column] * np.clip((before + 1) / (1 - 1 / TRUNCATION), 0, 1)
        kept = counts > 0
        seen, row, column, counts = seen[kept], row[kept], column[kept], counts[kept]
        rows = np.array([self._rows[key] for key in keys.tolist()])
        at = rows[seen // SAMPLES], seen % SAMPLES
        old = self._samples[at]
        total = old["weight"] + counts
        share = counts / total
        old["distance"] += share * (np.minimum(before[kept], 1) - old["distance"])
        old["colour"] += share[:, None] * (image[row, column] - old["colour"])
        old["weight"] = total
        self._samples[at] = old

    def _widen(self) -> None:
        """Keep every second sample along each axis."""
        before, rows = self._samples, self._rows
        self.voxel *= 2
        parents = unpacked(np.fromiter(rows, np.int64, len(rows))) >> 1
        self._rows, self._samples = {}, np.zeros((16, SAMPLES), SAMPLE)
        self._make_room(np.unique(packed(parents)).tolist())
        for key, row in rows.items():
            (place,) = unpacked(np.array([key]))
            block = self.block(tuple((place >> 1).tolist()))
            assert block is not None
            x, y, z = (slice(half, half + BLOCK // 2) for half in (place & 1) * BLOCK // 2)
            block[x, y, z] = before[row].reshape(BLOCK, BLOCK, BLOCK)[::2, ::2, ::2]
        self._samples["distance"] /= 2  # a truncation is twice as long now


def _depth_at(
    depth: Float32[np.ndarray, "height width"], u: np.ndarray, v: np.ndarray, band: float
) -> np.ndarray:
    """Depth between pixels: interpolated on a surface, of the nearest pixel at an edge."""
    height, width = depth.shape
    left = np.clip(np.floor(u), 0, width - 2).astype(np.int64)
    top = np.clip(np.floor(v), 0, height - 2).astype(np.int64)
    corners = [depth[top + down, left + right] for down in (0, 1) for right in (0, 1)]
    right, down = np.clip(u - left, 0, 1), np.clip(v - top, 0, 1)
    upper = corners[0] * (1 - right) + corners[1] * right
    lower = corners[2] * (1 - right) + corners[3] * right
    smooth = np.max(corners, axis=0) - np.min(corners, axis=0) < band
    nearest = depth[v.round().astype(np.int64), u.round().astype(np.int64)]
    return np.where(smooth & (nearest > 0), upper * (1 - down) + lower * down, nearest)
