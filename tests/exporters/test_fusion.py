"""Fused surfaces: of a ball and of a rendered room, in few blocks and in many."""

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from benchmarks.mesh import true_points
from tests.exporters.rooms import room
from ttt3r.errors import RunError, SettingError
from ttt3r.exporters import export
from ttt3r.exporters.fusion import BLOCK, TRUNCATION, Fusion
from ttt3r.exporters.surface import surface_of

SIDES = [sign * np.eye(3)[axis] for axis in range(3) for sign in (-1, 1)]
CORNERS = [np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]


def ball(direction: np.ndarray, size: int = 96, distance: float = 3.0):
    """Depth, intrinsics and pose of a camera that looks along `direction` at the unit ball."""
    focal = 1.2 * size
    intrinsics = np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])
    z = direction / np.linalg.norm(direction)
    x = np.cross([0, 1, 0] if abs(z[1]) < 0.9 else [1, 0, 0], z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = -distance * z
    v, u = np.mgrid[:size, :size]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T
    rays = rays @ pose[:3, :3].T
    a, b, c = (rays * rays).sum(-1), rays @ pose[:3, 3], distance**2 - 1
    root = b * b - a * c
    return np.where(root > 0, (-b - np.sqrt(root.clip(0))) / a, 0.0), intrinsics, pose


def fused(voxel: float, **options) -> Fusion:
    fusion = Fusion(voxel, **options)
    for direction in SIDES + CORNERS:
        depth, intrinsics, pose = ball(direction)
        image = np.full((*depth.shape, 3), (200, 100, 50), np.uint8)
        fusion.add(depth, np.ones_like(depth), image, intrinsics, pose)
    return fusion


def shape_of(fusion: Fusion) -> trimesh.Trimesh:
    surface = surface_of(fusion)
    return trimesh.Trimesh(surface.vertices, surface.faces, process=False)


def test_a_ball_seen_from_all_sides_is_whole():
    surface = surface_of(fused(0.04))
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert mesh.is_watertight and mesh.body_count == 1
    # Pixels are 0.02 wide at the ball, and half a voxel; distances are along the optical axis, and
    # averages of 14 cameras, so only a part of this is left.
    assert abs(np.linalg.norm(surface.vertices, axis=1) - 1).max() < 0.02
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)  # above 0: faces look outwards
    assert (surface.colours == (200, 100, 50)).all()


def test_samples_like_a_slow_twin():
    """One camera: each sample by itself, from the nearest pixel or between four."""
    depth, intrinsics, pose = ball(SIDES[5], size=24)
    fusion = Fusion(0.11)
    fusion.add(depth, np.ones_like(depth), np.zeros((24, 24, 3), np.uint8), intrinsics, pose)
    seen = 0
    for place in fusion.places():
        block = fusion.block(tuple(place.tolist()))
        assert block is not None
        for inside in np.ndindex(BLOCK, BLOCK, BLOCK):
            point = (place * BLOCK + inside) * 0.11
            x, y, z = np.linalg.inv(pose)[:3] @ [*point, 1]
            u, v, _ = intrinsics @ [x / z, y / z, 1]
            if not (0 <= round(u) < 24 and 0 <= round(v) < 24) or depth[round(v), round(u)] == 0:
                assert block[inside]["weight"] == 0
                continue
            distance = (depth[round(v), round(u)] - z) / (TRUNCATION * 0.11)
            # Between pixels the ball's depth changes by at most a few hundredths near its middle.
            if block[inside]["weight"] > 0 and abs(u - 11.5) < 5 and abs(v - 11.5) < 5:
                assert block[inside]["distance"] == pytest.approx(min(distance, 1), abs=0.15)
                seen += 1
    assert seen > 200


def test_few_blocks_make_wide_voxels():
    fusion = fused(0.02, most=100)
    assert len(fusion) <= 100 and fusion.voxel in (0.04, 0.08, 0.16)
    mesh = shape_of(fusion)
    assert mesh.is_watertight
    # Half a voxel: samples that were taken over from finer voxels say less.
    assert abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < fusion.voxel / 2


def test_widening_keeps_the_samples_that_are_left():
    fine = fused(0.05)
    samples = {
        tuple(place * BLOCK + inside): sample
        for place in fine.places()
        for block in [fine.block(tuple(place.tolist()))]
        if block is not None
        for inside, sample in np.ndenumerate(block)
    }
    fine._widen()
    assert fine.voxel == 0.1
    for place in fine.places():
        block = fine.block(tuple(place.tolist()))
        assert block is not None
        for inside, sample in np.ndenumerate(block):
            was = samples.get(tuple(2 * (place * BLOCK + inside)))
            assert sample["weight"] == (0 if was is None else was["weight"])
            assert sample["distance"] == (0 if was is None else was["distance"] / 2)


def test_what_is_seen_through_goes_away():
    """Somebody stood before the wall in the first of five frames; the others see the wall."""
    intrinsics = np.array([[30.0, 0, 15.5], [0, 30.0, 15.5], [0, 0, 1]])
    wall = np.full((32, 32), 3.0)
    person = wall.copy()
    person[8:24, 12:20] = 1.5
    nearest = []
    for later in (0, 4):
        fusion = Fusion(0.1)
        for depth in (person, *[wall] * later):
            image = np.zeros((32, 32, 3), np.uint8)
            fusion.add(depth, np.ones_like(depth), image, intrinsics, np.eye(4))
        nearest.append(surface_of(fusion).vertices[:, 2].min())
    assert nearest[0] == pytest.approx(1.5, abs=0.1) and nearest[1] > 2.8


@pytest.mark.parametrize("voxel", [0.0, -1.0, float("nan")])
def test_senseless_voxel(voxel: float):
    with pytest.raises(SettingError, match="above 0"):
        Fusion(voxel)


def test_nothing_seen_has_no_surface():
    fusion = Fusion(0.1)
    fusion.add(
        np.zeros((4, 4)), np.ones((4, 4)), np.zeros((4, 4, 3), np.uint8), np.eye(3), np.eye(4)
    )
    assert len(fusion) == 0 and len(surface_of(fusion).faces) == 0


@pytest.mark.parametrize("suffix", ["ply", "glb"])
def test_a_rendered_room(tmp_path, suffix: str):
    """Measured: median 13 mm, 96 in 100 edges shared by two faces; the bounds leave room.

    A surface lies within about a voxel of what was seen; near edges of depth it may bridge a gap.
    """
    written = export(room(), "mesh", tmp_path / f"room.{suffix}", voxel=0.05)
    mesh = trimesh.load(written.path, force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    assert written.what.startswith(f"{len(mesh.faces):,} triangles, {len(mesh.vertices):,} vert")
    vertices = np.asarray(mesh.vertices)
    if suffix == "glb":  # shown upright: the node turns y and z around
        vertices = vertices * (1, -1, -1)
    truth = true_points()
    distance = cKDTree(truth).query(vertices)[0]
    assert np.median(distance) < 0.03 and np.percentile(distance, 90) < 0.06
    assert np.median(cKDTree(vertices).query(truth[::5])[0]) < 0.05
    edges = np.sort(mesh.edges, axis=1)
    _, faces = np.unique(edges, axis=0, return_counts=True)
    assert faces.max() <= 2 and (faces == 2).mean() > 0.8
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3]
    assert colours.std() > 10  # of the room, not of nothing


def test_a_mesh_of_nothing(tmp_path):
    with pytest.raises(RunError, match=r"no surface.*--min-confidence"):
        export(room(), "mesh", tmp_path / "a.ply", min_confidence=5.0)
    assert not list(tmp_path.iterdir())


def test_a_mesh_in_few_blocks_says_so(tmp_path):
    written = export(room()[:2], "mesh", tmp_path / "a.ply", voxel=0.02, most_blocks=50)
    assert "wider than asked for to bound memory" in written.what
