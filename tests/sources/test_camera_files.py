"""Intrinsics from the files of other programs."""

from pathlib import Path

import pytest

from ttt3r.errors import InputError
from ttt3r.sources.camera_files import intrinsics_of
from ttt3r.sources.intrinsics import Intrinsics
from ttt3r.sources.plain_yaml import read_yaml

OPENCV = """%YAML:1.0
---
calibration_time: "Thu 01 Jan 2026 10:00:00"
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 5.3259e+002, 0., 3.1950e+002, 0.,
       5.3101e+002, 2.3950e+002, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -2.8e-001, 2.5e-002, 1.2e-003,
       -1.3e-004, 1.6e-001 ]
avg_reprojection_error: 1.8e-001
"""
ROS = """image_width: 640
image_height: 480
camera_name: head
camera_matrix:
  rows: 3
  cols: 3
  data: [532.59, 0, 319.5, 0, 531.01, 239.5, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.28, 0.025, 0.0012, -0.00013, 0.16]
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
"""
KALIBR = """cam0:
  cam_overlaps: [1]
  camera_model: pinhole  # of the left one
  distortion_coeffs: [-0.28, 0.025, 0.0012, -0.00013]
  distortion_model: radtan
  intrinsics: [532.59, 531.01, 319.5, 239.5]
  resolution: [640, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, -0.11]
  - [0.0, 1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [0.1, 0.0, 0.0, 0.0]
  distortion_model: radtan
  intrinsics: [500, 501, 320, 240]
  resolution: [640, 480]
"""
EUROC = """# General sensor definitions.
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [1.0, 0.0, 0.0, 0.0,
         0.0, 1.0, 0.0, 0.0,
         0.0, 0.0, 1.0, 0.0,
         0.0, 0.0, 0.0, 1.0]
rate_hz: 20
resolution: [640, 480]
camera_model: pinhole
intrinsics: [532.59, 531.01, 319.5, 239.5] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28, 0.025, 0.0012, -0.00013]
"""
LENS4 = (-0.28, 0.025, 0.0012, -0.00013)
PINHOLE4 = Intrinsics(532.59, 531.01, 319.5, 239.5, LENS4, (640, 480))
PINHOLE5 = Intrinsics(532.59, 531.01, 319.5, 239.5, (*LENS4, 0.16), (640, 480))
HEAD = "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT\n"


def colmap(model: str, numbers: str) -> str:
    return f"{HEAD}1 {model} 640 480 {numbers}\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (OPENCV, PINHOLE5),
        (ROS, PINHOLE5),
        (EUROC, PINHOLE4),
        (colmap("SIMPLE_PINHOLE", "500 320 240"), Intrinsics(500.0, 500.0, 319.5, 239.5)),
        (colmap("PINHOLE", "500 510 320 240"), Intrinsics(500.0, 510.0, 319.5, 239.5)),
        (
            colmap("SIMPLE_RADIAL", "500 320 240 0.1"),
            Intrinsics(500.0, 500.0, 319.5, 239.5, (0.1, 0.0, 0.0, 0.0)),
        ),
        (
            colmap("RADIAL", "500 320 240 0.1 0.2"),
            Intrinsics(500.0, 500.0, 319.5, 239.5, (0.1, 0.2, 0.0, 0.0)),
        ),
        (
            colmap("OPENCV", "500 510 320 240 0.1 0.2 0.3 0.4"),
            Intrinsics(500.0, 510.0, 319.5, 239.5, (0.1, 0.2, 0.3, 0.4)),
        ),
        (
            colmap("FULL_OPENCV", "500 510 320 240 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8"),
            Intrinsics(500.0, 510.0, 319.5, 239.5, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
        ),
        (colmap("SIMPLE_RADIAL", "500 320 240 0"), Intrinsics(500.0, 500.0, 319.5, 239.5)),
    ],
)
def test_each_form(tmp_path: Path, content: str, expected: Intrinsics) -> None:
    (tmp_path / "camera").write_text(content)
    got = intrinsics_of(tmp_path / "camera")
    assert got.size == (640, 480)
    assert (got.fx, got.fy, got.cx, got.cy) == (expected.fx, expected.fy, expected.cx, expected.cy)
    assert got.distortion == expected.distortion
    assert Intrinsics.of_description(got.describe()) == got


def test_one_of_several_cameras(tmp_path: Path) -> None:
    path = tmp_path / "camchain.yaml"
    path.write_text(KALIBR)
    assert intrinsics_of(f"{path}:cam0") == PINHOLE4
    assert intrinsics_of(f"{path}:cam1").fy == 501
    with pytest.raises(InputError, match=r"2 cameras \(cam0, cam1\): choose one with FILE:NAME"):
        intrinsics_of(path)
    with pytest.raises(InputError, match="there is no cam2"):
        intrinsics_of(f"{path}:cam2")
    (tmp_path / "cameras.txt").write_text(
        HEAD + "1 PINHOLE 640 480 1 1 1 1\n7 PINHOLE 64 48 9 9 32 24\n"
    )
    assert intrinsics_of(f"{tmp_path}:7") == Intrinsics(9.0, 9.0, 31.5, 23.5, (), (64, 48))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (colmap("OPENCV_FISHEYE", "500 510 320 240 0 0 0 0"), "camera model is OPENCV_FISHEYE"),
        (colmap("FOV", "500 510 320 240 1"), "camera model is FOV"),
        (colmap("PINHOLE", "500 510 320"), "has 4 parameters, not 3"),
        (colmap("PINHOLE", "500 nan 320 240"), "must be finite"),
        (KALIBR.replace("pinhole", "omni"), "2 cameras"),
        (EUROC.replace("radial-tangential", "equidistant"), "distortion model is equidistant"),
        (EUROC.replace("camera_model: pinhole", "camera_model: ds"), "camera model is ds"),
        (EUROC.replace("[532.59, 531.01,", "["), "unpack"),
        (ROS.replace("plumb_bob", "fisheye"), "distortion model is fisheye"),
        (OPENCV + "fisheye_model: 1\n", "camera model is a fisheye"),
        (OPENCV.replace("camera_matrix", "matrix"), "no camera_matrix; it has calibrationtime"),
        (OPENCV.replace("3.1950e+002, 0.,", "3.1950e+002, 0.5,"), r"not \[fx 0 cx"),
        (OPENCV.replace("-1.3e-004, 1.6e-001 ]", "0, 0, 0, 0, 0, 1]"), "tilted sensors"),
        (OPENCV.replace("1.6e-001 ]", "1.6e-001"), "bracket is not closed"),
        ("some words\nthat are no yaml\n", "no name before a colon"),
        ("", "is empty"),
        ("# a comment alone\n", "holds 0 cameras"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        intrinsics_of(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "cameras.bin").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="model_converter"):
        intrinsics_of(tmp_path / "cameras.bin")
    with pytest.raises(InputError, match="does not exist; intrinsics are fx,fy,cx,cy"):
        intrinsics_of(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match=r"cameras\.txt cannot be read"):
        intrinsics_of(tmp_path)


def test_yaml_as_pyyaml_reads_it() -> None:
    """But for tags and directives, which OpenCV writes in its own way, and whole numbers."""
    yaml = pytest.importorskip("yaml")

    def floats(value: object) -> object:
        if isinstance(value, dict):
            return {key: floats(item) for key, item in value.items()}
        if isinstance(value, list):
            return [floats(item) for item in value]
        return float(value) if isinstance(value, int) else value

    for text in (KALIBR, EUROC):
        assert read_yaml(text) == floats(yaml.safe_load(text))
