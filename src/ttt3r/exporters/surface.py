"""The surface of a fused field, as triangles."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from ttt3r.errors import MissingExtraError
from ttt3r.exporters.fusion import BLOCK, SAMPLE, Fusion

CHUNK = 8  # blocks along an edge of what is looked at together
SIDE = CHUNK * BLOCK
ON_SAMPLE = 1e-4  # voxels within which a corner counts as lying on a sample


class Surface(NamedTuple):
    """Triangles with colours.

    Attributes:
        vertices: positions, in the unit of the voxel.
        faces: three vertices each, counter-clockwise as the cameras saw them.
        colours: RGB of the vertices.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    faces: Int64[np.ndarray, "faces 3"]
    colours: UInt8[np.ndarray, "vertices 3"]


def surface_of(fusion: Fusion) -> Surface:
    """Find where the distance is zero, among samples that were all seen.

    Marching cubes by scikit-image (Lewiner et al., "Efficient implementation of marching cubes'
    cases with topological guarantees", 2003), some blocks at a time; what they share is joined.

    Raises:
        MissingExtraError: if scikit-image is not installed.
    """
    parts = list(_parts(fusion))
    if not parts:
        return Surface(
            np.empty((0, 3), np.float32), np.empty((0, 3), np.int64), np.empty((0, 3), np.uint8)
        )
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    _, kept, joined = np.unique(_edges(vertices), axis=0, return_index=True, return_inverse=True)
    faces = joined.reshape(-1)[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    colours = np.concatenate([part.colours for part in parts])[kept]
    return Surface((vertices[kept] * fusion.voxel).astype(np.float32), faces, colours)


class _Part(NamedTuple):
    """As `Surface`, with float64 positions in voxels."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


def _parts(fusion: Fusion) -> Iterator[_Part]:
    """The surfaces of chunks, each with the samples that begin the next ones."""
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtraError("scikit-image", "export", "exporting a mesh") from error

    for chunk in np.unique(fusion.places() // CHUNK, axis=0):
        samples = _gathered(fusion, chunk)
        seen = samples["weight"] > 0
        distance = np.where(seen, samples["distance"], 1.0)
        if not (distance.min() < 0 < distance.max()):
            continue
        vertices, faces, _, _ = marching_cubes(distance, 0.0, gradient_direction="descent")
        whole = _whole_cubes(seen)
        cubes = np.floor(vertices[faces].mean(axis=1)).astype(np.int64).clip(0, SIDE - 1)
        faces = faces[whole[tuple(cubes.T)]]
        used, faces = np.unique(faces, return_inverse=True)
        if len(used) == 0:
            continue
        vertices = vertices[used].astype(np.float64)
        nearest = vertices.round().astype(np.int64)
        colours = samples["colour"][tuple(nearest.T)].round().clip(0, 255).astype(np.uint8)
        yield _Part(vertices + chunk * SIDE, faces.reshape(-1, 3), colours)


def _gathered(fusion: Fusion, chunk: Int64[np.ndarray, "3"]) -> np.ndarray:
    """Samples [65, 65, 65] of a chunk, of type `SAMPLE`; of weight 0 where there is no block."""
    samples = np.zeros((SIDE + BLOCK,) * 3, SAMPLE)
    for offset in np.ndindex((CHUNK + 1,) * 3):
        x, y, z = (int(first) * CHUNK + more for first, more in zip(chunk, offset, strict=True))
        block = fusion.block((x, y, z))
        if block is not None:
            x, y, z = (slice(more * BLOCK, (more + 1) * BLOCK) for more in offset)
            samples[x, y, z] = block
    return samples[: SIDE + 1, : SIDE + 1, : SIDE + 1]


def _whole_cubes(seen: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x-1 y-1 z-1"]:
    """Which cubes between samples have all eight corners seen."""
    for axis in range(3):
        first = [slice(None)] * 3
        last = [slice(None)] * 3
        first[axis], last[axis] = slice(None, -1), slice(1, None)
        seen = seen[tuple(first)] & seen[tuple(last)]
    return seen


def _edges(vertices: Float[np.ndarray, "n 3"]) -> Int64[np.ndarray, "n 4"]:
    """Which edge between samples each corner lies on: its first sample and its axis.

    Chunks compute the corners that they share from the same samples, but place them with other
    rounding; the edge is the same. Axis 3 is a corner on a sample. A few corners lie inside a cube;
    they are nobody else's, and get numbers of their own, counted down from -1 in the last column.
    """
    nearest = vertices.round()
    off = np.abs(vertices - nearest)
    axis = off.argmax(axis=1)
    on_sample = off.max(axis=1) < ON_SAMPLE
    first = np.where(np.arange(3) == axis[:, None], np.floor(vertices), nearest)
    first[on_sample] = nearest[on_sample]
    edges = np.concatenate([first, np.where(on_sample, 3, axis)[:, None]], axis=1).astype(np.int64)
    lonely = np.flatnonzero((off > ON_SAMPLE).sum(axis=1) > 1)
    edges[lonely, 3] = -1 - np.arange(len(lonely))
    return edges
