"""Points and cameras as binary glTF, which browsers, Blender and phones show."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from ttt3r.drawing.frames import cloud_of
from ttt3r.drawing.voxels import VoxelCloud
from ttt3r.errors import MissingExtraError
from ttt3r.exporters.clouds import (
    MIN_CONFIDENCE,
    CloudReader,
    cells_text,
    check_steps,
    check_voxel,
    thinning,
    typical_distance,
)
from ttt3r.exporters.placed import is_placed, left_out_text, points_of
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics
from ttt3r.types import Prediction

MOST_CAMERAS = 500
FRUSTUM = 0.06  # depth of a drawn camera, as a share of half the distance that the first one sees
FIRST_COLOUR, LAST_COLOUR = (40, 90, 230), (230, 60, 40)
# glTF has y up and looks along -z; this project's cameras have y down and look along z.
GLTF_FROM_WORLD = np.diag([1.0, -1.0, -1.0, 1.0])
# A line along all edges of a camera: corner 0 is its centre, the others those of its picture.
EDGES = (1, 2, 3, 4, 1, 0, 2, 0, 3, 0, 4)


def write_glb(
    predictions: Iterable[Prediction],
    path: Path,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    pixel_stride: int = 1,
    every: int = 1,
    voxel: float | None = None,
    most_points: int = 1_000_000,
) -> str:
    """Write one thinned cloud of all frames, and their cameras from blue to red.

    Nodes `points` and `cameras` hold coordinates of the stream's world; a matrix above them turns
    it upright. Of many frames, cameras are drawn at even steps. A frame that could not be placed
    is left out.

    Args:
        predictions: with points and poses.
        path: file to write.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        pixel_stride: take every n-th pixel, along rows and along columns.
        every: take every n-th frame.
        voxel: keep one point per cell of this size, in the run's unit; by default fine ones.
        most_points: points to keep at most; cells widen until they are few enough.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points or poses, or if no point is left.
        MissingExtraError: if trimesh is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import trimesh
        from trimesh.exchange.gltf import export_glb
        from trimesh.path.entities import Line
    except ImportError as error:
        raise MissingExtraError("trimesh", "export", "exporting glTF") from error

    check_steps(every=every, most_points=most_points)
    check_voxel(voxel)
    reader = CloudReader(min_confidence, pixel_stride)
    voxels: VoxelCloud | None = None
    cameras = _Cameras()
    for prediction in islice(predictions, 0, None, every):
        cloud = reader(prediction)
        if voxels is None and len(cloud.points):
            voxels = thinning(cloud, prediction, voxel, most_points)
        if voxels is not None:
            voxels.add(*cloud)
        cameras.add(prediction)
    reader.check()
    assert voxels is not None
    points = voxels.cloud()
    scene = trimesh.Scene()
    scene.add_geometry(
        trimesh.PointCloud(points.points, points.colours),
        node_name="points",
        geom_name="points",
        transform=GLTF_FROM_WORLD,
    )
    frusta = cameras.frusta()
    lines = [Line(np.array(EDGES) + 5 * n) for n in range(len(frusta))]
    colours = np.linspace((*FIRST_COLOUR, 255), (*LAST_COLOUR, 255), len(frusta)).astype(np.uint8)
    scene.add_geometry(
        trimesh.path.Path3D(lines, frusta.reshape(-1, 3), colors=colours, process=False),
        node_name="cameras",
        geom_name="cameras",
        transform=GLTF_FROM_WORLD,
    )
    path.write_bytes(export_glb(scene))
    cells = cells_text(voxels, voxel)
    of = "" if len(frusta) == cameras.seen else f"of {cameras.seen:,} "
    drawn = f", {len(frusta):,} {of}cameras{left_out_text(reader.left_out)}"
    return f"{len(points.points):,} points{cells}{drawn}"


class _Cameras:
    """Cameras at even steps: of more than `MOST_CAMERAS`, every second, fourth, … is kept.

    Attributes:
        seen: how many had a place.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._step = 1
        self._kept: list[Float32[np.ndarray, "5 3"]] = []
        self._depth: float | None = None

    def add(self, prediction: Prediction) -> None:
        """Draw a camera, unless it has no place."""
        if not is_placed(prediction):
            return
        if self._depth is None:
            self._depth = FRUSTUM * typical_distance(cloud_of(prediction, 4), prediction)
        if self.seen % self._step == 0:
            self._kept.append(_frustum(prediction, self._depth))
        self.seen += 1
        if len(self._kept) > MOST_CAMERAS:
            self._kept = self._kept[::2]
            self._step *= 2

    def frusta(self) -> Float32[np.ndarray, "cameras 5 3"]:
        """Corners of the cameras in the world: the centre first, then around the picture."""
        return np.stack(self._kept)


def _frustum(prediction: Prediction, depth: float) -> Float32[np.ndarray, "5 3"]:
    """Centre and corners, in the world, of a camera that is drawn `depth` deep."""
    points, _ = points_of(prediction)
    assert prediction.world_from_camera is not None
    height, width = points.shape[:2]
    intrinsics = prediction.intrinsics
    if intrinsics is None:
        intrinsics = default_intrinsics((height, width), torch.tensor(float(max(height, width))))
    left, right, top, bottom = -0.5, width - 0.5, -0.5, height - 0.5
    corners = [(left, top, 1), (right, top, 1), (right, bottom, 1), (left, bottom, 1)]
    rays = torch.tensor(corners) @ torch.linalg.inv(intrinsics.float()).T
    camera = torch.cat([torch.zeros(1, 3), depth * rays])
    return se3.apply(prediction.world_from_camera.float(), camera).numpy()
