"""COLMAP models: read by pycolmap, and compared with a rendered scene's truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from tests.exporters.truth import FRAMES, SIZE, Truth, truth_of
from ttt3r.errors import RunError, SettingError
from ttt3r.exporters import colmap, colmap_model, export
from ttt3r.exporters.cameras import Cameras
from ttt3r.geometry.rotation import quaternion_from_matrix
from ttt3r.runs.frame_file import read_prediction, write_prediction
from ttt3r.runs.reader import Run, frame_path
from ttt3r.scenes.clip import Clip

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
CELL = 4  # small images: some hundred points each


@pytest.fixture(scope="module")
def truth(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return truth_of(clip, tmp_path_factory.mktemp("truth"))


def read(path: Path):
    return pycolmap.Reconstruction(path / "sparse" / "0")


def index_of(name: str) -> int:
    """Which frame an image is: shots count from 1, frames of a video from 0."""
    stem = Path(name).stem
    return int(stem.removeprefix("shot")) - 1 if stem.startswith("shot") else int(stem)


def test_quaternions():
    """Against the one of the package, over all signs and half turns."""
    random = np.random.default_rng(0)
    drawn = [np.linalg.qr(random.normal(size=(3, 3)))[0] for _ in range(50)]
    turns = [np.diag(signs) for signs in ((1.0, 1, 1), (1.0, -1, -1), (-1.0, 1, -1), (-1.0, -1, 1))]
    for rotation in (*(matrix * np.linalg.det(matrix) for matrix in drawn), *turns):
        wanted = quaternion_from_matrix(torch.from_numpy(rotation)).numpy()
        got = np.array(colmap_model._quaternion(rotation))
        assert got[0] >= 0
        assert min(abs(got - wanted).max(), abs(got + wanted).max()) < 1e-12


def reprojection_errors(model, truth: Truth) -> np.ndarray:
    """Distances, in pixels, of each observation from where the true camera sees the point."""
    errors = []
    for image in model.images.values():
        pose = np.linalg.inv(truth.world_from_camera(index_of(image.name)))
        for seen in image.points2D:
            if seen.has_point3D():
                point = model.points3D[seen.point3D_id].xyz
                x, y, z = truth.intrinsics @ (pose[:3, :3] @ point + pose[:3, 3])
                # COLMAP's pixel centres are at half integers.
                errors.append(np.linalg.norm([x / z + 0.5, y / z + 0.5] - seen.xy))
    return np.array(errors)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("camera", ["shared", "per-image"])
def test_pycolmap_reads_the_truth(truth: Truth, tmp_path: Path, text: bool, camera: str):
    options = {"text": text, "camera": camera, "cell": CELL}
    path, what = export(truth.run, "colmap", tmp_path / "a", **options)
    model = read(path)
    assert what.startswith(f"{FRAMES} images, 1 cameras, {len(model.points3D):,} points")
    (only,) = model.cameras.values()
    fx, fy, cx, cy = only.params
    wanted = truth.intrinsics
    assert only.model.name == "PINHOLE" and (only.height, only.width) == SIZE
    np.testing.assert_allclose([fx, fy], [wanted[0, 0], wanted[1, 1]], rtol=0.005)
    np.testing.assert_allclose([cx - 0.5, cy - 0.5], [wanted[0, 2], wanted[1, 2]], rtol=0.005)
    assert len(model.images) == FRAMES and len(model.points3D) > 500
    lengths = [point.track.length() for point in model.points3D.values()]
    assert min(lengths) >= 2 and max(lengths) == FRAMES
    errors = reprojection_errors(model, truth)
    assert len(errors) == sum(lengths) and errors.mean() < 1.5
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 1.5


def test_what_the_two_kinds_of_files_hold_is_the_same(truth: Truth, tmp_path: Path):
    models = [
        read(export(truth.run, "colmap", tmp_path / str(text), text=text, cell=CELL).path)
        for text in (False, True)
    ]
    assert models[0].summary() == models[1].summary()
    for number, point in models[0].points3D.items():
        other = models[1].points3D[number]
        np.testing.assert_array_equal(point.xyz, other.xyz)
        np.testing.assert_array_equal(point.color, other.color)
        elements = [[(e.image_id, e.point2D_idx) for e in p.track.elements] for p in (point, other)]
        assert elements[0] == elements[1]
    for number, image in models[0].images.items():
        pose, other = (m.images[number].cam_from_world().matrix() for m in models)
        np.testing.assert_allclose(pose, other, rtol=0, atol=1e-12)
        assert image.name == models[1].images[number].name


def test_frames_together_are_those_one_by_one(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []
    for at_once in (1, 3):
        monkeypatch.setattr(colmap, "AT_ONCE", at_once)
        path = export(truth.run, "colmap", tmp_path / f"{at_once}", cell=CELL, window=2).path
        written.append({file.name: file.read_bytes() for file in path.rglob("*.*")})
    assert written[0] == written[1] and len(written[0]) > FRAMES


def test_tracks_and_images_agree(truth: Truth, tmp_path: Path):
    """An image's points name the tracks that name the image, and depth there is the truth's."""
    path = export(truth.run, "colmap", tmp_path / "a", cell=CELL, window=3).path
    model = read(path)
    lists = {number: list(image.points2D) for number, image in model.images.items()}
    wrong = total = 0
    for number, point in list(model.points3D.items())[::10]:
        views = [e.image_id for e in point.track.elements]
        assert len(set(views)) == len(views) >= 2
        assert max(views) - min(views) <= 3  # the window
        for element in point.track.elements:
            image = model.images[element.image_id]
            seen = lists[element.image_id][element.point2D_idx]
            assert seen.point3D_id == number
            index = index_of(image.name)
            pose = np.linalg.inv(truth.world_from_camera(index))
            depth = (pose[:3, :3] @ point.xyz + pose[:3, 3])[2]
            x, y = np.clip(np.round(seen.xy - 0.5).astype(int), 0, (SIZE[1] - 1, SIZE[0] - 1))
            true = float(truth.clip.depth[index, y, x])
            wrong += not 0.9 * true < depth < 1.1 * true
            total += 1
    assert wrong < 0.01 * total  # at edges the nearest pixel may be another thing's


def test_images_lie_where_the_model_says(truth: Truth, tmp_path: Path):
    path = export(truth.run, "colmap", tmp_path / "a").path
    model = read(path)
    assert {image.name for image in model.images.values()} == {
        file.name for file in (path / "images").iterdir()
    }
    for image in model.images.values():
        with PillowImage.open(path / "images" / image.name) as picture:
            camera = model.cameras[image.camera_id]
            assert picture.size == (camera.width, camera.height)


@pytest.mark.parametrize("rotate", [90, 180, 270])
def test_a_turned_video(clip: Clip, tmp_path: Path, rotate: int):
    """The images are as they were filmed, and the cameras are turned back."""
    truth = truth_of(clip, tmp_path, ".mp4", rotate=rotate)
    path = export(truth.run, "colmap", tmp_path / "a", cell=CELL).path
    model = read(path)
    assert reprojection_errors(model, truth).mean() < 1.5 and len(model.points3D) > 500
    (camera,) = model.cameras.values()
    assert (camera.height, camera.width) == SIZE


def test_without_the_source(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    truth.source.rename(tmp_path / "moved")
    path = export(truth.run, "colmap", tmp_path / "a", cell=CELL).path
    (camera,) = read(path).cameras.values()
    height, width = truth.run[0].depth.shape
    assert (camera.height, camera.width) == (height, width)
    np.testing.assert_allclose(camera.params[0], truth.intrinsics[0, 0] / 2, rtol=0.005)
    path = export(truth.run, "colmap", tmp_path / "b", cell=CELL, images=tmp_path / "moved").path
    (camera,) = read(path).cameras.values()
    assert (camera.height, camera.width) == SIZE


def test_noisy_intrinsics_become_one_camera(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    for prediction in truth.run:
        factor = 1 + 0.02 * (-1) ** prediction.index
        scale = torch.diag(torch.tensor([factor, factor, 1.0]))
        noisy = replace(prediction, intrinsics=prediction.intrinsics @ scale)
        write_prediction(frame_path(truth.run.folder, prediction.index), noisy)
    model = read(export(truth.run, "colmap", tmp_path / "a", cell=CELL).path)
    (camera,) = model.cameras.values()
    np.testing.assert_allclose(camera.params[0], truth.intrinsics[0, 0], rtol=0.005)
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 0.01
    model = read(export(truth.run, "colmap", tmp_path / "b", cell=CELL, camera="per-image").path)
    assert len(model.cameras) == 2


def test_the_shared_camera_is_the_median(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    random, all_ = np.random.default_rng(0), []
    for prediction in truth.run:
        scale = torch.diag(torch.tensor([*random.uniform(0.8, 1.2, 2), 1.0])).float()
        noisy = replace(prediction, intrinsics=prediction.intrinsics @ scale)
        if prediction.index == 3:  # could not be placed
            noisy = replace(noisy, intrinsics=torch.full((3, 3), float("nan")))
        else:
            all_.append(noisy.original_intrinsics.double().numpy())
        write_prediction(frame_path(truth.run.folder, prediction.index), noisy)
    ((size, found),) = Cameras.of(truth.run).shared.items()
    assert size == SIZE[::-1]
    np.testing.assert_allclose(found, np.median(all_, axis=0), rtol=1e-6)  # float32 against float64


def test_one_frame_has_no_points(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    written = export(truth.run, "colmap", tmp_path / "a", every=FRAMES)
    model = read(written.path)
    assert len(model.images) == 1 and len(model.points3D) == 0 and "0 points" in written.what


def test_a_run_without_intrinsics(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    path = frame_path(truth.run.folder, 2)
    write_prediction(path, replace(read_prediction(path), intrinsics=None))
    for camera in ("shared", "per-image"):
        with pytest.raises(RunError, match="frame 2 of this run has no intrinsics"):
            export(truth.run, "colmap", tmp_path / "a", camera=camera)


def test_predictions_without_a_run_are_refused(truth: Truth, tmp_path: Path):
    with pytest.raises(SettingError, match=r"needs a run.*Run.open"):
        export(list(truth.run), "colmap", tmp_path / "a")


@pytest.mark.parametrize(
    "options",
    [
        {"cell": 0},
        {"window": -1},
        {"every": 0},
        {"depth_tolerance": 0.0},
        {"min_confidence": float("nan")},
    ],
    ids=str,
)
def test_senseless_options(truth: Truth, tmp_path: Path, options: dict):
    with pytest.raises(SettingError, match=next(iter(options))):
        export(truth.run, "colmap", tmp_path / "a", **options)


def test_a_run_of_real_length_needs_the_memory_of_a_window(clip: Clip, tmp_path: Path):
    """What the tracker holds, after any number of views."""
    from ttt3r.exporters.colmap import _view
    from ttt3r.exporters.tracks import Tracker

    truth = truth_of(clip, tmp_path)
    views = [_view(p, p.intrinsics.double().numpy()) for p in truth.run]
    tracker, held, settled = Tracker(CELL, 3, 0.05, 1.5), [], 0
    for number in range(61):
        done = tracker.add(views[number % FRAMES])
        settled += 0 if done is None else len(done.seen)
        held.append(sum(len(item[0]) for item in tracker._seen))
    assert max(held[40:]) < 1.1 * max(held[:40]) and len(tracker._seen) <= 6
    assert settled + len(tracker.finish().seen) == 61


def placed_elsewhere(run: Run, index: int) -> None:
    path = frame_path(run.folder, index)
    lost = torch.full((4, 4), float("nan"))
    write_prediction(path, replace(read_prediction(path), world_from_camera=lost))


def test_frames_without_a_pose_are_left_out(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path)
    placed_elsewhere(truth.run, 4)
    written = export(truth.run, "colmap", tmp_path / "a", cell=CELL)
    model = read(written.path)
    assert "1 frames without a pose left out" in written.what
    assert sorted(index_of(i.name) for i in model.images.values()) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert reprojection_errors(model, truth).mean() < 1.5
