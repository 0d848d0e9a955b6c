"""Exporters: their formats read back, their memory, and what they refuse."""

import errno
import json
import resource
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ttt3r
from tests.sources.clips import picture
from ttt3r.cli import main
from ttt3r.errors import RunError, SettingError
from ttt3r.exporters import EXPORTERS, colmap, export
from ttt3r.geometry import camera, se3
from ttt3r.runs import reader
from ttt3r.runs.frame_file import read_prediction, write_prediction
from ttt3r.runs.manifest import FORMAT, MANIFEST
from ttt3r.runs.reader import Run, frame_path
from ttt3r.summary import samples
from ttt3r.types import Prediction

NEEDS_POSES = [format for format in EXPORTERS if format not in ("depth", "video", "summary")]
NEEDS_POINTS = [f for f in EXPORTERS if f not in ("tum", "kitti", "euroc", "summary")]
STAMPED = ("rrd",)  # holds the time of writing and random numbers
TYPES = {"float": "<f4", "uchar": "u1"}
HEIGHT, WIDTH = 12, 16


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
    intrinsics = camera.default_intrinsics((height, width), torch.tensor(float(width)))
    depth = 2 + torch.rand(height, width, generator=generator) / 10
    return Prediction(
        index=index,
        timestamp=index / 10,
        image=torch.from_numpy(picture(index, width, height)),
        points=camera.unproject(depth, intrinsics).half().float(),
        intrinsics=intrinsics,
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
    [
        {},
        {"pixel_stride": 2},
        {"every": 2},
        {"min_confidence": 2.0},
        {"pixel_stride": 3, "every": 4},
    ],
    ids=str,
)
def test_ply(run: Run, tmp_path: Path, options: dict):
    path = export(run, "ply", tmp_path / "new" / "cloud.ply", **options).path
    cloud = read_ply(path)
    least = options.get("min_confidence", 1.5)
    expected = expected_cloud(run, options.get("pixel_stride", 1), options.get("every", 1), least)
    assert 0 < len(cloud) == len(expected)
    for vertex, (position, colour, confidence) in zip(cloud, expected, strict=True):
        got = [vertex["x"], vertex["y"], vertex["z"]]
        np.testing.assert_allclose(got, position, rtol=1e-5, atol=1e-5)
        assert [vertex["red"], vertex["green"], vertex["blue"]] == colour.tolist()
        assert vertex["confidence"] == confidence


def test_ply_has_the_documented_types(run: Run, tmp_path: Path):
    cloud = read_ply(export(run, "ply", tmp_path / "cloud.ply").path)
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
    cloud = read_ply(export(run, "ply", tmp_path / "cloud.ply").path)
    assert len(cloud) == HEIGHT * WIDTH - 4
    assert all(np.isfinite(cloud[axis]).all() and abs(cloud[axis]).max() < 100 for axis in "xyz")


def test_ply_is_grey_without_images(tmp_path: Path):
    run = make_run(tmp_path / "run", [replace(prediction(0), image=None)])
    cloud = read_ply(export(run, "ply", tmp_path / "cloud.ply").path)
    for colour in ("red", "green", "blue"):
        assert set(cloud[colour]) == {128}


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
    path = export(run, "tum", tmp_path / "t.tum").path
    rows = np.loadtxt(path)
    assert rows.shape == (5, 8)
    for row, p in zip(rows, run, strict=True):
        x, y, z, w = row[4:]
        encoding = torch.tensor([*row[1:4], w, x, y, z])
        assert row[0] == pytest.approx(p.timestamp)
        torch.testing.assert_close(
            se3.pose_from_encoding(encoding).float(), p.world_from_camera, rtol=1e-5, atol=1e-5
        )


def content(path: Path) -> dict[str, bytes]:
    """Bytes of a file, or of the files in a folder, by name."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("format", EXPORTERS)
class TestEveryExporter:
    def test_through_the_public_name(self, run: Run, tmp_path: Path, format: str):
        path, _ = ttt3r.export(run, format, tmp_path / "a")
        assert path == tmp_path / "a" and any(content(path).values())
        assert path.is_dir() == EXPORTERS[format].folder

    def test_refuses_to_replace_unless_told(self, run: Run, tmp_path: Path, format: str):
        path = tmp_path / "out" / "it"
        first = export(run, format, str(path))
        assert first.path == path and first.what.split()[0].replace(",", "").isdecimal()
        before = content(path)
        with pytest.raises(RunError, match=r"exists already; add --overwrite .*overwrite=True"):
            export(run, format, path)
        again = export(run, format, path, overwrite=True)
        assert again == first and names(path.parent) == ["it"]
        assert content(path) == before or format in STAMPED

    def test_never_replaces_what_is_of_another_kind(self, run: Run, tmp_path: Path, format: str):
        path = tmp_path / "out" / "it"
        if EXPORTERS[format].folder:
            path.mkdir(parents=True)
            (path / "mine.txt").write_text("mine")
            reason = r"no export wrote \(mine.txt\)"
        else:
            path.mkdir(parents=True)
            reason = "this is a folder"
        with pytest.raises(RunError, match=reason):
            export(run, format, path, overwrite=True)
        if EXPORTERS[format].folder:
            assert names(path) == ["mine.txt"]
            (path / "mine.txt").unlink()
            path.rmdir()
            path.write_text("mine")
            with pytest.raises(RunError, match="this is a file"):
                export(run, format, path, overwrite=True)
        assert names(path.parent) == ["it"]

    def test_replaces_a_folder_only_if_nothing_was_added(
        self, run: Run, tmp_path: Path, format: str
    ):
        if not EXPORTERS[format].folder:
            pytest.skip("writes a file")
        path = tmp_path / "out" / "it"
        path.mkdir(parents=True)
        export(run, format, path)  # an empty folder is as good as none
        (path / "trained").mkdir()
        with pytest.raises(RunError, match=r"no export wrote \(trained\)"):
            export(run, format, path, overwrite=True)
        assert (path / "trained").is_dir()

    def test_the_temporary_place_has_the_name_that_was_asked_for(
        self, run: Run, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
    ):
        """Libraries choose a format by its suffix."""
        seen = []

        def write(predictions: object, path: Path) -> str:
            seen.append(path)
            (path / "a" if EXPORTERS[format].folder else path).write_text("x")
            return "1 thing"

        exporter = replace(EXPORTERS[format], write=write)
        monkeypatch.setitem(EXPORTERS, format, exporter)
        export(run, format, tmp_path / "it.suffix")
        assert seen[0].name == "it.suffix" and seen[0] != tmp_path / "it.suffix"

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
    def test_what_ends_it_leaves_nothing(
        self, run: Run, tmp_path: Path, format: str, error: BaseException | type[BaseException]
    ):
        def done(frames: int) -> None:
            if frames == 3:
                raise error

        wanted = KeyboardInterrupt if error is KeyboardInterrupt else RunError
        with pytest.raises(wanted):
            export(run, format, tmp_path / "out" / "a", done=done)
        assert names(tmp_path / "out") == []
        kept = export(run, format, tmp_path / "out" / "a").path
        before = content(kept)
        with pytest.raises(wanted):
            export(run, format, kept, overwrite=True, done=done)
        assert content(kept) == before and names(tmp_path / "out") == ["a"]

    def test_two_at_once(self, run: Run, tmp_path: Path, format: str):
        """The second one is refused while the first is at work, which then finishes."""
        path = tmp_path / "out" / "a"
        refused = []

        def done(frames: int) -> None:
            if frames == 2 and not refused:
                with pytest.raises(RunError, match="another export is writing") as caught:
                    export(run, format, path)
                refused.append(caught)

        export(run, format, path, done=done)
        assert refused and names(path.parent) == ["a"]

    def test_progress(self, run: Run, tmp_path: Path, format: str):
        seen: list[int] = []
        export(run, format, tmp_path / "a", done=seen.append)
        assert seen[-1] == 5 and set(seen) == {1, 2, 3, 4, 5}

    def test_a_run_that_grows_meanwhile(self, run: Run, tmp_path: Path, format: str):
        """What was there at the beginning is written."""
        wanted = export(run, format, tmp_path / "a")

        def done(frames: int) -> None:
            write_prediction(frame_path(run.folder, 5), prediction(5))

        written = export(run, format, tmp_path / "b", done=done)
        assert written.what == wanted.what
        assert content(written.path) == content(wanted.path) or format in STAMPED

    def test_options_are_described(self, format: str):
        for name, option in EXPORTERS[format].options.items():
            assert option.about.endswith("."), f"{name}: {option.about}"

    def test_unknown_option(self, run: Run, tmp_path: Path, format: str):
        with pytest.raises(SettingError, match=f"{format} has no option quality, size; it takes"):
            export(run, format, tmp_path / "a", quality=1, size=2)

    def test_empty_run(self, tmp_path: Path, format: str):
        with pytest.raises(RunError, match="no frames yet"):
            export(make_run(tmp_path / "run", []), format, tmp_path / "a")

    def test_missing_poses(self, tmp_path: Path, format: str):
        run = make_run(tmp_path / "run", [replace(prediction(0), world_from_camera=None)])
        if format not in NEEDS_POSES:
            assert export(run, format, tmp_path / "a").what.startswith("1 ")
            return
        with pytest.raises(RunError, match="output 'pose'"):
            export(run, format, tmp_path / "a")

    def test_a_place_that_cannot_be_written(self, run: Run, tmp_path: Path, format: str):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "below", tmp_path):
            with pytest.raises(RunError, match=r"cannot write|no export wrote|exists already"):
                export(run, format, path)
        assert names(tmp_path) == ["file", "run"]

    def test_damaged_frame(self, run: Run, tmp_path: Path, format: str):
        frame_path(run.folder, 1).write_bytes(b"nonsense")
        with pytest.raises(RunError, match=r"000001\.safetensors is missing or damaged"):
            export(run, format, tmp_path / "a")
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("format", NEEDS_POSES)
def test_unplaced_frames_are_left_out_and_counted(tmp_path: Path, format: str):
    lost = replace(prediction(1), world_from_camera=torch.full((4, 4), float("nan")))
    run = make_run(tmp_path / "run", [prediction(0), lost, prediction(2)])
    written = export(run, format, tmp_path / "a")
    assert "1 frames without a pose left out" in written.what
    assert not any(
        b"nan" in file.lower() for file in content(written.path).values() if file.isascii()
    )
    if not EXPORTERS[format].needs_run:
        placed = export([prediction(0), prediction(2)], format, tmp_path / "b")
        assert content(placed.path) == content(written.path) or format in STAMPED


@pytest.mark.parametrize("format", NEEDS_POSES)
def test_a_run_without_any_placed_frame(tmp_path: Path, format: str):
    lost = replace(prediction(0), world_from_camera=torch.full((4, 4), float("nan")))
    with pytest.raises(RunError, match="nothing to write"):
        export(make_run(tmp_path / "run", [lost]), format, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_option_of_two_formats_is_of_one_type():
    """The command line has one option for both."""
    types: dict[str, set[str]] = {}
    for exporter in EXPORTERS.values():
        for name, option in exporter.options.items():
            types.setdefault(name, set()).add(str(option.type))
    assert all(len(found) == 1 for found in types.values()), types


@pytest.mark.parametrize("format", EXPORTERS)
def test_missing_points(tmp_path: Path, format: str):
    run = make_run(tmp_path / "run", [replace(prediction(0), points=None, confidence=None)])
    if format not in NEEDS_POINTS:
        assert export(run, format, tmp_path / "a").what.startswith("1 ")
        return
    with pytest.raises(RunError, match="output 'points'"):
        export(run, format, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("format", EXPORTERS)
def test_one_frame(tmp_path: Path, format: str):
    path = export(make_run(tmp_path / "run", [prediction(0)]), format, tmp_path / "a").path
    assert all(content(path).values())


@pytest.fixture
def no_room() -> Iterator[Callable[[], None]]:
    """Lets no file become larger than 100 bytes once it is called, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL: dict[str, dict[str, Any]] = {
    **{format: {} for format in EXPORTERS},
    "depth as npz": {"depth_kind": "npz"},
    "depth as exr": {"depth_kind": "exr"},
    "colmap as text": {"text": True},
}


@pytest.mark.parametrize("case", FULL)
def test_full_disk(run: Run, tmp_path: Path, case: str, no_room: Callable[[], None]):
    format, options = case.split()[0], FULL[case]
    if case == "depth as exr":
        pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
    kept = export(run, format, tmp_path / "out" / "a", **options).path  # imports, too
    before = content(kept)
    no_room()
    with pytest.raises(RunError, match=r"cannot write .*a: .*Make room"):
        export(run, format, kept, overwrite=True, **options)
    assert content(kept) == before and names(tmp_path / "out") == ["a"]


@pytest.mark.parametrize("format", EXPORTERS)
def test_full_disk_on_the_command_line(
    run: Run,
    tmp_path: Path,
    format: str,
    no_room: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
):
    """What a person sees: one line that names the place and what to do, and no traceback."""
    words = ["export", str(run.folder), "--to", format, "--out", str(tmp_path / "out" / "a")]
    no_room()
    assert main([*words, "--quiet"]) == 2
    *warnings, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: cannot write {tmp_path / 'out' / 'a'}: ")
    assert "Make room" in error and all(line.startswith("warning: ") for line in warnings)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("format", EXPORTERS)
def test_memory_does_not_grow_with_the_frames(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
):
    """Sixteen more looks at one place need no more memory; nor do frames stay in it.

    COLMAP's export holds as many frames at a time as it says, so both runs are longer by these.

    What NumPy holds is traced; per further frame, it may grow by a tenth of the frame's maps
    (234 kB): small pictures and numbers. Torch's memory is not traced, so the frames that are alive
    are counted; the one before may be, and a few that wait. What C libraries hold is not seen.
    """
    alive: list[weakref.ref] = []
    most = 0

    def read(*arguments: Any, **options: Any) -> Prediction:
        found = read_prediction(*arguments, **options)
        alive.append(weakref.ref(found.points))
        return found

    def done(frames: int) -> None:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))

    monkeypatch.setattr(reader, "read_prediction", read)
    monkeypatch.setattr(samples, "MOST_FRAMES", 4)  # a summary holds so many
    options = {"mesh": {"voxel": 0.3}, "colmap": {"window": 2}}.get(format, {})
    together = colmap.AT_ONCE if format == "colmap" else 0
    peaks = []
    for count in (4 + together, 20 + together):
        frames = [replace(prediction(0, 96, 128), index=index) for index in range(count)]
        run = make_run(tmp_path / str(count), frames)
        del frames
        if not peaks:
            export(run, format, tmp_path / "first", **options)  # imports and caches
        tracemalloc.start()
        export(run, format, tmp_path / f"a{count}", done=done, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    maps = 96 * 128 * (3 * 4 + 4 + 3)
    assert peaks[1] - peaks[0] < 16 * maps / 10
    assert most <= 4 + together


@pytest.mark.parametrize(
    "options",
    [{"pixel_stride": 0}, {"every": -1}, {"min_confidence": float("nan")}],
    ids=str,
)
def test_senseless_options(run: Run, tmp_path: Path, options: dict):
    with pytest.raises(SettingError, match=next(iter(options))):
        export(run, "ply", tmp_path / "a", **options)


def test_unknown_format(run: Run, tmp_path: Path):
    with pytest.raises(SettingError, match=r"'obj'; choose one of: tum, kitti"):
        export(run, "obj", tmp_path / "a")
