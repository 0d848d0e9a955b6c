"""How close a fused mesh comes to a rendered room: `python -m benchmarks.mesh`.

The table of docs/exports.md. Needs scipy and the extra `export`.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import KDTree

from tests.exporters.rooms import room
from ttt3r.exporters import export
from ttt3r.geometry import se3

VOXELS: tuple[float | None, ...] = (0.1, 0.05, 0.03, None)


def true_points() -> np.ndarray:
    """All points that the room's frames show, in the world, metres."""
    points = []
    for p in room():
        assert p.points is not None and p.world_from_camera is not None and p.depth is not None
        points.append(se3.apply(p.world_from_camera, p.points[p.depth > 0]).numpy())
    return np.concatenate(points)


def row(voxel: float | None, truth: np.ndarray, folder: Path) -> str:
    """A row of the table, distances in millimetres."""
    options: dict[str, Any] = {} if voxel is None else {"voxel": voxel}
    path = export(room(), "mesh", folder / "room.ply", overwrite=True, **options).path
    mesh = trimesh.load(path, force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    vertices = np.asarray(mesh.vertices)
    there, back = KDTree(truth).query(vertices)[0], KDTree(vertices).query(truth)[0]
    _, faces = np.unique(np.sort(mesh.edges, axis=1), axis=0, return_counts=True)
    cells = [
        "default" if voxel is None else f"{voxel:.2f} m",
        *(f"{1e3 * np.median(d):.0f} / {1e3 * np.percentile(d, 90):.0f} mm" for d in (there, back)),
        f"{(faces == 2).mean():.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, and how far true points lie from each other."""
    truth = true_points()
    with tempfile.TemporaryDirectory() as folder:
        for voxel in VOXELS:
            print(row(voxel, truth, Path(folder)), flush=True)
    near = KDTree(truth).query(truth, 2)[0][:, 1]
    print(f"median distance of a true point from its neighbour: {1e3 * np.median(near):.0f} mm")


if __name__ == "__main__":
    main()
