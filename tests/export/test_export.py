"""Exporters: their formats read back, their memory, and what they refuse."""

import errno
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.sources.clips import picture
from ttt3r.errors import RunError, SettingError
from ttt3r.export import EXPORTERS, export, ply, write
from ttt3r.geometry import se3
from ttt3r.stream.frame_file import write_prediction
from ttt3r.stream.run import FORMAT, MANIFEST, Run, frame_path
from ttt3r.types import Prediction

TYPES = {"float": "<f4", "uchar": "u1"}
HEIGHT, WIDTH = 6, 8


def read_ply(path: Path) -> np.ndarray:
    """An independent reader, for files with vertices only."""
    content = path.read_bytes()
    end = content.index(b"end_header\n") + len(b"end_header\n")
    lines = content[:end].decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (count,) = [int(line.split()[2]) for line in lines if line.startswith("element vertex ")]
    properties = [line.split()[1:] for line in lines if line.startswith("property ")]
    kind = np.dtype([(name, TYPES[word]) for word, name in properties])
    assert len(content) - end == count * kind.itemsize
    return np.frombuffer(content[end:], kind)


def prediction(index: int, height: int = HEIGHT, width: int = WIDTH) -> Prediction:
    generator = torch.Generator().manual_seed(index)
    encoding = torch.randn(7, generator=generator, dtype=torch.float64)
    return Prediction(
        index=index,
        timestamp=index / 10,
        image=torch.from_numpy(picture(index, width, height)),
        points=torch.randn(height, width, 3, generator=generator).half().float(),
        confidence=(1 + 2 * torch.rand(height, width, generator=generator)).half().float(),
        world_from_camera=se3.pose_from_encoding(encoding).float(),
    )


def make_run(folder: Path, predictions: list[Prediction]) -> Run:
    (folder / "frames").mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "status": "complete"}))
    for item in predictions:
        write_prediction(frame_path(folder, item.index), item)
    return Run.open(folder)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", [prediction(index) for index in range(5)])


def expected_cloud(
    run: Run, stride: int = 1, every: int = 1, least: float = 1.5
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Point by point: (position, colour, confidence)."""
    cloud = []
    for p in list(run)[::every]:
        assert p.points is not None and p.confidence is not None and p.image is not None
        pose = p.world_from_camera.double().numpy()
        for y in range(0, p.points.shape[0], stride):
            for x in range(0, p.points.shape[1], stride):
                if p.confidence[y, x] > least:
                    world = pose[:3, :3] @ p.points[y, x].double().numpy() + pose[:3, 3]
                    cloud.append((world, p.image[y, x].numpy(), float(p.confidence[y, x])))
    return cloud


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"every": 2}, {"min_confidence": 2.0}, {"stride": 3, "every": 4}],
    ids=str,
)
def test_ply(run: Run, tmp_path: Path, options: dict):
    path = export(run, "ply", tmp_path / "new" / "cloud.ply", **options)
    cloud = read_ply(path)
    least = options.get("min_confidence", 1.5)
    expected = expected_cloud(run, options.get("stride", 1), options.get("every", 1), least)
    assert 0 < len(cloud) == len(expected)
    for vertex, (position, colour, confidence) in zip(cloud, expected, strict=True):
        got = [vertex["x"], vertex["y"], vertex["z"]]
        np.testing.assert_allclose(got, position, rtol=1e-5, atol=1e-5)
        assert [vertex["red"], vertex["green"], vertex["blue"]] == colour.tolist()
        assert vertex["confidence"] == confidence


def test_ply_has_the_documented_types(run: Run, tmp_path: Path):
    cloud = read_ply(export(run, "ply", tmp_path / "cloud.ply"))
    kinds = {name: cloud.dtype[name].str for name in cloud.dtype.names or ()}
    assert kinds == {
        **dict.fromkeys("xyz", "<f4"),
        **dict.fromkeys(("red", "green", "blue"), "|u1"),
        "confidence": "<f4",
    }
    assert b"\nelement vertex 0" in (tmp_path / "cloud.ply").read_bytes()[:300]


def test_ply_drops_what_is_not_finite(tmp_path: Path):
    one = prediction(0)
    assert one.points is not None and one.confidence is not None
    points, confidence = one.points.clone(), torch.full((HEIGHT, WIDTH), 2.0)
    points[0, 0, 1] = float("nan")
    points[1, 1, 2] = float("inf")  # a frame file holds the largest half instead
    points[2, 2, 0] = -1e9
    confidence[3, 3] = float("nan")
    run = make_run(tmp_path / "run", [replace(one, points=points, confidence=confidence)])
    cloud = read_ply(export(run, "ply", tmp_path / "cloud.ply"))
    assert len(cloud) == HEIGHT * WIDTH - 4
    assert all(np.isfinite(cloud[axis]).all() and abs(cloud[axis]).max() < 100 for axis in "xyz")


def test_ply_is_grey_without_images(tmp_path: Path):
    run = make_run(tmp_path / "run", [replace(prediction(0), image=None)])
    cloud = read_ply(export(run, "ply", tmp_path / "cloud.ply"))
    for colour in ("red", "green", "blue"):
        assert set(cloud[colour]) == {128}


def test_ply_needs_the_memory_of_one_frame(tmp_path: Path):
    """NumPy's memory is traced; thrice the frames must not need more of it."""
    peaks = []
    for count in (4, 12):
        frames = [prediction(index, 96, 128) for index in range(count)]
        run = make_run(tmp_path / str(count), frames)
        write(run, "ply", tmp_path / "cloud.ply")  # whatever is imported or cached the first time
        tracemalloc.start()
        write(run, "ply", tmp_path / "cloud.ply", min_confidence=0.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_ply_without_a_point_left_says_what_would_help(run: Run, tmp_path: Path):
    largest = max(float(p.confidence.max()) for p in run if p.confidence is not None)
    with pytest.raises(RunError, match=rf"above 7; the largest is {largest:.4g}.*min-confidence"):
        export(run, "ply", tmp_path / "cloud.ply", min_confidence=7.0)
    assert not list(tmp_path.glob("*.ply*"))


def test_ply_of_nothing_finite(tmp_path: Path):
    points = torch.full((HEIGHT, WIDTH, 3), float("nan"))
    run = make_run(tmp_path / "run", [replace(prediction(0), points=points)])
    with pytest.raises(RunError, match="finite"):
        export(run, "ply", tmp_path / "cloud.ply")


def test_tum(run: Run, tmp_path: Path):
    path = export(run, "tum", tmp_path / "t.tum")
    rows = np.loadtxt(path)
    assert rows.shape == (5, 8)
    for row, p in zip(rows, run, strict=True):
        x, y, z, w = row[4:]
        encoding = torch.tensor([*row[1:4], w, x, y, z])
        assert row[0] == pytest.approx(p.timestamp)
        torch.testing.assert_close(
            se3.pose_from_encoding(encoding).float(), p.world_from_camera, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("format", EXPORTERS)
class TestEveryExporter:
    def test_through_the_run(self, run: Run, tmp_path: Path, format: str):
        path = run.export(format, tmp_path / "a")
        assert path == tmp_path / "a" and path.stat().st_size > 0

    def test_replaces_a_file_and_leaves_nothing_beside_it(
        self, run: Run, tmp_path: Path, format: str
    ):
        (tmp_path / "out").mkdir()
        path = tmp_path / "out" / "file"
        path.write_text("old")
        written = write(run, format, str(path))
        assert written.path == path and written.what.split()[0].replace(",", "").isdecimal()
        assert path.read_bytes() != b"old" and list(path.parent.iterdir()) == [path]

    def test_unknown_option(self, run: Run, tmp_path: Path, format: str):
        with pytest.raises(SettingError, match=f"{format} has no option quality, size; it takes"):
            export(run, format, tmp_path / "a", quality=1, size=2)

    def test_empty_run(self, tmp_path: Path, format: str):
        with pytest.raises(RunError, match="no frames yet"):
            export(make_run(tmp_path / "run", []), format, tmp_path / "a")

    def test_missing_poses(self, tmp_path: Path, format: str):
        run = make_run(tmp_path / "run", [replace(prediction(0), world_from_camera=None)])
        with pytest.raises(RunError, match="output 'pose'"):
            export(run, format, tmp_path / "a")

    def test_a_place_that_cannot_be_written(self, run: Run, tmp_path: Path, format: str):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "below", tmp_path):
            with pytest.raises(RunError, match="cannot write"):
                export(run, format, path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]

    def test_damaged_frame(self, run: Run, tmp_path: Path, format: str):
        frame_path(run.folder, 1).write_bytes(b"nonsense")
        with pytest.raises(RunError, match=r"000001\.safetensors is missing or damaged"):
            export(run, format, tmp_path / "a")
        assert not (tmp_path / "a").exists()


def test_missing_points(tmp_path: Path):
    run = make_run(tmp_path / "run", [replace(prediction(0), points=None, confidence=None)])
    with pytest.raises(RunError, match="output 'points'"):
        export(run, "ply", tmp_path / "a")


def test_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = ply.vertices

    def fails_later(prediction: Prediction, stride: int) -> np.ndarray:
        if prediction.index == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(prediction, stride)

    monkeypatch.setattr(ply, "vertices", fails_later)
    path = tmp_path / "cloud.ply"
    path.write_text("old")
    with pytest.raises(RunError, match=r"No space left on device.*Make room"):
        export(run, "ply", path)
    assert path.read_text() == "old" and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "options",
    [{"stride": 0}, {"every": -1}, {"min_confidence": float("nan")}],
    ids=str,
)
def test_senseless_options(run: Run, tmp_path: Path, options: dict):
    with pytest.raises(SettingError, match=next(iter(options))):
        export(run, "ply", tmp_path / "a", **options)


def test_unknown_format(run: Run, tmp_path: Path):
    with pytest.raises(SettingError, match=r"'obj'; choose one of: tum, ply"):
        export(run, "obj", tmp_path / "a")
