"""Formats read back by the programs that others read them with."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from tests.exporters.rooms import SIZE, room
from tests.exporters.test_exporters import make_run, prediction
from ttt3r.errors import MissingExtraError, RunError, SettingError
from ttt3r.exporters import export, glb
from ttt3r.exporters.depth import to_original
from ttt3r.geometry.rotation import matrix_from_quaternion
from ttt3r.summary.picture import write_summary
from ttt3r.types import ImageTransform, Prediction


def poses(predictions: list[Prediction]) -> np.ndarray:
    found = [p.world_from_camera for p in predictions if p.world_from_camera is not None]
    return torch.stack(found).double().numpy()


class TestTrajectories:
    def test_kitti(self, tmp_path: Path):
        rows = np.loadtxt(export(room(), "kitti", tmp_path / "k.txt").path)
        # Written with 9 digits, of float32 numbers of a few metres.
        np.testing.assert_allclose(rows.reshape(-1, 3, 4), poses(room())[:, :3], atol=1e-6)

    def test_euroc(self, tmp_path: Path):
        path = export(room(), "euroc", tmp_path / "e.csv").path
        assert path.read_text().startswith("#timestamp [ns],p_RS_R_x [m],")
        rows = np.loadtxt(path, delimiter=",")
        assert rows[:, 0].tolist() == [index * 100_000_000 for index in range(8)]
        np.testing.assert_allclose(rows[:, 1:4], poses(room())[:, :3, 3], atol=1e-6)
        rotations = matrix_from_quaternion(torch.from_numpy(rows[:, 4:])).numpy()
        # Float32 rotations are orthonormal to a few eps only.
        np.testing.assert_allclose(rotations, poses(room())[:, :3, :3], atol=1e-6)


class TestPly:
    def test_trimesh_reads_it(self, tmp_path: Path):
        written = export(room(), "ply", tmp_path / "a.ply")
        cloud = trimesh.load(written.path)
        assert isinstance(cloud, trimesh.PointCloud)
        assert written.what == f"{len(cloud.vertices):,} points"
        assert np.isfinite(cloud.vertices).all() and np.asarray(cloud.colors)[:, :3].std() > 10

    def test_voxels(self, tmp_path: Path):
        written = export(room(), "ply", tmp_path / "a.ply", voxel=0.1)
        cloud = trimesh.load(written.path)
        assert isinstance(cloud, trimesh.PointCloud)
        whole = trimesh.load(export(room(), "ply", tmp_path / "b.ply").path)
        assert isinstance(whole, trimesh.PointCloud)
        cells = np.unique(np.floor(np.asarray(whole.vertices, np.float32) / 0.1), axis=0)
        assert written.what.startswith(f"{len(cloud.vertices):,} points, one per cell of 0.1")
        assert len(cloud.vertices) == len(cells) < len(whole.vertices) / 2
        np.testing.assert_allclose(cloud.bounds, whole.bounds, atol=0.1)

    @pytest.mark.parametrize("format", ["ply", "glb", "mesh", "rrd"])
    @pytest.mark.parametrize("voxel", [0.0, -1.0, float("nan")])
    def test_senseless_voxel(self, tmp_path: Path, format: str, voxel: float):
        with pytest.raises(SettingError, match="voxel must be a number above 0"):
            export(room()[:1], format, tmp_path / "a", voxel=voxel)


class TestGlb:
    def read(self, path: Path) -> tuple[trimesh.PointCloud, trimesh.path.Path3D, np.ndarray]:
        scene = trimesh.load(path)
        assert isinstance(scene, trimesh.Scene)
        assert set(scene.geometry) == {"points", "cameras"}
        points, cameras = scene.geometry["points"], scene.geometry["cameras"]
        assert isinstance(points, trimesh.PointCloud)
        assert isinstance(cameras, trimesh.path.Path3D)
        return points, cameras, scene.graph["points"][0]

    def test_points_and_cameras(self, tmp_path: Path):
        written = export(room(), "glb", tmp_path / "a.glb", voxel=0.1)
        points, cameras, matrix = self.read(written.path)
        assert written.what == (f"{len(points.vertices):,} points, one per cell of 0.1, 8 cameras")
        same = trimesh.load(export(room(), "ply", tmp_path / "a.ply", voxel=0.1).path)
        assert isinstance(same, trimesh.PointCloud)
        np.testing.assert_allclose(points.vertices, same.vertices, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(points.colors), np.asarray(same.colors))
        np.testing.assert_array_equal(matrix, np.diag([1, -1, -1, 1]))  # y up in glTF
        # Both ends of each edge.
        edges = np.asarray(cameras.vertices).reshape(8, len(glb.EDGES) - 1, 2, 3)
        centres = edges[:, glb.EDGES.index(0), 0]
        np.testing.assert_allclose(centres, poses(room())[:, :3, 3], atol=1e-5)
        # The picture lies before the camera, and its middle on the optical axis.
        middles = edges[:, :4, 0].mean(axis=1) - centres
        axes = poses(room())[:, :3, 2]
        np.testing.assert_allclose(
            middles / np.linalg.norm(middles, axis=1, keepdims=True), axes, atol=1e-4
        )

    def test_most_points(self, tmp_path: Path):
        written = export(room(), "glb", tmp_path / "a.glb", most_points=300)
        points, _, _ = self.read(written.path)
        assert 100 < len(points.vertices) <= 300

    def test_many_cameras_are_thinned(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(glb, "MOST_CAMERAS", 3)
        written = export(room(), "glb", tmp_path / "a.glb")
        assert written.what.endswith("2 of 8 cameras")
        _, cameras, _ = self.read(written.path)
        assert len(cameras.vertices) == 2 * 2 * (len(glb.EDGES) - 1)


class TestDepth:
    def test_png(self, tmp_path: Path):
        written = export(room(), "depth", tmp_path / "depth")
        assert written.what == "8 depth maps"
        for p in room():
            assert p.depth is not None and p.intrinsics is not None
            steps = np.asarray(Image.open(written.path / f"{p.index:06d}.png"))
            assert steps.dtype == np.uint16
            # Half a millimetre, by rounding.
            np.testing.assert_allclose(steps / 1000, p.depth.numpy(), atol=0.0005001)
        about = json.loads((written.path / "depth.json").read_text())
        assert about["steps_per_unit"] == 1000 and about["nothing"] == 0
        lines = (written.path / "intrinsics.txt").read_text().splitlines()
        name, *numbers = lines[3].split()
        intrinsics = room()[2].intrinsics
        assert name == "000002.png" and intrinsics is not None and len(lines) == 9
        assert numbers[:2] == [str(SIZE[1]), str(SIZE[0])]
        wanted = [intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]]
        np.testing.assert_allclose([float(n) for n in numbers[2:]], wanted, rtol=1e-6)

    def test_npz(self, tmp_path: Path):
        points = torch.full((4, 6, 3), 2.0)
        points[0, 0, 2], points[0, 1, 2], points[0, 2, 2] = float("nan"), -1.0, float("inf")
        confidence = torch.full((4, 6), 3.0)
        confidence[0, 3] = 1.2
        one = Prediction(index=0, timestamp=0.0, points=points, confidence=confidence)
        path = export([one], "depth", tmp_path / "a", depth_kind="npz", min_confidence=1.5).path
        with np.load(path / "000000.npz") as maps:
            assert maps["depth"].dtype == np.float32
            assert np.isnan(maps["depth"][0, :4]).all() and (maps["depth"][1:] == 2).all()
            np.testing.assert_array_equal(maps["confidence"], confidence)

    def test_exr(self, tmp_path: Path):
        """All digits come back, and what is unknown stays NaN."""
        exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
        path = export(room(), "depth", tmp_path / "exr", depth_kind="exr").path
        same = export(room(), "depth", tmp_path / "npz", depth_kind="npz").path
        for p in room():
            with exr.File(str(path / f"{p.index:06d}.exr")) as file:
                channels = {name: channel.pixels for name, channel in file.channels().items()}
            assert set(channels) == {"Z", "confidence"}
            with np.load(same / f"{p.index:06d}.npz") as maps:
                for name, wanted in (("Z", maps["depth"]), ("confidence", maps["confidence"])):
                    assert channels[name].dtype == np.float32
                    np.testing.assert_array_equal(channels[name], wanted)
        assert (path / "intrinsics.txt").read_text().splitlines()[1].startswith("000000.exr 64 48")

    def test_exr_that_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "OpenEXR", None)
        with pytest.raises(MissingExtraError, match=r"ttt3r\[exr\]"):
            export(room()[:1], "depth", tmp_path / "a", depth_kind="exr")

    def test_what_is_too_far_is_counted(self, tmp_path: Path):
        points = torch.full((2, 3, 3), 70.0)
        points[0, 0] = 1.0
        one = Prediction(index=0, timestamp=0.0, points=points, confidence=torch.ones(2, 3))
        written = export([one], "depth", tmp_path / "a")
        assert written.what == "1 depth maps (5 pixels beyond 65.535 have no depth)"
        steps = np.asarray(Image.open(written.path / "000000.png"))
        assert steps[0, 0] == 1000 and (steps.ravel()[1:] == 0).all()
        coarser = export([one], "depth", tmp_path / "b", depth_scale=100.0).path
        assert np.asarray(Image.open(coarser / "000000.png"))[1, 1] == 7000

    def test_original_size(self, tmp_path: Path):
        """A plane that is as far as its column, halved and cut on its way in."""
        transform = ImageTransform((20, 12), (10, 6), (1, 1, 8, 4))
        depth = (1.0 + torch.arange(8.0)).expand(4, 8)
        points = torch.stack([depth, depth, depth], dim=-1)
        matrix = torch.tensor([[5.0, 0, 3.5], [0, 5.0, 1.5], [0, 0, 1]])
        one = Prediction(
            index=0,
            timestamp=0.0,
            points=points,
            confidence=torch.ones(4, 8),
            intrinsics=matrix,
            transform=transform,
        )
        path = export([one], "depth", tmp_path / "a", original_size=True).path
        steps = np.asarray(Image.open(path / "000000.png"))
        assert steps.shape == (12, 20)
        for row in range(12):
            for column in range(20):
                u, v, _ = transform.processed_from_original @ (column, row, 1)
                inside = 0 <= round(u) < 8 and 0 <= round(v) < 4
                assert steps[row, column] == (1000 * (1 + round(u)) if inside else 0)
        assert one.original_intrinsics is not None
        numbers = (path / "intrinsics.txt").read_text().splitlines()[1].split()
        assert numbers[1:3] == ["20", "12"]
        wanted = one.original_intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
        np.testing.assert_allclose([float(n) for n in numbers[3:]], wanted, rtol=1e-6)

    def test_to_the_original_of_an_untouched_image(self):
        values = np.random.default_rng(0).random((5, 7)).astype(np.float32)
        same = to_original(values, ImageTransform.identity(7, 5))
        np.testing.assert_array_equal(same, values)

    @pytest.mark.parametrize("options", [{"depth_scale": 0.0}, {"min_confidence": float("nan")}])
    def test_senseless_options(self, tmp_path: Path, options: dict):
        with pytest.raises(SettingError, match=next(iter(options))):
            export(room()[:1], "depth", tmp_path / "a", **options)


class TestVideo:
    @pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", ""])
    def test_decoded_again(self, tmp_path: Path, suffix: str):
        predictions = [replace(p, timestamp=5 + p.timestamp) for p in room()]
        written = export(predictions, "video", tmp_path / f"a.{suffix}")
        with av.open(str(written.path)) as container:
            (stream,) = container.streams.video
            assert stream.codec_context.name in ("h264", "mpeg4")
            frames = list(container.decode(stream))
        # Containers keep times in thousandths of a second at worst.
        times = [float(frame.time or 0) for frame in frames]
        assert times == pytest.approx([index / 10 for index in range(8)], abs=0.001)
        image = frames[4].to_ndarray(format="rgb24")
        height, width = SIZE
        assert written.what.startswith(f"8 frames of {3 * width}x")
        assert image.shape[1] == 3 * width and image.shape[0] >= height
        original = predictions[4].image
        assert original is not None
        # What is left of the image after a lossy code with colours at half the resolution.
        error = image[:height, :width].astype(float) - original.numpy()
        assert np.abs(error).mean() < 12
        depth = image[:height, width : 2 * width].astype(float)
        true = predictions[4].depth
        assert true is not None
        near, far = true < true.quantile(0.1), true > true.quantile(0.9)
        assert depth[near.numpy()][:, 0].mean() > depth[far.numpy()][:, 0].mean() + 30  # red
        assert depth[far.numpy()][:, 2].mean() > depth[near.numpy()][:, 2].mean() + 30  # blue

    def test_rate(self, tmp_path: Path):
        predictions = [replace(p, timestamp=0.0) for p in room()]
        for options, step in ({}, 1 / 30_000), ({"rate": 5.0}, 0.2):
            path = export(predictions, "video", tmp_path / "a.mp4", overwrite=True, **options).path
            with av.open(str(path)) as container:
                times = [float(f.time or 0) for f in container.decode(video=0)]
            assert np.diff(times) == pytest.approx(step, rel=0.05)

    def test_frames_of_another_size(self, tmp_path: Path):
        other = prediction(1, height=40, width=20)
        path = export([prediction(0), other], "video", tmp_path / "a.mp4").path
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) == 2

    @pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
    def test_senseless_rate(self, tmp_path: Path, rate: float):
        with pytest.raises(SettingError, match="rate"):
            export(room()[:1], "video", tmp_path / "a", rate=rate)

    def test_missing_points(self, tmp_path: Path):
        with pytest.raises(RunError, match="output 'points'"):
            export([replace(room()[0], points=None)], "video", tmp_path / "a")


class TestSummary:
    def test_it_is_the_picture_that_a_run_has(self, tmp_path: Path):
        run = make_run(tmp_path / "run", room())
        written = export(run, "summary", tmp_path / "a.png")
        assert written.what == "8 frames in one picture"
        write_summary(run, tmp_path / "b.png")
        with Image.open(written.path) as ours, Image.open(tmp_path / "b.png") as theirs:
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


class TestRerun:
    def test_read_again(self, tmp_path: Path):
        rerun_chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk is not installed")
        gated = [replace(p, gate=torch.full((4,), 0.25)) for p in room()]
        written = export(gated, "rrd", tmp_path / "a.rrd", voxel=0.1)
        chunks = rerun_chunk.RrdReader(written.path).stream().to_chunks()
        rows: dict[str, int] = {}
        for chunk in chunks:
            rows[str(chunk.entity_path)] = rows.get(str(chunk.entity_path), 0) + chunk.num_rows
        below = "/world/camera"
        along_time = [below, f"{below}/image", f"{below}/image/rgb", f"{below}/image/depth"]
        for name in (*along_time, "/gate"):
            assert rows[name] == 8, name
        assert {"/world", "/world/map", "/world/trajectory"} <= set(rows)
        seen = []
        for chunk in chunks:
            if str(chunk.entity_path) != below:
                continue
            assert {"frame", "time"} <= set(chunk.timeline_names)
            batch = chunk.to_record_batch().drop_columns(["log_time"]).to_pydict()
            for index, place, turn in zip(
                batch["frame"],
                batch["Transform3D:translation"],
                batch["Transform3D:mat3x3"],
                strict=True,
            ):
                columns = np.array(turn[0]).reshape(3, 3)  # Rerun holds them column by column
                seen.append((index, np.array(place[0]), columns.T))
        for (index, place, rotation), pose in zip(
            sorted(seen, key=lambda s: s[0]), poses(room()), strict=True
        ):
            np.testing.assert_allclose(place, pose[:3, 3], atol=1e-6)
            np.testing.assert_allclose(rotation, pose[:3, :3], atol=1e-6)
            assert 0 <= index < 8
        (line,) = [c for c in chunks if str(c.entity_path) == "/world/trajectory"]
        ((way,),) = line.to_record_batch().to_pydict()["LineStrips3D:strips"]
        np.testing.assert_allclose(way, poses(room())[:, :3, 3], atol=1e-6)
        (cloud,) = [c for c in chunks if str(c.entity_path) == "/world/map"]
        (points,) = cloud.to_record_batch().to_pydict()["Points3D:positions"]
        assert written.what.startswith(f"8 frames, {len(points):,} points")
