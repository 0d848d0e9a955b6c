"""Known intrinsics: how they are given, what they do to frames, and to what is predicted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.exporters.truth import SIZE, render, write_source
from tests.sources.clips import write_clip
from ttt3r.cli import main
from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.exporters import export
from ttt3r.geometry.camera import pixel_grid, project
from ttt3r.runs.reader import Run
from ttt3r.scenes.clip import Clip
from ttt3r.sources import Intrinsics, open_source, prepare_frame
from ttt3r.sources.lens import Undistortion
from ttt3r.stream.placing import place, read_image
from ttt3r.types import Frame, Preparation, Reading

WIDTH, HEIGHT = 160, 120
# A wide lens with barrel distortion that is not centred, and one that needs all coefficients.
LENSES = [
    (-0.25, 0.08, 0.002, -0.003),
    (-0.25, 0.08, 0.002, -0.003, 0.01),
    (0.3, 0.05, 0.001, 0.002, 0.01, 0.55, 0.1, 0.02),
]


def camera(lens: tuple[float, ...] = ()) -> Intrinsics:
    return Intrinsics(110.0, 104.5, 83.25, 57.75, lens, (WIDTH, HEIGHT))


def smooth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A picture as a function of the place, 0 to 255, smooth enough for bilinear sampling."""
    waves = [np.sin(x / 9 + k) * np.cos(y / 11 - k) for k in range(3)]
    return np.stack(waves, axis=-1) * 110 + 127.5


def filmed(intrinsics: Intrinsics) -> np.ndarray:
    """What a distorting lens shows of that picture, by solving its model for each pixel."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    shown = (u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy
    x, y = shown
    for _ in range(60):  # fixed point: the distortion is a contraction here
        far_x, far_y = intrinsics.distorted(x, y)
        x, y = x + shown[0] - far_x, y + shown[1] - far_y
    again = intrinsics.distorted(x, y)
    np.testing.assert_allclose(again, shown, atol=1e-9)
    place = x * intrinsics.fx + intrinsics.cx, y * intrinsics.fy + intrinsics.cy
    return smooth(*place).round().astype(np.uint8)


@pytest.mark.parametrize("lens", LENSES, ids=len)
def test_a_distorted_image_is_undistorted(lens: tuple[float, ...]) -> None:
    intrinsics = camera(lens)
    (frame,) = open_source([filmed(intrinsics)], intrinsics=intrinsics).frames()
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    inside = (frame.image > 0).any(axis=2)
    assert 0.85 < inside.mean() <= 1
    wrong = np.abs(frame.image.astype(float) - smooth(u, v))[inside]
    # Between pixels a wave of 9 pixels is off by 110 / 9² / 8 at most; two roundings add 1.
    assert np.median(wrong) < 0.6 and np.percentile(wrong, 99) < 2
    np.testing.assert_array_equal(frame.intrinsics, intrinsics.matrix)
    before = np.abs(filmed(intrinsics).astype(float) - smooth(u, v))
    assert np.median(before) > 5  # the lens does something


def test_undistortion_as_one_would_write_it() -> None:
    """The slow twin: each pixel by itself."""
    intrinsics = camera(LENSES[0])
    image = filmed(intrinsics)
    fast = Undistortion(intrinsics, intrinsics.matrix, (WIDTH, HEIGHT))(image)
    for v, u in ((3, 5), (60, 80), (119, 159), (100, 20), (0, 0)):
        x, y = (u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy
        far = intrinsics.distorted(np.array([x]), np.array([y]))
        at = far[0][0] * intrinsics.fx + intrinsics.cx, far[1][0] * intrinsics.fy + intrinsics.cy
        left, top = int(np.floor(at[0])), int(np.floor(at[1]))
        a, b = at[0] - left, at[1] - top
        four = image[top : top + 2, left : left + 2].astype(float)
        expected = (
            (1 - a) * (1 - b) * four[0, 0]
            + a * (1 - b) * four[0, 1]
            + (1 - a) * b * four[1, 0]
            + a * b * four[1, 1]
        )
        np.testing.assert_allclose(fast[v, u], expected, atol=0.51)  # rounded to whole numbers


def test_a_lens_that_folds_shows_nothing_twice() -> None:
    """x (1 - 0.9 x²) rises up to 0.61 only; beyond, the polynomial comes back to the middle."""
    intrinsics = camera((-0.9, 0.0, 0.0, 0.0))
    undistort = Undistortion(intrinsics, intrinsics.matrix, (WIDTH, HEIGHT))
    bright = undistort(np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot((u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy)
    assert (bright[radius > 0.62] == 0).all() and (bright[radius < 0.6] == 200).all()
    assert undistort.empty == pytest.approx((radius > 0.6086).mean(), abs=0.01)


def test_without_distortion_pixels_stay() -> None:
    image = filmed(camera())
    for lens in ((), (0.0, 0.0, 0.0, 0.0)):
        (frame,) = open_source([image], intrinsics=camera(lens)).frames()
        np.testing.assert_array_equal(frame.image, image)


def test_intrinsics_follow_turns_crops_and_sizes() -> None:
    """A point of the original image is at the same place by its ray in the prepared one."""
    source = open_source([filmed(camera())], intrinsics=camera(), rotate=90, crop="3:4")
    (frame,) = source.frames()
    prepared = prepare_frame(frame, Preparation(size=64, patch=16))
    assert prepared.transform is not None and prepared.intrinsics is not None
    ray = np.array([0.1, -0.2, 1.0])
    u, v, _ = camera().matrix @ ray
    # Clockwise by 90 degrees: (u, v) goes to (119 - v, u); 3:4 of 120x160 keeps everything.
    turned = np.array([HEIGHT - 1 - v, u, 1.0])
    there = prepared.transform.processed_from_original @ turned
    turned_ray = np.array([-ray[1], ray[0], 1.0])  # the camera turns along
    np.testing.assert_allclose(prepared.intrinsics @ turned_ray, there, atol=1e-9)


def test_stored_pixels_that_are_not_square() -> None:
    """Intrinsics are those of the pixels that the file stores."""
    image = filmed(camera())
    wide = np.repeat(image, 2, axis=1)
    frame = Frame(wide, stored_size=(WIDTH, HEIGHT))
    (read,) = open_source([frame], intrinsics=camera()).frames()
    assert read.intrinsics is not None
    assert read.intrinsics[0, 0] == 220 and read.intrinsics[0, 2] == 2 * 83.25 + 0.5
    prepared = prepare_frame(read, Preparation(size=64, patch=16))
    assert prepared.transform is not None
    original = np.linalg.inv(prepared.transform.processed_from_original) @ prepared.intrinsics
    np.testing.assert_allclose(original, camera().matrix, rtol=1e-12, atol=1e-9)


def test_points_lie_on_the_known_rays() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 6, 8, 3, generator=generator) + 1
    matrix = np.array([[9.0, 0, 4.2], [0, 8.5, 2.9], [0, 0, 1]])
    shown = read_image(Frame(np.zeros((6, 8, 3), np.uint8), intrinsics=matrix), 0)
    similarity = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    said = Reading(points=points, confidence=torch.ones(1, 6, 8))
    got = place(said, shown, 0, frozenset({"points"}), 1, similarity, None)
    assert got.points is not None and got.intrinsics is not None
    torch.testing.assert_close(got.points[..., 2], 3 * points[0, ..., 2])
    torch.testing.assert_close(got.intrinsics, torch.from_numpy(matrix).float())
    pixels = project(got.points, got.intrinsics)
    torch.testing.assert_close(pixels, pixel_grid((6, 8), pixels), rtol=0, atol=1e-5)
    unknown = replace(shown, frame=replace(shown.frame, intrinsics=None))
    free = place(said, unknown, 0, frozenset({"points"}), 1, similarity, None)
    assert free.points is not None and torch.equal(free.points, 3 * points[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("525,525,320", "fx,fy,cx,cy"),
        ("525,525,320,240,0.1", "fx,fy,cx,cy"),
        ("", "fx,fy,cx,cy"),
        ("-525,525,320,240", "must be above 0"),
        ("525,1e999,320,240", "must be finite"),
    ],
)
def test_senseless_numbers(given: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        open_source([filmed(camera())], intrinsics=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            Intrinsics(110.0, 110.0, 80.0, 60.0, (), (320, 240)),
            "320x240 pixels, and frame 0 has 160x120",
        ),
        (Intrinsics(110.0, 110.0, 80.0, 60.0, (), (120, 160)), "turned"),
        (Intrinsics(4.2, 4.2, 80.0, 60.0), "not in millimetres"),
        (Intrinsics(0.7, 0.9, 0.5, 0.5), "not in millimetres"),
        (Intrinsics(110.0, 110.0, 320.0, 60.0), "lies outside of frame 0"),
    ],
)
def test_intrinsics_of_other_images(given: Intrinsics, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(open_source([filmed(camera())], intrinsics=given).frames())


def test_intrinsics_are_given_once() -> None:
    frames = [Frame(filmed(camera()), intrinsics=camera().matrix)]
    with pytest.raises(SettingError, match="intrinsics of its own"):
        list(open_source(frames, intrinsics=camera()).frames())
    for opened in (
        open_source(frames, rotate=90),
        open_source([filmed(camera())], intrinsics=camera()),
    ):
        with pytest.raises(SettingError, match="where the source is opened"):
            open_source(opened, intrinsics=camera())


# ---------------------------------------------------------------------------------- runs, exports

GIVEN = "187.123456789,188.2,97.3,81.9"
LENS = GIVEN + ",-0.2,0.03,0.001,-0.002"


@pytest.fixture(scope="module")
def film() -> Clip:
    return render(3)


def run_of(source: Path, out: Path, *words: str) -> int:
    model = ("--model", "tiny-dpt", "--device", "cpu", "--no-summary", "--quiet")
    return main(["run", str(source), "--out", str(out), *model, "--size", "64", *words])


def test_exports_state_what_was_given(film: Clip, tmp_path: Path) -> None:
    source = write_source(film, tmp_path / "shots")
    for turned in ("0", "90"):
        out = tmp_path / f"run{turned}"
        assert run_of(source, out, "--intrinsics", GIVEN, "--rotate", turned) == 0
        run = Run.open(out)
        depth, matrix = run[0].points[..., 2], run[0].intrinsics
        # float16 on disk: 1e-3 of a coordinate, which is up to 2 depths from the axis
        ray = run[0].points[..., :2] / depth[..., None]
        grid = pixel_grid(tuple(depth.shape), matrix)
        expected = (grid - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]
        torch.testing.assert_close(ray, expected, rtol=0, atol=4e-3)
        export(run, "nerfstudio", tmp_path / f"nerf{turned}", min_confidence=0.0)
        said = json.loads((tmp_path / f"nerf{turned}/transforms.json").read_text())
        for frame in said["frames"]:
            numbers = [frame[name] for name in ("w", "h", "fl_x", "fl_y", "cx", "cy")]
            assert numbers == [SIZE[1], SIZE[0], 187.123456789, 188.2, 97.8, 82.4]
        for kind in ("shared", "per-image"):
            folder = tmp_path / f"colmap-{turned}-{kind}"
            export(run, "colmap", folder, text=True, camera=kind, min_confidence=0.0)
            rows = (folder / "sparse/0/cameras.txt").read_text().splitlines()
            numbers = " ".join(("187.123456789", "188.2", "97.8", "82.4"))
            cameras = [row for row in rows if not row.startswith("#")]
            assert cameras == [f"1 PINHOLE {SIZE[1]} {SIZE[0]} {numbers}"]


@pytest.mark.parametrize("suffix", ["", ".mp4"], ids=["images", "video"])
def test_exports_hold_the_undistorted_images(film: Clip, tmp_path: Path, suffix: str) -> None:
    source = write_source(film, tmp_path / f"shots{suffix}")
    assert run_of(source, tmp_path / "run", "--intrinsics", LENS) == 0
    export(Run.open(tmp_path / "run"), "nerfstudio", tmp_path / "nerf", min_confidence=0.0)
    said = json.loads((tmp_path / "nerf/transforms.json").read_text())
    undistorted = list(open_source(source, intrinsics=LENS).frames())
    distorted = list(open_source(source).frames())
    for frame, right, wrong in zip(said["frames"], undistorted, distorted, strict=True):
        (written,) = open_source(tmp_path / "nerf" / frame["file_path"]).frames()
        difference = np.abs(written.image.astype(float) - right.image).mean()
        assert difference <= (0 if suffix == "" else 3)  # JPEG of a frame of a video
        assert np.abs(written.image.astype(float) - wrong.image).mean() > difference + 1
        assert frame["fl_x"] == 187.123456789


def test_a_resumed_run_has_the_same_camera(
    film: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_clip(tmp_path / "walk.mp4", list(film.image.numpy()))
    assert run_of(source, tmp_path / "run", "--intrinsics", LENS) == 0
    capsys.readouterr()
    assert run_of(source, tmp_path / "run", "--intrinsics", GIVEN, "--resume") == 2
    assert "source.intrinsics: was" in capsys.readouterr().err


def test_the_camera_may_be_moved_along(film: Clip, tmp_path: Path) -> None:
    source = write_source(film, tmp_path / "shots")
    assert run_of(source, tmp_path / "run", "--intrinsics", LENS) == 0
    source.rename(tmp_path / "moved")
    run = Run.open(tmp_path / "run")
    export(run, "colmap", tmp_path / "a", images=tmp_path / "moved", min_confidence=0.0)
    assert len(list((tmp_path / "a/images").iterdir())) == 3
    run.manifest["source"]["intrinsics"] = {"fx": 1}
    with pytest.raises(RunError, match="noted intrinsics"):
        export(run, "colmap", tmp_path / "b", images=tmp_path / "moved")
