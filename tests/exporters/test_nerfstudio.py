"""nerfstudio's data folder, read as its documentation says, against a rendered scene's truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from scipy.spatial import cKDTree

from tests.exporters.test_exporters import read_ply
from tests.exporters.truth import FRAMES, SIZE, Truth, truth_of
from ttt3r.errors import RunError, SettingError
from ttt3r.exporters import export
from ttt3r.scenes.clip import Clip


@pytest.fixture(scope="module")
def truth(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return truth_of(clip, tmp_path_factory.mktemp("truth"))


def depth_of(folder: Path, frame: dict) -> np.ndarray:
    """A depth map at the size of its image, as nerfstudio brings it there: by the nearest pixel."""
    stored = np.asarray(PillowImage.open(folder / frame["depth_file_path"]))
    assert stored.dtype == np.uint16 and stored.shape == (frame["h"] // 2, frame["w"] // 2)
    rows, columns = (
        np.arange(frame[side]) * n // frame[side]
        for side, n in zip("hw", stored.shape, strict=True)
    )
    return stored[rows[:, None], columns]


def unprojected(folder: Path, scene: dict, frame: dict) -> np.ndarray:
    """World points of a frame's depth: OpenGL axes, pixel centres at half integers."""
    depth = depth_of(folder, frame)
    y, x = np.nonzero(depth)
    z = depth[y, x] * scene["depth_unit_scale_factor"]
    right = (x + 0.5 - frame["cx"]) / frame["fl_x"] * z
    up = -(y + 0.5 - frame["cy"]) / frame["fl_y"] * z
    camera = np.stack([right, up, -z, np.ones(len(z))])
    return (np.array(frame["transform_matrix"]) @ camera)[:3].T


def cloud_of(folder: Path, scene: dict) -> np.ndarray:
    cloud = read_ply(folder / scene["ply_file_path"])
    return np.stack([cloud[axis] for axis in "xyz"], axis=1).astype(float)


def check(folder: Path, truth: Truth) -> None:
    """Cameras are the truth's, and depth lands on the cloud and on the rendered surfaces."""
    scene = json.loads((folder / "transforms.json").read_text())
    applied = np.vstack([scene["applied_transform"], [0, 0, 0, 1]])
    assert len(scene["frames"]) == FRAMES and scene["camera_model"] == "OPENCV"
    tree = cKDTree(cloud_of(folder, scene))
    for index, frame in enumerate(scene["frames"]):
        with PillowImage.open(folder / frame["file_path"]) as image:
            assert image.size == (frame["w"], frame["h"]) == SIZE[::-1]
        wanted = truth.intrinsics
        got = [frame["fl_x"], frame["fl_y"], frame["cx"] - 0.5, frame["cy"] - 0.5]
        np.testing.assert_allclose(got, wanted[[0, 1, 0, 1], [0, 1, 2, 2]], rtol=0.005)
        pose = np.linalg.inv(applied) @ frame["transform_matrix"] @ np.diag([1, -1, -1, 1])
        np.testing.assert_allclose(pose, truth.world_from_camera(index), atol=1e-4)
        depth = depth_of(folder, frame) / 1000
        true = truth.clip.depth[index].numpy()
        seen = depth > 0
        assert seen.mean() > 0.6
        assert np.median(np.abs(depth - true)[seen] / true[seen]) < 0.005
        # A depth pixel repeats that of a pixel twice as wide, whose centre lies half of it away.
        points = unprojected(folder, scene, frame)
        distance = tree.query(points)[0]
        footprint = 2 * depth[seen] / frame["fl_x"]
        assert (distance < footprint).mean() > 0.99


def test_depth_lands_on_the_cloud(truth: Truth, tmp_path: Path):
    path, what = export(truth.run, "nerfstudio", tmp_path / "a")
    assert what.startswith(f"{FRAMES} images, ")
    check(path, truth)


@pytest.mark.parametrize("rotate", [90, 180])
def test_a_turned_video(clip: Clip, tmp_path: Path, rotate: int):
    truth = truth_of(clip, tmp_path, ".mp4", rotate=rotate)
    check(export(truth.run, "nerfstudio", tmp_path / "a", camera="per-image").path, truth)


def test_the_world_is_z_up(truth: Truth, tmp_path: Path):
    """The first camera looks along y, and its up is z."""
    path = export(truth.run, "nerfstudio", tmp_path / "a").path
    first = json.loads((path / "transforms.json").read_text())["frames"][0]
    axes = np.array(first["transform_matrix"])[:3, :3]
    np.testing.assert_allclose(axes @ [0, 0, -1], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(axes @ [0, 1, 0], [0, 0, 1], atol=1e-6)


def test_the_cloud_has_at_most_so_many_points(truth: Truth, tmp_path: Path):
    path = export(truth.run, "nerfstudio", tmp_path / "a", most_points=1000, every=3).path
    scene = json.loads((path / "transforms.json").read_text())
    assert len(scene["frames"]) == 4 and len(cloud_of(path, scene)) == 1000


def test_without_the_source(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    truth.source.rename(tmp_path / "moved")
    path = export(truth.run, "nerfstudio", tmp_path / "a").path
    frame = json.loads((path / "transforms.json").read_text())["frames"][0]
    assert (frame["h"], frame["w"]) == tuple(truth.run[0].points.shape[:2])
    with pytest.raises(RunError, match="does not hold what this run was made from"):
        export(truth.run, "nerfstudio", tmp_path / "b", images=tmp_path / "run")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"most_points": 0}, {"min_confidence": float("nan")}], ids=str
)
def test_senseless_options(truth: Truth, tmp_path: Path, options: dict):
    with pytest.raises(SettingError, match=next(iter(options))):
        export(truth.run, "nerfstudio", tmp_path / "a", **options)
